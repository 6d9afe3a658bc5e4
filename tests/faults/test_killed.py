"""SIGKILL at random moments: every restart goes on, and the end is bitwise that of the undisturbed run."""

import forking
import pytest
from kill_experiment import one_process, prepare_command, two_workers

# Of the experiment, in less time: commands start sooner and run for less.
_LONGEST = {"start": 3.0, "preparation": 0.3, "step": 0.3, "checkpoint": 0.15, "end": 0.1}  # s
_SHORT = dict(longest=_LONGEST, start=forking.Popen)
_SMALLER = ("residual_vae.widths=(8,)", "plain_critic.widths=(8,)", "RealNVP.num_couplings=1")  # Than tests/tiny.gin.


def check(lines):
    """Asserts what `kill_experiment` would report as differences; returns the kills."""
    kills = []
    checked = set()
    for kind, *values in lines:
        if kind == "kill":
            line, _ = values
            kills.append(line)
            assert line.continued is None or line.continued == line.checkpoint, line
        elif kind == "variables":
            count, size, different = values
            assert not different
            assert count > 100
            assert size > 10_000
        elif kind in ("metrics", "data", "survivors"):
            assert values[-1], (kind, values)
        checked.add(kind)
    assert "data" in checked or "survivors" in checked
    return kills


def test_a_training_killed_four_times(tmp_path, tiny):
    """While it prepares its data, within a step, and twice while it writes a checkpoint."""
    plain = tiny.replace("tiny.gin", "sweeps/plain.gin")
    counts = {"preparation": 1, "step": 1, "checkpoint": 2}
    longest = {"preparation": 0.1, "step": 0.5, "checkpoint": 0.03}
    options = dict(counts=counts, gin_file=plain, num_steps=80, longest=longest, start=forking.Popen)
    scenario = one_process(tmp_path, 0, **options)
    kills = check(scenario)
    assert len(kills) == 4
    assert kills[0].doing.startswith("preparing data")
    # On the spot, unless the machine was so busy that the checkpoint was whole before the signal was sent.
    assert all(kill.doing.startswith(("writing checkpoint", "step")) for kill in kills[1:])


def test_a_preparation_killed_twice(tmp_path):
    lines = list(prepare_command(tmp_path, kills=2, longest=0.1, start=forking.Popen))
    assert sum(kind == "prepare" for kind, *_ in lines) == 2
    check(lines)


@pytest.mark.slow
def test_a_training_killed_twenty_times(tmp_path):
    kills = check(one_process(tmp_path, seed=3, num_steps=400, parameters=_SMALLER, **_SHORT))
    assert len(kills) == 20
    doing = " ".join(kill.doing for kill in kills)
    assert all(what in doing for what in ("preparing data", "writing checkpoint", "step"))


@pytest.mark.slow
def test_a_preparation_killed_six_times(tmp_path):
    check(prepare_command(tmp_path, seed=4, start=forking.Popen))


@pytest.mark.slow
def test_two_workers_killed_in_turn(tmp_path):
    # Really started: a forked worker is so quick that it may die before the other has found it, which then waits.
    assert len(check(two_workers(tmp_path, seed=5, num_steps=200, longest=_LONGEST))) == 5
