"""Imports everything that registers itself with gin."""

import tf_pivae.bijectors.preprocessing
import tf_pivae.bijectors.real_nvp
import tf_pivae.data
import tf_pivae.layers.convolution
import tf_pivae.layers.rematerialization
import tf_pivae.layers.spectral_norm
import tf_pivae.layers.weight_norm
import tf_pivae.metrics.gan_classification
import tf_pivae.models.critic
import tf_pivae.models.dequantization
import tf_pivae.models.hierarchical_vae
import tf_pivae.models.latents
import tf_pivae.models.pivae
import tf_pivae.training.accumulation
import tf_pivae.training.augmentation
import tf_pivae.training.balance
import tf_pivae.training.loop
import tf_pivae.training.losses
import tf_pivae.training.optimizer
import tf_pivae.training.regularizers
import tf_pivae.training.schedules
import tf_pivae.training.trainer
import tf_pivae.training.validation  # noqa: F401
