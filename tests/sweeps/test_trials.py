"""One trial: its name, its folder, its processes."""

import fcntl
import re
import threading
import time

import pytest

from tf_pivae.errors import UserError
from tf_pivae.sweep.trials import Record, Trial, TrialStage, run_trial

TRAIN = TrialStage("train", "train")
EVALUATE = TrialStage("evaluate fid", "evaluate", ("--metrics=fid",))


def calls(trial):
    return (trial.directory / "calls").read_text().splitlines()


def test_names_are_functions_of_the_settings_and_fit_into_a_file_system(tmp_path):
    def name(**settings):
        return Trial(tuple(sorted(settings.items())), str(tmp_path)).name

    assert name(seed="0", adversarial_weight="10") == "adversarial_weight=10,seed=0"
    awkward = [
        name(**settings)
        for settings in (
            {"path": "'../../x'"},
            {"path": "'.._.._x'"},
            {"widths": "(8, 16)"},
            {"widths": "(8,16)"},
            {"x": "y" * 500},
            {"x": "y" * 501},
            {"x": "é\n"},
        )
    ]
    assert len(set(awkward)) == len(awkward)
    for text in awkward:
        assert re.fullmatch(r"[A-Za-z0-9_.,=@+-]{1,140}", text)
        (tmp_path / text).mkdir()


def test_a_folder_serves_one_configuration(make_trial):
    trial = make_trial("one")
    trial.claim("one")
    with pytest.raises(UserError, match="choose another --sweep_dir"):
        trial.claim("another")
    (trial.directory / "trial.gin").rename(trial.directory / "moved")
    blocked = Trial((("a", "1"),), str(trial.directory / "moved"))  # a file where the folder should be
    with pytest.raises(UserError, match="cannot write"):
        blocked.claim("x")


def test_stages_run_once_each(make_trial, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "of the job that the sweep is part of")
    trial = make_trial("ends well")
    record = run_trial(trial, [TRAIN], {"OMP_NUM_THREADS": "3"})
    assert (record.status, record.done, record.exit_status, record.error) == ("finished", ("train",), 0, None)
    assert trial.read() == record
    assert calls(trial) == ["tf_pivae.train threads 3 slot ", "tf_pivae.train ended"]
    # An evaluation asked for later runs alone; then there is nothing left.
    assert run_trial(trial, [TRAIN, EVALUATE], {}).done == ("train", "evaluate fid")
    assert run_trial(trial, [TRAIN, EVALUATE], {}).status == "finished"
    assert [line for line in calls(trial) if "ended" in line] == ["tf_pivae.train ended", "tf_pivae.evaluate ended"]


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [("fails", 2, "it went wrong."), ("crashes", 1, "KeyError: 'x'"), ("dies", -9, "killed by SIGKILL; no output")],
)
def test_failures_are_recorded_and_tried_again(make_trial, behaviour, status, error):
    trial = make_trial(behaviour)
    record = run_trial(trial, [TRAIN, EVALUATE], {})
    assert (record.status, record.exit_status, record.error, record.done) == ("failed", status, error, ())
    assert trial.read() == record
    assert not [line for line in calls(trial) if "evaluate" in line]
    (trial.directory / "trial.gin").write_text("ends well")
    record = run_trial(trial, [TRAIN], {})
    assert (record.status, record.exit_status, record.error, record.done) == ("finished", 0, None, ("train",))


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stopped_trial_gets_the_signal_and_starts_nothing_more(make_trial):
    trial = make_trial("waits")
    stop = threading.Event()
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run_trial(trial, [TRAIN, EVALUATE], {}, stop.is_set)))
    thread.start()
    wait_for((trial.directory / "up").exists)
    assert trial.read().status == "running"
    stop.set()
    thread.join(30)
    assert (ended[0].status, ended[0].exit_status, ended[0].done) == ("stopped", 143, ())
    assert trial.read() == ended[0]
    assert calls(trial)[1:] == ["saved"]
    assert run_trial(trial, [TRAIN], {}, stop.is_set).status == "stopped"
    assert calls(trial)[1:] == ["saved"]


def test_a_training_left_behind_by_a_killed_sweep_is_waited_for(make_trial):
    trial = make_trial("ends well")
    with open(trial.directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=run_trial, args=(trial, [TRAIN], {}))
        thread.start()
        time.sleep(0.5)
        assert not (trial.directory / "calls").exists()
    thread.join(30)
    assert trial.read().status == "finished"


def test_a_damaged_record_counts_as_none(make_trial):
    trial = make_trial("ends well")
    for text in ("", "{", "[]", "{}", '{"done": [], "nonsense": 1}'):
        (trial.directory / "trial.json").write_text(text)
        assert trial.read() == Record()
