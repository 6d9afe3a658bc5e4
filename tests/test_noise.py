"""Noise belongs to a row: the same row gives the same numbers, another row, tag or seed gives others."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_pivae import noise
from tf_pivae.noise import NoiseOfSamples, RowNoise, SeededRowNoise, fold_in

SHAPES = [[], [1], [3], [4], [5], [2, 3], [3, 3, 1], [4, 4, 3]]  # Sizes on both sides of Philox' four.
DRAWS = ["normal", "uniform"]


@pytest.mark.parametrize("draw", [*DRAWS, "bits"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_in_every_batch(draw, shape):
    whole = getattr(RowNoise(7, 10), draw)("tag", shape).numpy()
    assert whole.shape == (10, *shape)
    for first, count in [(0, 1), (3, 1), (2, 5), (9, 1), (5, 5)]:
        part = getattr(RowNoise(7, count, tf.constant(first, tf.int64)), draw)("tag", shape)
        np.testing.assert_array_equal(part, whole[first : first + count])


@pytest.mark.parametrize("draw", DRAWS)
def test_a_graph_draws_what_eager_execution_draws(draw):
    @tf.function
    def graph(count, first):
        return getattr(RowNoise(7, count, first).fold_in(2), draw)("tag", [5])

    eager = getattr(RowNoise(7, 6, 11).fold_in(2), draw)("tag", [5])
    np.testing.assert_array_equal(graph(tf.constant(6), tf.constant(11)), eager)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("noise", "arguments"), [(RowNoise, (7, 3, 5)), (SeededRowNoise, ([4, 2, 4],))])
def test_samples_side_by_side_draw_what_each_alone_draws(noise, arguments, draw):
    rows = noise(*arguments)
    both = NoiseOfSamples(rows, tf.constant([3, 1]))
    assert both.num_rows == 6
    alone = [getattr(rows.fold_in(k), draw)("tag", [2, 5]) for k in (3, 1)]
    np.testing.assert_array_equal(getattr(both, draw)("tag", [2, 5]), np.concatenate(alone))


@pytest.mark.parametrize("draw", DRAWS)
def test_large_rows_keep_their_place(draw):
    """Enough numbers for the generator to spread over threads, and rows far down the stream."""
    first = 2**40
    whole = getattr(RowNoise(1, 64, first), draw)("tag", [2047])
    part = getattr(RowNoise(1, 1, first + 63), draw)("tag", [2047])
    np.testing.assert_array_equal(part[0], whole[63])


def _streams(draw, n=40000):
    """Sequences that must not know of each other."""
    row = np.asarray(getattr(RowNoise(0, 2), draw)("a", [n]))
    yield from row
    yield getattr(RowNoise(0, 1), draw)("b", [n])[0]
    yield getattr(RowNoise(1, 1), draw)("a", [n])[0]
    yield getattr(RowNoise(-1, 1), draw)("a", [n])[0]
    yield getattr(RowNoise(2**31, 1), draw)("a", [n])[0]
    yield getattr(RowNoise(0, 1).fold_in("likelihood"), draw)("a", [n])[0]
    yield getattr(RowNoise(0, 1).fold_in(0), draw)("a", [n])[0]
    yield getattr(RowNoise(0, 1).fold_in(1), draw)("a", [n])[0]
    yield np.roll(row[0], 1)


@pytest.mark.parametrize("draw", DRAWS)
def test_streams_are_uncorrelated(draw):
    streams = [np.asarray(stream) for stream in _streams(draw)]
    correlations = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(correlations).max() < 5.0 / np.sqrt(40000)
    correlations = np.corrcoef(np.square(streams))[np.triu_indices(len(streams), 1)]
    assert np.abs(correlations).max() < 5.0 / np.sqrt(40000)


@pytest.mark.parametrize("shape", [[4], [5], [7]])
def test_rows_share_no_numbers(shape):
    x = RowNoise(3, 2000).uniform("tag", shape).numpy()
    firsts = {tuple(row[:4]) for row in x} | {tuple(row[-4:]) for row in x}
    assert len(firsts) == 2000 * (1 if shape == [4] else 2)


def test_uniform_is_uniform():
    x = RowNoise(5, 1000, 12345).uniform("tag", [10, 100]).numpy().ravel()
    assert x.dtype == np.float32
    assert x.min() >= 0.0
    assert x.max() < 1.0
    assert scipy.stats.kstest(x, "uniform").pvalue > 1e-3


def test_normal_is_normal():
    x = RowNoise(5, 1000, 12345).normal("tag", [10, 101]).numpy().ravel().astype(np.float64)
    assert scipy.stats.kstest(x, "norm").pvalue > 1e-3
    n = x.size
    for power, (expected, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs(np.mean(x**power) - expected) < 4.5 * np.sqrt(variance / n), power


def test_positions_within_a_row_are_normal_and_uncorrelated():
    x = RowNoise(8, 20000).normal("tag", [6]).numpy()
    np.testing.assert_allclose(np.cov(x.T), np.eye(6), atol=5.0 * np.sqrt(2.0 / 20000))


def test_tags_give_different_keys():
    root = tf.constant(7, tf.uint64)
    tags = ["a", "b", "0", "latents/top", "latents/top_down_0", *range(40), 2**31, 2**62]
    keys = [int(fold_in(root, tag)) for tag in tags]
    again = [int(fold_in(tf.constant(keys[0], tf.uint64), tag)) for tag in tags]
    assert len({*keys, *again}) == 2 * len(tags)
    assert int(fold_in(root, tf.constant(3))) == keys[tags.index(3)]


def _philox(key, counter):
    """Philox 4x32 of ten rounds (Salmon et al. 2011): uint64 [2, ...] counters -> uint32 [4, ...]."""
    low32 = np.uint64(0xFFFFFFFF)
    words = [counter[0], counter[0] >> 32, counter[1], counter[1] >> 32]
    words = [np.asarray(word, np.uint64) & low32 for word in words]
    keys = [np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)]
    for _ in range(10):
        first = words[0] * np.uint64(0xD2511F53)
        second = words[2] * np.uint64(0xCD9E8D57)
        words = [
            (second >> np.uint64(32)) ^ words[1] ^ keys[0],
            second & low32,
            (first >> np.uint64(32)) ^ words[3] ^ keys[1],
            first & low32,
        ]
        keys = [(key + np.uint64(step)) & low32 for key, step in zip(keys, (0x9E3779B9, 0xBB67AE85), strict=True)]
    return np.stack(words).astype(np.uint32)


def _as_uniform(words):
    return ((words & 0x7FFFFF) | 0x3F800000).view(np.float32) - 1.0


@pytest.mark.parametrize("seed", [0, -1, 2**62 + 5, -(2**63), 2**63 - 1])
def test_numbers_are_those_of_philox_at_the_seed_and_the_place(seed):
    """The seed is the upper half of the counter: of a bijection, so no two seeds share a block of numbers."""
    key = int(fold_in(noise._root_key(), "tag"))
    rows = np.arange(3, 8, dtype=np.uint64)
    counters = np.stack([2 * rows, np.broadcast_to(np.uint64(seed % 2**64), rows.shape)])
    expected = _philox(key, counters).T
    np.testing.assert_array_equal(RowNoise(seed, 5, 3).bits("tag", [5])[:, :4], expected)
    np.testing.assert_array_equal(RowNoise(seed, 5, 3).uniform("tag", [5])[:, :4], _as_uniform(expected))
    seeded = SeededRowNoise(tf.constant([seed, 1], tf.int64)).uniform("tag", [4])
    np.testing.assert_array_equal(seeded[0], RowNoise(seed, 1).uniform("tag", [4])[0])


def test_a_million_seeds_share_no_stream():
    """Neighbours, and seeds that differ in single bits of 64. (Under a derived seed of 32 bits some hundred would.)"""
    key = int(fold_in(noise._root_key(), "latents/top"))
    flipped = np.uint64(0x0123456789ABCDEF) ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))
    seeds = np.concatenate([np.arange(1_000_000, dtype=np.uint64), flipped])
    blocks = _philox(key, np.stack([np.zeros_like(seeds), seeds]))
    assert len(np.unique(blocks[0].astype(np.uint64) << np.uint64(32) | blocks[1])) == len(seeds)
    pairs = [77404, 83274, 22868, 53952, 39865, 69581, 41984, 79200]
    drawn = SeededRowNoise(tf.constant(pairs, tf.int64)).uniform("latents/top", [4])
    np.testing.assert_array_equal(drawn, _as_uniform(blocks[:, pairs]).T)
    assert len(np.unique(drawn, axis=0)) == len(pairs)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 1.5, "4", None, True])
def test_a_seed_is_a_whole_number_of_64_bits(seed):
    with pytest.raises(ValueError, match=r"^`seed` must be (a whole number|at (least|most) -?9\d+); got "):
        noise.seed_tensor(seed)
    assert int(noise.seed_tensor(np.int64(-5))) == -5


# Rows with a seed each.

SEEDS = [0, 1, -1, 5, -5, 2**31, 2**31 + 5, 2**62, 2**62 + 5, -(2**62), -(2**63), 2**63 - 1, 2**61]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", [[], [3], [2, 2, 1]])
def test_seeded_row_depends_on_its_seed_alone(draw, shape):
    whole = getattr(SeededRowNoise(tf.constant(SEEDS, tf.int64)), draw)("tag", shape).numpy()
    order = np.random.default_rng(0).permutation(len(SEEDS))
    shuffled = getattr(SeededRowNoise(tf.constant(np.array(SEEDS)[order])), draw)("tag", shape)
    np.testing.assert_array_equal(shuffled, whole[order])
    for i in (0, 2, 8):
        alone = getattr(SeededRowNoise(tf.constant([SEEDS[i]], tf.int64)), draw)("tag", shape)
        np.testing.assert_array_equal(alone[0], whole[i])


@pytest.mark.parametrize("draw", DRAWS)
def test_seeded_rows_differ_by_seed_and_tag(draw):
    first = SeededRowNoise(tf.constant(SEEDS, tf.int64))
    rows = [getattr(n, draw)(tag, [8]).numpy() for n in (first, first.fold_in("x"), first.fold_in(1)) for tag in "ab"]
    rows = np.concatenate(rows)
    assert len({tuple(row) for row in rows}) == 6 * len(SEEDS)


def test_seeded_noise_is_distributed_like_the_other():
    rows = SeededRowNoise(tf.range(300, dtype=tf.int64) - 150)
    normal, uniform = tf.function(lambda: (rows.normal("tag", [50]), rows.uniform("tag", [50])))()
    normal = normal.numpy()
    uniform = uniform.numpy()
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    correlations = np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]
    assert abs(correlations) < 5.0 / np.sqrt(normal.size)
    assert int(rows.num_rows) == 300
