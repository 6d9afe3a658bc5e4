"""The checkpoint that a validation chose, whether it is among the newest or not."""

import csv

import numpy as np
import pytest

import tf_pivae
from tf_pivae.uses import interpolate, reconstruct, sample


@pytest.fixture
def run(finished_copy):
    """A run whose best checkpoint, of step 4, is none of its newest."""
    (finished_copy / "best").mkdir()
    (finished_copy / "checkpoints/00000004").rename(finished_copy / "best/00000004")
    return finished_copy


@pytest.fixture
def own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 1], np.uint8)
    np.savez(tmp_path / "own.npz", images=images)
    return tmp_path / "own.npz", images


def test_pictures_are_of_the_best(run, own, tmp_path):
    assert sample(run, tmp_path / "samples.npz", 3, step="best") == 4
    model = tf_pivae.load(run, step="best")
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npz")["images"], model.sample(3))
    assert sample(run, tmp_path / "newest.npz", 3) == 12
    assert reconstruct(run, own[0], tmp_path / "reconstructions.png", step="best") == 4
    assert interpolate(run, own[0], tmp_path / "walks.png", step="best") == 4


def test_the_commands_take_it(run, own, tmp_path, run_command):
    flags = [f"--run_dir={run}", f"--images={own[0]}", "--step=best"]
    score = [*flags, f"--held_out={own[0]}", "--importance_samples=1", f"--output={tmp_path / 'scores.csv'}"]
    for result in (
        run_command("score", *score),
        run_command("reconstruct", *flags, f"--output={tmp_path / 'reconstructions.png'}"),
        run_command("interpolate", *flags, f"--output={tmp_path / 'walks.png'}"),
    ):
        assert result.returncode == 0, result.stderr
    with open(tmp_path / "scores.csv", newline="") as file:
        results = [float(row["log_prob"]) for row in csv.DictReader(file)]
    model = tf_pivae.load(run, step="best")
    np.testing.assert_allclose(results, model.log_weights(own[1], 1)[:, 0], rtol=1e-5)
