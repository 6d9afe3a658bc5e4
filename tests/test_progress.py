"""Progress in a log: a line now and then; TensorFlow imported without a word."""

import io
import subprocess
import sys

import pytest

from tf_pivae.system import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that every look moves by ten seconds."""
    seconds = iter(range(0, 10**9, 10))
    for module in (progress.time, progress.tqdm.std):
        monkeypatch.setattr(module, "time" if module is progress.tqdm.std else "monotonic", lambda: next(seconds))
    monkeypatch.setattr(progress._Lines, "monitor_interval", 0)
    return seconds


def test_a_log_gets_few_lines(clock, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.progress_bar(total=1000, desc="work", unit="img") as bar:
        for _ in range(1000):
            bar.update()
            bar.set_postfix_str("now")
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= next(clock) / 54  # Nine tenths of a minute.
    assert all(line.startswith("work: ") and "\r" not in line for line in lines)


def test_a_moment_s_work_leaves_no_line(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress.progress_bar(range(1000), desc="work")) == list(range(1000))
    with progress.progress_bar(total=3, disable=True) as bar:
        bar.update(3)
    assert log.getvalue() == ""


def test_the_library_starts_without_a_word():
    code = "import tf_pivae; tf_pivae.load; import tensorflow as tf; tf.zeros([1]) + 1"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
