"""From the exported signature as well, the probabilities of all 16 images of two pixels with 4 levels add up."""

import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import logit
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
from tf_pivae.models.dequantization import EdgeBins
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise

SHAPE = (2, 1, 1)
LEVELS = 4
SAMPLES = 2048
ALL_IMAGES = np.array(list(itertools.product(range(LEVELS), repeat=2)), np.uint8).reshape(16, *SHAPE)


def _model(randomize):
    """With bins that cover all of the density, nothing lies outside of the images."""
    keras.utils.set_random_seed(1)
    model = PiVAE(
        SHAPE,
        num_bins=LEVELS,
        vae=lambda image_shape, num_classes: residual_vae(
            image_shape, stem_width=6, widths=(8,), top_channels=2, latent_channels=2, posterior=IAFPosterior
        ),
        flow=lambda image_shape: RealNVP(image_shape, num_blocks=1, width=6),
        preprocessing=logit,
        dequantization=EdgeBins,
    )
    return randomize(model, scale=0.02)


def _standard_error(model):
    """Of the sum, from independent importance samples, each with one noise for all images as in the export."""

    @tf.function(autograph=False)
    def total(k):
        one_row = RowNoise(7, 1, first_row=k)
        return tf.reduce_logsumexp(model.bound(ALL_IMAGES, one_row).log_prob)

    totals = np.exp([float(total(tf.constant(k))) for k in range(256)])
    return totals.std(ddof=1) / math.sqrt(SAMPLES)


def test_probabilities_of_all_images_add_up(randomize, tmp_path):
    model = _model(randomize)
    write_saved_model(model, tmp_path / "1", Options(importance_samples=SAMPLES))
    log_prob = tf.saved_model.load(str(tmp_path / "1")).signatures["log_prob"](images=ALL_IMAGES)["log_prob"]
    total = np.sum(np.exp(log_prob.numpy().astype(np.float64)))
    error = _standard_error(model)
    assert error < 0.015, "too few samples for a sharp test"
    assert abs(total - 1.0) < 4.0 * error
    assert log_prob.numpy().std() > 0.1
