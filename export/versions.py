"""Version folders: DIR/1, DIR/2, ...: whole from the moment they can be seen, and never written twice.

TensorFlow Serving serves the folder with the highest number and ignores names that are not numbers.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tf_pivae.errors import UserError, cannot_write
from tf_pivae.files import place_folder

# In a version's folder.
SAVED_MODEL = "saved_model.pb"
VARIABLES = "variables/variables.index"
MODEL_CARD = "assets.extra/model_card.json"
WARMUP_REQUESTS = "assets.extra/tf_serving_warmup_requests"
_LARGEST = 2**63 - 1  # TensorFlow Serving's versions are int64; it ignores what is beyond.


def versions(export_dir: str | Path) -> list[int]:
    """The version numbers in a folder, ascending."""
    with os.scandir(export_dir) as entries:
        numbers = (int(entry.name) for entry in entries if entry.name.isascii() and entry.name.isdigit())
        return sorted(number for number in numbers if number <= _LARGEST)


class Publication:
    """A version on its way: where to write it, and the number it got (None until then)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version: int | None = None


@contextlib.contextmanager
def new_version(export_dir: str | Path) -> Iterator[Publication]:
    """Yields an empty folder to write in; on leaving, publishes it under the next version number.

    The context's value is a `Publication`, whose `version` is set once it is published. Whoever looks at `export_dir`
    sees all of the new version or nothing; two publications at once get two numbers; an exception leaves nothing.

    Raises:
      UserError: `export_dir` cannot be written, or has the highest possible version already.
    """
    try:
        Path(export_dir).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=export_dir))
    except OSError as error:
        raise UserError(cannot_write(f"to {export_dir}", error)) from error
    publication = Publication(folder)
    try:
        yield publication
        _make_readable(folder)
        publication.version = _rename(folder, Path(export_dir))
    except OSError as error:
        raise UserError(cannot_write(f"to {export_dir}", error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(folder: Path, export_dir: Path) -> int:
    version = max(versions(export_dir), default=0)
    while True:
        version += 1
        if version > _LARGEST:
            raise UserError(f"{export_dir} has version {_LARGEST}, and none can be higher: choose another folder.")
        try:
            place_folder(folder, export_dir / str(version))
        except FileExistsError:  # Another export was faster.
            continue
        return version


def _make_readable(folder: Path) -> None:
    """Gives the folder the rights of any other: a temporary one is its owner's alone, a server often someone else."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(folder, 0o777 & ~mask)
