"""Encode, decode, reconstruct and interpolate, beside each other and what they refuse."""

import numpy as np
import pytest
import small_models
from small_models import SHAPE, assert_close


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(small_models.model(), scale=0.2)


@pytest.fixture(scope="module")
def conditional(randomize):
    return randomize(small_models.conditional(), scale=0.2)


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, *SHAPE], np.uint8)


def test_decoding_what_was_encoded_is_the_reconstruction(model):
    latents = model.encode(images(5), seed=7, batch_size=2)
    assert list(latents) == model.vae.group_names
    assert {name: z.shape[1:] for name, z in latents.items()} == model.latent_shapes
    assert_close(model.decode(latents, batch_size=3), model.reconstruct(images(5), seed=7))
    other = model.encode(images(5), seed=8)
    assert all((other[name] != z).any() for name, z in latents.items())


def test_classes_matter_to_both_sides(conditional):
    labels = np.array([0, 1, 2])
    latents = conditional.encode(images(3), labels=labels)
    assert_close(conditional.decode(latents, labels), conditional.reconstruct(images(3), labels=labels))
    assert (conditional.decode(latents, labels) != conditional.decode(latents, labels[::-1])).any()


def test_walks_begin_and_end_at_reconstructions(model):
    starts = images(3, 1)
    ends = images(3, 2)
    walks = model.interpolate(starts, ends, steps=5, seed=7)
    assert walks.shape == (3, 5, *SHAPE)
    assert_close(walks[:, 0], model.reconstruct(starts, seed=7))
    assert_close(walks[:, -1], model.reconstruct(ends, seed=7))
    a = model.encode(starts, seed=7)
    b = model.encode(ends, seed=7)
    assert_close(walks[:, 1], model.decode({name: 0.75 * a[name] + 0.25 * b[name] for name in a}))


def test_walks_of_classes(conditional):
    labels = np.array([1, 2])
    walks = conditional.interpolate(images(2, 1), images(2, 2), steps=2, labels=labels)
    assert_close(walks[:, 0], conditional.reconstruct(images(2, 1), labels=labels))
    assert_close(walks[:, 1], conditional.reconstruct(images(2, 2), labels=labels))


def test_log_weights_are_those_of_single_images(model):
    """Their mean is `log_prob` of an image alone; an image's own do not depend on its neighbours."""
    batch = images(3)
    weights = model.log_weights(batch, 4, seed=5)
    assert weights.shape == (3, 4)
    means = np.logaddexp.reduce(weights.astype(np.float64), 1) - np.log(4)
    alone = [model.log_prob(batch[i : i + 1], 4, seed=5)[0] for i in range(3)]
    np.testing.assert_allclose(means, alone, rtol=1e-5)
    np.testing.assert_allclose(model.log_weights(batch[::-1], 4, seed=5, batch_size=2), weights[::-1], rtol=1e-5)
    assert np.ptp(weights, axis=1).min() > 1e-3


def without(latents):
    return dict(list(latents.items())[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, "`latents` must be a dict of top, .*; got "),
        (lambda z: {**z, "more": z["top"]}, "`latents` must be a dict of top, .*more"),
        (lambda z: {**z, "top": z["top"][:1]}, "must be .*with one B for all groups"),
        (lambda z: {**z, "top": z["top"][..., :1]}, r"`top` must be \[B, "),
        (lambda z: {**z, "top": np.float32(1)}, r"`top` must be \[B, .*got \[\]"),
        (lambda z: {**z, "top": z["top"] * np.nan}, "`top` must be finite"),
    ],
)
def test_latents_that_are_none(model, change, message):
    with pytest.raises(ValueError, match=message):
        model.decode(change(model.encode(images(2))))


def test_walks_that_are_none(model, conditional):
    with pytest.raises(ValueError, match="`starts` and `ends` must have the same length; got 2 and 1"):
        model.interpolate(images(2), images(1))
    with pytest.raises(ValueError, match="`steps` must be at least 2"):
        model.interpolate(images(2), images(2), steps=1)
    with pytest.raises(ValueError, match="`labels`"):
        conditional.interpolate(images(2), images(2), labels=np.array([0]))
    with pytest.raises(ValueError, match="needs `labels`"):
        conditional.encode(images(2))
