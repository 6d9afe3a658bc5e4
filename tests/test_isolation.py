"""The guard against what another machine lacks (tests/isolation.py) sees what is read, and where home is."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import isolation
import numpy as np
import pytest


def _caught():
    """What the guard says of the test so far."""
    check = isolation._check.__wrapped__() if hasattr(isolation._check, "__wrapped__") else isolation._check()
    next(check)
    try:
        check.send(None)
    except pytest.fail.Exception as error:
        return str(error)
    except StopIteration:
        return ""
    raise AssertionError("the guard goes on")


@pytest.mark.parametrize("read", [open, os.listdir, os.scandir, np.load, lambda path: Path(path).read_bytes()])
@pytest.mark.parametrize("folder", ["/usr/share/datasets", "/opt/nowhere", pwd.getpwuid(os.getuid()).pw_dir])
def test_other_folders_are_caught(read, folder):
    path = f"{folder}/absent"
    with pytest.raises(OSError):
        read(path)
    assert os.path.realpath(path) in _caught()
    assert not _caught()


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "link").symlink_to("/usr/share")
    os.listdir(tmp_path / "link")
    assert "/usr/share" in _caught()


def test_clone_packages_and_temporary_folders_are_not(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", __file__, np.__file__, os.__file__, "/proc/self/status", os.devnull):
        Path(path).read_bytes()
    os.listdir()
    assert not _caught()


def test_home_and_caches_are_new_here_and_in_commands():
    script = "import os; print(os.path.expanduser('~'), os.environ['XDG_CACHE_HOME'])"
    home, cache = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert home == os.path.expanduser("~") != pwd.getpwuid(os.getuid()).pw_dir
    assert Path(cache).parent == Path(home)
