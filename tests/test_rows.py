"""What `log_prob` and the others give does not depend on batches, replicas or calls side by side."""

import functools
import threading

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.system import threads
from tf_pivae.system.rows import RowFunction

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, [7, 8, 8, 1], np.uint8)
LABELS = RNG.integers(0, 3, [7])


def _strategy(replicas):
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


@pytest.fixture(scope="module")
def models(randomize):
    """The same class-conditional model on one replica, on two, and on one whose calls run three at a time."""
    vae = functools.partial(residual_vae, stem_width=4, widths=(4, 6), latent_channels=2, top_channels=2)
    flow = functools.partial(RealNVP, width=4, num_blocks=1)
    built = []
    with pytest.MonkeyPatch.context() as patch:
        for replicas, calls in ((1, 1), (2, 1), (1, 3)):
            patch.setattr(threads, "calls_side_by_side", lambda calls=calls: calls)
            with _strategy(replicas).scope():
                built.append(PiVAE((8, 8, 1), vae=vae, flow=flow, num_classes=3))
    randomize(built[0], scale=0.1)
    for model in built[1:]:
        for ours, other in zip(built[0].variables, model.variables, strict=True):
            other.assign(ours)
    return built


CALLS = {
    "log_prob": lambda m, size: m.log_prob(IMAGES, 3, seed=4, labels=LABELS, batch_size=size, first_row=5),
    "sample": lambda m, size: m.sample(7, seed=4, labels=LABELS, batch_size=size, first_row=5),
    "reconstruct": lambda m, size: m.reconstruct(IMAGES, seed=4, labels=LABELS, batch_size=size),
}


@pytest.mark.parametrize("call", CALLS)
def test_one_and_two_replicas_any_batch_size(models, call):
    expected = CALLS[call](models[0], 7)
    for model in models:
        for size in (1, 2, 3, 7, 64):
            result = CALLS[call](model, size)
            assert result.shape == expected.shape
            assert result.dtype == expected.dtype
            # Float rounding differs with the batch size; a pixel at the edge of its level may move by one.
            np.testing.assert_allclose(result.astype(float), expected, rtol=1e-5, atol=float(call != "log_prob"))


def test_terms_on_two_replicas_add_up(models):
    one, two, _ = (model.bound_terms(IMAGES, seed=4, labels=LABELS, first_row=5) for model in models)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-3)
    total = sum(two.values())
    np.testing.assert_allclose(total, models[1].log_prob(IMAGES, 1, seed=4, labels=LABELS, first_row=5), rtol=1e-5)


def test_terms_of_the_importance_samples_average_to_log_prob(models):
    for model in models:
        terms = [model.bound_terms(IMAGES, seed=4, labels=LABELS, first_row=5, sample=k) for k in range(3)]
        weights = [sum(parts.values()).astype(np.float64) for parts in terms]
        expected = np.logaddexp.reduce(weights) - np.log(3.0)
        result = model.log_prob(IMAGES, 3, seed=4, labels=LABELS, first_row=5)
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        assert (np.std(weights, 0) > 0.1).all()


def test_no_rows(models):
    for model in models:
        assert model.log_prob(IMAGES[:0], labels=LABELS[:0]).shape == (0,)
        assert model.sample(0, labels=LABELS[:0]).shape == (0, 8, 8, 1)


def test_every_row_once_and_on_every_replica():
    def function(first_row, count, values, labels, factor):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = first_row + tf.range(tf.cast(count, tf.int64))
        return {"rows": factor * rows, "replica": tf.fill([count], replica), "values": values}

    values = np.arange(11.0)
    for replicas in (1, 2):
        with _strategy(replicas).scope():
            row_function = RowFunction(function)
        result = row_function(11, 100, 4, (values, None), (tf.constant(10, tf.int64),))
        np.testing.assert_array_equal(result["rows"], 10 * np.arange(100, 111))
        np.testing.assert_array_equal(result["values"], values)
        assert set(result["replica"]) == set(range(replicas))
        assert row_function.num_traces == 1, "the last batch has fewer rows"


@pytest.mark.skipif(threads.num_cores() < 2, reason="TensorFlow has one thread: no call can wait for another")
def test_calls_run_side_by_side_and_keep_their_places(monkeypatch):
    monkeypatch.setattr(threads, "calls_side_by_side", lambda: 2)
    meeting = threading.Barrier(2, timeout=60)

    def meet(values):  # Each call waits here for another one; but the first, which comes alone.
        if values[0] >= 0:
            meeting.wait()
        return values

    def function(first_row, count, values):
        return tf.ensure_shape(tf.numpy_function(meet, [values], tf.int64), [None])

    row_function = RowFunction(function)
    row_function(1, 0, 1, (np.array([-1]),))
    values = np.arange(12)
    np.testing.assert_array_equal(row_function(12, 0, 6, (values,)), values)
    np.testing.assert_array_equal(row_function(2, 0, 6, (values[:2],)), values[:2])
