"""How TensorFlow spreads over the cores: one thread an operation where cores are few."""

import os

import forking
import pytest

from tf_pivae.system import threads

NAMES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@pytest.mark.parametrize(
    ("cores", "within", "between"), [(1, "1", "1"), (2, "1", "2"), (3, "3", "3"), (16, "16", "16")]
)
def test_an_operation_has_one_thread_where_cores_are_few(cores, within, between):
    assert threads.thread_variables(cores) == {NAMES[0]: within, NAMES[1]: between, "OMP_NUM_THREADS": str(cores)}


@pytest.mark.parametrize(
    ("cores", "before", "after"),
    [
        (2, {}, {NAMES[0]: "1", NAMES[1]: "2"}),
        (2, {NAMES[0]: "2"}, {NAMES[0]: "2"}),
        (2, {NAMES[1]: "1"}, {NAMES[1]: "1"}),
        (8, {}, {}),
    ],
)
def test_what_the_user_has_set_stays(monkeypatch, cores, before, after):
    monkeypatch.setattr(threads, "num_cores", lambda: cores)
    monkeypatch.setattr(os, "environ", dict(before))
    threads.fit_to_cores()
    assert os.environ == after


@pytest.mark.parametrize(
    ("variables", "calls"),
    [
        ({}, None),
        ({NAMES[0]: "1", NAMES[1]: "3"}, 3),
        ({NAMES[0]: "1"}, threads.num_cores()),
        ({NAMES[0]: "2"}, 1),
        ({NAMES[0]: "few"}, 1),
    ],
)
def test_calls_side_by_side_of_a_command(variables, calls, tmp_path):
    """In a process of its own, where nothing has set up TensorFlow before."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | variables
    code = "from tf_pivae.system import startup, threads; startup.import_tensorflow_quietly()"
    code += "; print(threads.calls_side_by_side())"
    script = tmp_path / "calls.py"
    script.write_text(code)
    result = forking.run(script, env=environment)
    assert result.returncode == 0, result.stderr
    expected = (threads.num_cores() if threads.num_cores() <= 2 else 1) if calls is None else calls
    assert int(result.stdout) == expected
