"""Scores on the way and the best checkpoint by them."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import small_images, small_model

from tf_pivae.data.arrays import ImageSplit
from tf_pivae.errors import UserError
from tf_pivae.training.recipe import Recipe
from tf_pivae.training.recorder import Recorder
from tf_pivae.training.validation import Validation

TEST = ImageSplit(small_images(12))


def test_bits_per_dim_of_the_first_held_out_images(randomize):
    model = randomize(small_model(), scale=0.05)
    result = Validation(TEST, True, examples=5)(model)
    assert result == {"bits_per_dim": pytest.approx(model.bits_per_dim(TEST.images[:5], seed=1).mean(), rel=1e-6)}
    assert result == Validation(TEST, True, examples=5)(model)
    assert result != Validation(TEST, True, examples=6)(model)


@pytest.mark.parametrize(
    ("likelihood", "options", "message"),
    [
        (False, {}, "needs `examples` and a model with a likelihood"),
        (True, {"examples": 0}, "needs `examples` and a model with a likelihood"),
        (True, {"best": "fid"}, "'fid' needs `samples`"),
        (True, {"samples": 1}, "at least 2"),
    ],
)
def test_a_measure_that_is_not_taken_is_refused(likelihood, options, message):
    with pytest.raises(ValueError, match=message):
        Validation(TEST, likelihood, **options)


def test_missing_weights_of_the_fid_network_are_said_at_once(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        Validation(TEST, True, samples=4, inception_weights=str(tmp_path / "none.pt"))


def test_the_fid_is_that_of_the_samples_features(randomize, monkeypatch):
    """With a network whose features are the pixels, beside means and covariances by NumPy and SciPy's root."""
    from scipy.linalg import sqrtm

    from tf_pivae import figures, metrics
    from tf_pivae.metrics import inception_weights

    def pixels(weights):
        del weights
        example = np.zeros([1, 4, 4, 1], np.uint8)
        return metrics.callable_network(lambda x: np.float32(x[:, :2, :2, 0].reshape(-1, 4)), "pixels", example=example)

    monkeypatch.setattr(inception_weights, "find_weights", lambda weights: None)
    monkeypatch.setattr(metrics, "inception_network", pixels, raising=False)
    model = randomize(small_model(), scale=0.05)
    actual = Validation(TEST, True, samples=9, reference=12, best="fid")(model)["fid"]
    sets = [
        figures.full_scale(x, 4)[:, :2, :2, 0].reshape(-1, 4).astype(float) for x in (model.sample(9, 1), TEST.images)
    ]
    (m, c), (n, d) = ((x.mean(0), np.cov(x, rowvar=False)) for x in sets)
    expected = np.square(m - n).sum() + np.trace(c + d - 2.0 * np.real(sqrtm(c @ d)))
    assert actual == pytest.approx(expected, rel=1e-3)


class _Given:
    best = "fid"

    def __init__(self, scores):
        self._scores = iter(scores)

    def __call__(self, model):
        return {"bits_per_dim": 1.0, "fid": next(self._scores)}


def _validate(run_dir, first, scores):
    """Scores of steps from `first` on, by a run that goes on from the step before; returns what is kept after each."""
    recorder = Recorder(run_dir, 2, Recipe.loggers)
    best_steps = []
    recorder.claim({})
    recorder.start(first - 1, 100, 1)
    recorder.expect_validation()
    validation = _Given(scores)
    weight = keras.Variable(0.0)
    for step in range(first, first + len(scores)):
        recorder.validate(step, {"pivae": [weight], "critic_optimizer": [weight]}, None, validation)
        best_steps += [int(path.name) for path in (run_dir / "best").iterdir()]
    recorder.close()
    return best_steps


def test_scores_by_other_settings_are_not_compared(tmp_path, capsys):
    assert _validate(tmp_path, 1, [1.0, 2.0]) == [1, 1]
    changes = [{"from_step": 2, "settings": {"Validation.examples": ["5", "6"]}}]
    (tmp_path / "changes.json").write_text(json.dumps(changes))
    assert _validate(tmp_path, 3, [4.0, 5.0]) == [3, 3]
    assert "the best checkpoint is now sought among the steps after 2" in capsys.readouterr().out
    (tmp_path / "changes.json").write_text(json.dumps([{"from_step": 2, "settings": {"Validation.every": ["5", "6"]}}]))
    assert _validate(tmp_path, 5, [3.0, 0.5]) == [3, 6]  # The first is better than 4, but not than 1.


def test_the_best_is_kept_also_by_a_run_that_goes_on(tmp_path):
    assert _validate(tmp_path, 1, [3.0, 2.0, 2.5, 1.0]) == [1, 2, 2, 4]
    # From step 2 on once more: what came later is forgotten, its checkpoint as soon as there is a better one.
    assert _validate(tmp_path, 3, [2.5, 1.0, 1.5]) == [4, 4, 4]
    assert _validate(tmp_path, 3, [1.9, 1.0]) == [3, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation/fid"] for line in lines] == [3.0, 2.0, 1.9, 1.0]
    names = tf.train.load_checkpoint(str(tmp_path / "best/00000004/checkpoint")).get_variable_to_shape_map()
    assert not [name for name in names if "optimizer" in name]
