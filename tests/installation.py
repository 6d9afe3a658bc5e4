"""The package as its users get it: an sdist of the tree, the wheel made of that, an environment with the wheel."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# What a clone may hold beside its own files; an earlier build must not get into this one.
_AT_THE_TOP = {".git", ".venv", ".pytest_cache", ".ruff_cache", ".mypy_cache", "runs", "dist", "build", "site"}
_ANYWHERE = ("__pycache__", "*.egg-info", "bazel-*")


class Package(NamedTuple):
    """What `build` has written."""

    sdist: Path  # Beside it lies `source`, the tree that it was made of.
    wheel: Path
    programs: Path  # The folder of an environment's programs that has the wheel.


def build(folder: Path) -> None:
    """Writes sdist, wheel and environment into an empty folder."""
    install(build_wheel(build_sdist(folder)), folder / "environment")


def built(folder: Path) -> Package:
    """What `build` has written into a folder."""
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Package(sdist, wheel, folder / "environment/bin")


def _ignored(folder: str, names: list[str]) -> set[str]:
    links = {name for name in names if Path(folder, name).is_symlink()}  # tests/mutations.py makes one.
    ignored = shutil.ignore_patterns(*_ANYWHERE)(folder, names) | links
    return ignored | _AT_THE_TOP if Path(folder) == ROOT else ignored


def build_sdist(folder: Path) -> Path:
    """Writes the sdist of a copy of the tree, `folder`/source, into `folder`."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_ignored)
    program = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, stdout=sys.stderr)
    (built,) = folder.glob("*.tar.gz")
    return built


def build_wheel(sdist: Path) -> Path:
    """Writes the wheel of an sdist beside it."""
    folder = sdist.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sdist)]
    subprocess.run([*command, "--no-build-isolation"], check=True, stdout=sys.stderr)
    (built,) = folder.glob("*.whl")
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Makes an environment in `folder` with the wheel, and returns the folder of its programs.

    What the package needs is that of the environment of the tests, but not the clone which that has in its place.
    """
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", *options, str(wheel)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    # A line of a .pth file is a folder to look into last; .pth files in there, the clone's one, are not read.
    (site_packages,) = folder.glob("lib/*/site-packages")
    (site_packages / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs
