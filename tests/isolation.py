"""Tests read the clone, Python and its packages, and temporary folders: elsewhere a stranger's machine has other files.

Importing this moves home and caches, for this process and the commands that tests start, into a new, empty folder. Its
hooks fail every test in whose time Python opened or listed anything else. (Of what TensorFlow opens in C++ and of other
processes Python hears nothing: their home is empty, and .ci/run hides the rest.)
"""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

FASHION_MNIST = os.environ.get("FASHION_MNIST", "")  # A folder for the tests that want the complete data set.
_HOME = tempfile.mkdtemp(prefix="home-")
_EMPTY = {"HOME": "", "XDG_CACHE_HOME": "cache", "TF_PIVAE_CACHE": "tf_pivae", "TFDS_DATA_DIR": "tfds"}
os.environ |= {name: os.path.join(_HOME, folder) for name, folder in _EMPTY.items()}

_ROOTS = (
    Path(__file__).parent.parent,
    sys.prefix,
    *filter(None, [FASHION_MNIST, *sys.path]),  # Not `sys.base_prefix`, which is /usr where Python is the system's.
    tempfile.gettempdir(),
    *("/dev", "/etc", "/proc", "/sys", "/run", "/usr/share/zoneinfo"),  # The system itself.
)
_ALLOWED = tuple(os.path.join(os.path.realpath(root), "") for root in _ROOTS)
_opened: list[str] = []
_resolving = threading.local()


def _leads_to(path: str) -> str:
    """`os.path.realpath`, on Linux in one call: that one looks at each folder of a path, a thousand in one test."""
    if sys.platform != "linux":
        return os.path.realpath(path)
    _resolving.now = True  # The hook hears of this `os.open`, too.
    try:
        number = os.open(path, os.O_PATH)
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        finally:
            os.close(number)
    except (OSError, ValueError):  # It is not there, or no path at all.
        return os.path.realpath(path)
    finally:
        _resolving.now = False
    return target if target.startswith("/") else os.path.realpath(path)  # Pipes have a name that is no path.


def _watch(event: str, arguments: tuple) -> None:
    if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return  # Another event, an open file's number, or the current folder.
    if getattr(_resolving, "now", False):
        return
    path = _leads_to(os.fsdecode(arguments[0]))
    if not os.path.join(path, "").startswith(_ALLOWED):
        _opened.append(path)


sys.addaudithook(_watch)


@pytest.hookimpl(wrapper=True)
def _check() -> Generator[None, object, object]:
    outcome = yield
    if _opened:
        paths = sorted(set(_opened))
        _opened.clear()
        pytest.fail(f"tests may not read other machines' files: {', '.join(paths)}", pytrace=False)
    return outcome


pytest_runtest_setup = _check
pytest_runtest_call = _check
pytest_runtest_teardown = _check


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
