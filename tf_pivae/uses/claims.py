"""What an output is made with, as JSON beside it: a command that is started again goes on with the same work alone.

An output of one file grows in a hidden folder beside it, a folder of images in its own place. One process at a time
holds it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_pivae.errors import UserError, cannot_write
from tf_pivae.files import read_json, write_atomically

SETTINGS = ".settings.json"  # Hidden: whoever reads a folder of images passes it over.


@contextlib.contextmanager
def claimed(folder: Path, settings: dict[str, Any], output: str | Path) -> Iterator[Path]:
    """The folder in which an output grows, made where it is missing, and held by this process.

    Args:
      folder: its parent exists.
      settings: everything that decides the output, as plain JSON values and NumPy's numbers.
      output: what the user called it.

    Raises:
      UserError: the folder holds something else, was started with other settings, is held by another process, or cannot
        be written.
    """
    path = folder / SETTINGS
    is_new = not folder.exists()
    fresh = False
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            _compare(path, settings, output)
        elif any(folder.iterdir()):
            raise UserError(f"{output} holds other files: choose a new or an empty folder.")
        else:
            fresh = True
            write_atomically(path, json.dumps(settings, indent=1, default=lambda number: number.item()) + "\n")
        yield folder
        fresh = False
    except BlockingIOError:
        raise UserError(f"another process is writing {output}: wait for it, or choose another --output.") from None
    finally:
        others = [other for other in folder.iterdir() if other.name != SETTINGS] if fresh else []
        if fresh and not any(other.stat().st_size for other in others):  # Nothing was written.
            for file in (path, *others):
                file.unlink(missing_ok=True)
            if is_new:
                folder.rmdir()
        os.close(lock)


def _compare(path: Path, settings: dict[str, Any], output: str | Path) -> None:
    try:
        before = read_json(path)
        different = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: remove {path.parent}, or choose another --output.") from None
    if different:
        name = different[0]
        raise UserError(
            f"{output} was started with {name} = {before.get(name)}, and this is {settings.get(name)}: give the "
            f"settings of {path}, or choose another --output."
        )


@contextlib.contextmanager
def unfinished(output: str | Path, settings: dict[str, Any]) -> Iterator[Path]:
    """A hidden folder beside an output of one file: it stays when the work is cut off, and goes when that is done.

    Args:
      output, settings: as for `claimed`.

    Raises:
      UserError: as for `claimed`.
    """
    path = Path(output)
    with claimed(path.with_name(f".{path.name}.partial"), settings, output) as folder:
        yield folder
        shutil.rmtree(folder)


def identity(run_dir: Path, requested: int | str | None, step: int) -> str:
    """What tells a checkpoint from any other, wherever its run lies: of its configuration and its weights' sums.

    Args:
      run_dir: folder of the run.
      requested: the checkpoint as it was asked for: a step, "best", or None for the newest.
      step: the one that this came to.
    """
    from tf_pivae.runs.checkpoints import of_run

    content = (run_dir / "config.gin").read_bytes() + b"\0" + of_run(run_dir, requested).manifest(step)
    return hashlib.sha256(content).hexdigest()[:16]
