"""Workers renew the process that runs their tests (tests/renewal.py): seen in a suite of three small files.

It runs no command, so that nothing imports TensorFlow for it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_CONFTEST = """
import os
import forking
import pytest
import renewal

forking.python = lambda: None
renewal.RENEW_BYTES = 0 if os.environ["RENEWED"] == "yes" else 1e12
pytest_plugins = ["usage", "renewal"]

@pytest.fixture(scope="session", autouse=True)
def ended():
    yield
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"ended {os.getpid()}\\n")

@pytest.fixture(autouse=True)
def recorded(request):
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"{request.node.name} {os.getpid()}\\n")
"""
_FILES = {
    "test_a.py": "def test_a0(): pass\ndef test_a1(): pass\n",
    "test_b.py": "import os\ndef test_b0(): os.kill(os.getpid(), 9)\ndef test_b1(): pass\n",
    "test_c.py": "def test_c0(): assert 1 == 2, 'one is not two'\n",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function (renewed) -> what pytest printed, and name of a test, or "ended" -> the processes it was seen in."""

    def run(renewed):
        folder = tmp_path_factory.mktemp("suite")
        for name, text in {"conftest.py": _CONFTEST, **_FILES}.items():
            (folder / name).write_text(text)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(Path(__file__).parent), "RENEWED": renewed, "RECORD": str(folder / "record")}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "--dist", "loadfile", "-p", "no:cacheprovider"]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        processes = {}
        for line in (folder / "record").read_text().splitlines():
            name, process = line.split()
            processes.setdefault(name, []).append(process)
        return result.stdout, processes

    return run


def test_a_file_begins_in_a_new_process_where_much_is_held(run):
    printed, processes = run("yes")
    assert re.search("2 failed, 3 passed", printed), printed
    assert processes["test_a0"] == processes["test_a1"] != processes["test_b0"], "a file's tests share their fixtures"
    assert processes["test_b0"] != processes["test_b1"] != processes["test_c0"]
    assert set(processes["ended"]) == {*processes["test_a1"], *processes["test_b1"], *processes["test_c0"]}, (
        "fixtures end with it"
    )


def test_a_crash_and_a_failure_are_reported_and_the_others_go_on(run):
    printed, processes = run("no")
    assert re.search("2 failed, 3 passed", printed), printed
    assert "the process ended: SIGKILL" in printed
    assert "one is not two" in printed
    assert processes["test_a1"] == processes["test_b0"] != processes["test_b1"] == processes["test_c0"], (
        "nothing was to be renewed"
    )
    assert re.search(r"gw0: 0\.\d\d GB at most", printed), printed
