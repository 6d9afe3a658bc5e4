"""NaN in the data, in the gradients and in the optimiser: noticed, named, not saved, and left behind."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from in_process import checkpoint_steps, train
from killing import read_metrics, state_bytes

from tf_pivae import cli
from tf_pivae.errors import UserError
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.trainer import Trainer

NAN = float("nan")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(run_dir)
    return run_dir


@pytest.fixture
def poisoned(monkeypatch):
    """Two switches, of the data and of the gradients: while one is on, one number among them is NaN."""
    data = tf.Variable(False)
    gradient = tf.Variable(False)
    features = PiVAE.features
    dequantize = PiVAE.dequantize
    apply = Trainer._apply

    def with_one_pixel(v):
        first = tf.reshape(tf.one_hot(0, tf.size(v), on_value=NAN, off_value=0.0), tf.shape(v))
        return tf.where(data, v + first, v)

    def of_the_likelihood(self, *arguments, **options):
        result = features(self, *arguments, **options)
        return result._replace(y=with_one_pixel(result.y))

    def of_the_critic(self, *arguments):
        return with_one_pixel(dequantize(self, *arguments))

    def with_one_gradient(self, optimizer, variables, gradients):
        one = next(i for i, of_one in enumerate(gradients) if of_one is not None)
        poisoned = [tf.where(gradient, NAN, g) if i == one else g for i, g in enumerate(gradients)]
        return apply(self, optimizer, variables, poisoned)

    monkeypatch.setattr(PiVAE, "features", of_the_likelihood)
    monkeypatch.setattr(PiVAE, "dequantize", of_the_critic)
    monkeypatch.setattr(Trainer, "_apply", with_one_gradient)
    return data, gradient


def numbers(state, *groups):
    """Bytes of every variable of some groups but the counters of all steps."""
    variables = [v for group in groups for v in state[group] if not v.path.endswith("/iteration")]
    return [keras.ops.convert_to_numpy(v).tobytes() for v in variables]


def test_a_bad_batch_and_a_bad_gradient_are_skipped_and_the_training_goes_on(tmp_path, poisoned, capsys):
    """The steps before and after them move the weights; the skipped ones move nothing but the counter of steps."""
    history = {}

    def after(step, state):
        history[step] = numbers(state, "pivae", "moving_average", "generator_optimizer")
        poisoned[0].assign(step + 1 in (3, 4))
        poisoned[1].assign(step + 1 == 6)

    train(tmp_path / "run", after_step=after)
    messages = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert messages == [
        "step 3 skipped: bits_per_dim is not finite.",
        "step 4 skipped: bits_per_dim is not finite.",
        "step 6 skipped: gradient_norm is not finite.",
    ]
    assert [step for step in range(2, 9) if history[step] == history[step - 1]] == [3, 4, 6]
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["skipped_generator"]] == [3, 4, 6]
    assert lines[2]["bits_per_dim"] is None  # JSON has no NaN.
    assert all(math.isfinite(line["bits_per_dim"]) for line in lines if not line["skipped_generator"])
    assert checkpoint_steps(tmp_path / "run") == [4, 6, 8]


def test_as_many_in_a_row_as_configured_end_the_training(tmp_path, poisoned):
    def after(step, state):
        poisoned[0].assign(step >= 5)

    with pytest.raises(UserError, match=r"^2 steps in a row were not finite, the last at step 7 in bits_per_dim; "):
        train(tmp_path / "run", after_step=after, parameters=["train.max_consecutive_skips=2"])
    assert checkpoint_steps(tmp_path / "run")[-1] == 6  # Of the weights after step 5: the skipped one moved nothing.


@pytest.mark.parametrize(
    ("group", "kind", "at_step", "message"),
    [
        # After an even step, when a checkpoint is due, and after an odd one, when a weight catches it first.
        ("generator_optimizer", "_momentum", 6, r"^step 6 is not saved: generator_optimizer/\S+_momentum holds NaN"),
        ("generator_optimizer", "_norm", 5, r"^step \d .*generator_optimizer/\S+_norm holds NaN \(1 of \d+ values"),
        ("moving_average", "/g", 5, r"^step 6 is not saved: moving_average/\S+/g holds NaN \(1 of \d+ values"),
    ],
)
def test_a_bad_number_in_the_state_is_named_and_the_same_command_goes_on_from_before(
    tmp_path, undisturbed, group, kind, at_step, message
):
    def after(step, state):
        if step == at_step:
            variable = next(v for v in state[group] if v.path.endswith(kind))
            value = np.array(keras.ops.convert_to_numpy(variable))
            value.flat[0] = NAN
            variable.assign(value)

    with pytest.raises(UserError, match=message) as error:
        train(tmp_path / "run", after_step=after)
    assert "The same command goes on from the last checkpoint" in cli.one_line(error.value)
    assert checkpoint_steps(tmp_path / "run") == [2, 4]
    train(tmp_path / "run")
    assert state_bytes(tmp_path / "run", 8) == state_bytes(undisturbed, 8)
