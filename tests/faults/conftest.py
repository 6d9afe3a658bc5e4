"""Disks for the tests: small ones that can be full, and ones that can be made read-only."""

import errno
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A mounted file system of its own, in memory."""

    def __init__(self, path):
        self.path = Path(path)

    def fill(self):
        """Leaves no byte free, and none in the last blocks of the files there are: those have to grow to show."""
        with open(self.path / "filler", "wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017

    def make_room(self):
        (self.path / "filler").unlink()

    def make_read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    """A `Disk` of 24 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    try:
        result = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if result.returncode:
        pytest.skip(f"mounting a small disk takes root: {result.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
