"""Small models of images of 8x8, for tests of what is done with latents."""

import numpy as np

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE

SHAPE = (8, 8, 2)


def _vae(image_shape, num_classes=0):
    sizes = dict(stem_width=4, widths=(4, 6), top_channels=3, latent_channels=2)
    return residual_vae(image_shape, posterior=IAFPosterior, num_classes=num_classes, **sizes)


def _flow(image_shape):
    return RealNVP(image_shape, num_scales=1, num_couplings=2, num_blocks=1, width=4)


def model():
    return PiVAE(SHAPE, vae=_vae, flow=_flow)


def conditional():
    return PiVAE(SHAPE, vae=_vae, num_classes=3)


def assert_close(images, expected):
    """Equal but for the rounding of a level: another graph computes the same."""
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1
    assert expected.std() > 1
