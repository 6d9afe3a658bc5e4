"""A clock that was set back: order, lock, metrics and the estimate of the time left do not ask for the date."""

import json
import os
import time

import pytest
from in_process import checkpoint_steps, train
from killing import curves, state_bytes


class Interrupted(Exception):
    pass


def test_a_clock_set_back_changes_nothing(tmp_path, monkeypatch, capsys):
    """A run is cut off, everything that it left is of the next century, and the clock is back in 2001."""
    train(tmp_path / "undisturbed", num_steps=9)

    def cut(step, state):
        if step == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(tmp_path / "run", num_steps=9, after_step=cut)
    assert checkpoint_steps(tmp_path / "run") == [2, 4, 6]
    future = 4.2e9  # 2103
    # The oldest checkpoint is the youngest by its dates.
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (future, future))
    for i, step in enumerate((6, 4, 2)):
        for path in (tmp_path / "run" / "checkpoints" / f"{step:08d}").iterdir():
            os.utime(path, (future + 1000 * i, future + 1000 * i))
    capsys.readouterr()
    past = time.struct_time((2001, 1, 1, 0, 0, 0, 0, 1, 0))
    monkeypatch.setattr(time, "time", lambda: 978307200.0)
    monkeypatch.setattr(time, "time_ns", lambda: 978307200 * 10**9)
    strftime = time.strftime
    monkeypatch.setattr(time, "strftime", lambda form, moment=past: strftime(form, moment))
    train(tmp_path / "run", num_steps=9)
    monkeypatch.undo()

    assert checkpoint_steps(tmp_path / "run") == [6, 8, 9]  # The oldest went, not the one with the oldest date.
    assert state_bytes(tmp_path / "run", 9) == state_bytes(tmp_path / "undisturbed", 9)
    assert curves(tmp_path / "run") == curves(tmp_path / "undisturbed")
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [start["from_step"] for start in starts] == [0, 6]
    assert starts[1]["started"].startswith("2001")  # The clock was set back indeed.
    lines = [line for line in capsys.readouterr().out.splitlines() if "min left" in line]
    assert [line.split()[1] for line in lines] == ["7/9", "8/9", "9/9"]
    assert all(0.0 <= float(line.split(" min left")[0].split()[-1]) < 60.0 for line in lines)
    rates = [float(line.split(" images/s")[0].split()[-1]) for line in lines]
    assert min(rates) >= 0.0
    assert max(rates) > 1.0
