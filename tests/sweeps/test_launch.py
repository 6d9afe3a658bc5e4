"""Trials side by side: shares of the machine, signals, what is shown."""

import io
import itertools
import os
import signal
import threading
import time

import pytest

from tf_pivae.sweep import launch, runner
from tf_pivae.sweep.trials import TrialStage
from tf_pivae.sweep.view import view

TRAIN = TrialStage("train", "train")


@pytest.mark.parametrize(("count", "parallel"), itertools.product((1, 2, 3, 8, 64), (1, 2, 3, 5, 8)))
def test_shares_are_equal_and_disjoint_where_there_is_enough(count, parallel):
    dealt = launch.shares(list(range(count)), parallel)
    assert {len(share) for share in dealt} == {max(1, count // parallel)}
    assert len(dealt) == parallel
    flat = [item for share in dealt for item in share]
    assert set(flat) <= set(range(count))
    if count >= parallel:
        assert len(set(flat)) == len(flat)
    else:
        assert max(map(flat.count, flat)) - min(map(flat.count, flat)) <= 1


def test_environments_of_trials_side_by_side(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    one, two = launch.local_environments(2, num_gpus=4)
    assert one["TF_NUM_INTRAOP_THREADS"] == one["OMP_NUM_THREADS"] == two["TF_NUM_INTEROP_THREADS"] == "4"
    assert (one["CUDA_VISIBLE_DEVICES"], two["CUDA_VISIBLE_DEVICES"]) == ("0,1", "2,3")
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in one
    crowd = launch.local_environments(12, num_gpus=2)
    assert {e["OMP_NUM_THREADS"] for e in crowd} == {"1"}
    assert sorted(e["CUDA_VISIBLE_DEVICES"] for e in crowd) == ["0"] * 6 + ["1"] * 6
    assert {e["TF_FORCE_GPU_ALLOW_GROWTH"] for e in crowd} == {"true"}
    (alone,) = launch.local_environments(1, num_gpus=2, threads=3)
    assert alone == launch.thread_variables(3)  # all GPUs, and memory as TensorFlow likes it


def run(trials, launcher, waiting=None, stream=None):
    stream = stream or io.StringIO()
    with view(dict.fromkeys(trials, 4), stream) as display:
        stopped_by = runner.run_all(trials, trials if waiting is None else waiting, [TRAIN], launcher, display)
    launcher.close()
    return stopped_by, stream.getvalue()


def test_as_many_at_a_time_as_there_are_slots(make_trial):
    trials = [make_trial("naps", seed=str(i)) for i in range(4)]
    started = time.monotonic()
    stopped_by, text = run(trials, launch.LocalLauncher([{"SLOT": "a"}, {"SLOT": "b"}]))
    assert stopped_by is None
    assert 0.55 < time.monotonic() - started < 10  # two rounds of 0.3 s
    slots = [(trial.directory / "calls").read_text().split("slot ")[1][0] for trial in trials]
    assert sorted(slots) == ["a", "a", "b", "b"]
    assert [trial.read().status for trial in trials] == ["finished"] * 4
    assert text.splitlines()[-1].endswith("(4 finished)")
    assert "3 running" not in text


def test_one_failure_does_not_keep_the_others(make_trial):
    trials = [make_trial("fails", seed="0"), make_trial("ends well", seed="1"), make_trial("dies", seed="2")]
    _, text = run(trials, launch.LocalLauncher([{}]))
    assert [trial.read().status for trial in trials] == ["failed", "finished", "failed"]
    assert "kind=fails,seed=0: failed  step 0/4  it went wrong." in text
    assert text.splitlines()[-1].endswith("(1 finished, 2 failed)")


def test_a_disk_that_takes_no_record_is_a_failure_of_that_trial(make_trial):
    trials = [make_trial("ends well", seed=str(i)) for i in range(2)]
    (trials[0].directory / "trial.json").mkdir()
    _, text = run(trials, launch.LocalLauncher([{}]))
    assert f"{trials[0].name}: failed" in text
    assert "Is a directory" in text
    assert trials[1].read().status == "finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_trials_that_run_and_keep_the_others_from_starting(make_trial, number):
    trials = [make_trial("waits", seed=str(i)) for i in range(3)]
    before = signal.getsignal(number)

    def interrupt():
        while not all((trial.directory / "up").exists() for trial in trials[:2]):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    stopped_by, _ = run(trials, launch.LocalLauncher([{}, {}]))
    assert stopped_by == number
    assert [trial.read().status for trial in trials] == ["stopped", "stopped", "waiting"]
    assert all((trial.directory / "calls").read_text().endswith("saved\n") for trial in trials[:2])
    assert signal.getsignal(number) is before


def test_only_what_is_left_is_pending(make_trial):
    trials = [make_trial("ends well", seed="0"), make_trial("fails", seed="1"), make_trial("ends well", seed="2")]
    run(trials[:2], launch.LocalLauncher([{}]))
    assert runner.pending(trials, [TRAIN]) == trials[1:]
    assert runner.pending(trials, [TRAIN, TrialStage("evaluate fid", "evaluate")]) == trials


def test_a_terminal_gets_a_table(make_trial):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    trials = [make_trial("ends well", seed=str(i)) for i in range(40)]
    records = {trial: trial.read() for trial in trials}
    stream = Terminal()
    with view(dict.fromkeys(trials, 4), stream) as display:
        display.update(records)
    text = stream.getvalue()
    assert "40 waiting" in text
    assert "kind=ends_well,seed=0" in text
    assert "and 10 more" in text
