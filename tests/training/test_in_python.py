"""`tf_pivae.train`, the command as a function."""

import concurrent.futures
import signal
from pathlib import Path

import gin
import pytest
import tensorflow as tf

import tf_pivae
from tf_pivae import loading
from tf_pivae.errors import UserError

SETTINGS = ["num_steps=2", "train.eval_examples=0", "train.log_every=1", "bundled.num_examples=(16, 4)"]


def test_train_with_a_callback_leaves_gin_as_it_was(tmp_path: Path, plain: str) -> None:
    loading.parse_gin([plain], ["num_steps=77"])
    reports = []
    outcome = tf_pivae.train(
        tmp_path / "run", plain, SETTINGS, callback=lambda step, metrics: reports.append((step, sorted(metrics)[0]))
    )
    assert (outcome.step, outcome.signal) == (2, None)
    assert [step for step, _ in reports] == [1, 2]
    assert gin.query_parameter("num_steps/gin.macro.value") == 77
    assert tf_pivae.load(tmp_path / "run").image_shape == (16, 16, 1)
    assert tf_pivae.train(tmp_path / "run", [plain], ["num_steps=3", *SETTINGS[1:]]).step == 3
    with pytest.raises(UserError, match="add --from_here"):
        tf_pivae.train(tmp_path / "run", plain, ["num_steps=3", "train.flip=True", *SETTINGS[1:]])
    again = ["num_steps=4", "train.flip=True", *SETTINGS[1:]]
    assert tf_pivae.train(tmp_path / "run", plain, again, from_here=True).step == 4


@pytest.mark.usefixtures("graph_optimizer")
def test_a_callback_stops_a_training_in_a_thread(tmp_path: Path, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which loses its output on the way, as behind `| head`: it goes on to where it is stopped, and saves."""

    def nobody_reads(text: str) -> None:
        raise BrokenPipeError

    def callback(step: int, metrics: dict[str, float]) -> bool:
        is_off.append(tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"])
        return step == 2

    is_off: list[bool] = []
    monkeypatch.setattr("tqdm.tqdm.write", nobody_reads)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        settings = ["num_steps=4", *SETTINGS[1:]]
        call = pool.submit(tf_pivae.train, tmp_path / "run", plain, settings, callback=callback)
        outcome = call.result()
    assert (outcome.step, outcome.signal) == (2, signal.SIGTERM)
    assert (tmp_path / "run/checkpoints/00000002").is_dir()
    assert is_off == [True, True]  # TensorFlow's optimiser of graphs, while steps are taken, and afterwards no more.
    assert not tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]


def test_mistakes_are_one_line(tmp_path: Path, plain: str) -> None:
    with pytest.raises(UserError, match="did you mean num_steps"):
        tf_pivae.train(tmp_path / "run", plain, ["num_step=2"])
    with pytest.raises(UserError, match=r"no gin file 'demmo\.gin'.*demo\.gin"):
        tf_pivae.train(tmp_path / "run", "demmo.gin")
    assert "callback" in (tf_pivae.train.__call__.__doc__ or "")
