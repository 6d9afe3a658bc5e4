"""TensorFlow takes some paths of checkpoints for patterns; a run's may have any name."""

import shutil

import in_process
import pytest

from tf_pivae import loading
from tf_pivae.runs import records

PARAMETERS = ["train.checkpoint_every=1"]


@pytest.mark.parametrize("name", ["of[1]", "a*b", "what?", "back\\slash", "with space", "[x"])
def test_paths_that_are_patterns_to_tensorflow(name, tmp_path):
    """Trained, gone on with, loaded."""
    run_dir = tmp_path / name / "run"
    in_process.train(run_dir, 1, parameters=PARAMETERS)
    shutil.move(run_dir, tmp_path / name / "moved")
    (tmp_path / name / "moved" / "config.gin").unlink()  # Of one step.
    assert in_process.train(tmp_path / name / "moved", 2, parameters=PARAMETERS).step == 2
    starts = records.load_environments(tmp_path / name / "moved")
    assert [start["from_step"] for start in starts] == [0, 1], "it went on"
    assert loading.load_with_step(tmp_path / name / "moved")[1] == 2
