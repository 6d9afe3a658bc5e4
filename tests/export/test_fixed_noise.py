"""Every row of an exported density gets row 0's noise, sample by sample."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.export.write.fixed_noise import FixedNoise
from tf_pivae.noise import RowNoise


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_each_row_draws_what_row_0_draws(draw):
    noise = FixedNoise(tf.constant(3), num_streams=4, seed=7)
    alone = getattr(RowNoise(7, 1), draw)("tag", [2, 5]).numpy()
    np.testing.assert_array_equal(getattr(noise, draw)("tag", [2, 5]), np.repeat(alone, 3, 0))
    samples = noise.samples(tf.constant([2, 0]))
    assert samples.num_rows == 6
    streams = [getattr(RowNoise(7, 1).fold_in(k), draw)("tag", [2, 5]).numpy() for k in (2, 0)]
    np.testing.assert_array_equal(getattr(samples, draw)("tag", [2, 5]), np.repeat(np.concatenate(streams), 3, 0))


def test_samples_of_a_block_that_is_not_full(grey):
    """Of 5 samples of 24 images two are computed side by side: the last block has one too many, which is left out."""
    images = grey.images[:24]
    assert len(images) == 24
    bound = grey.model.importance_weighted_bound(images, 5, FixedNoise(tf.constant(24), num_streams=5))
    alone = [grey.model.log_prob(image[None], 5)[0] for image in images]
    np.testing.assert_allclose(bound, alone, rtol=1e-5)
