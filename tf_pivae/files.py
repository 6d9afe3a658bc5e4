"""Files written whole or not at all, small ones read with a limit; every failure is one line that names the file."""

import ast
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_pivae.errors import UserError, cannot_write

_LARGEST = 1 << 26  # Bytes; a million lines of metrics.
_OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # POSIX leaves open which of the first two.


def read_text(path: str | Path, limit: int = _LARGEST) -> str:
    """The text of a file.

    Args:
      path: of a file in UTF-8.
      limit: bytes; a larger file is not read.

    Raises:
      UserError: it is missing, no regular file, too large, or no text.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise UserError(f"{path} is not a regular file.")
            if about.st_size > limit:
                raise UserError(f"{path} has {about.st_size:,} bytes, more than such a file can have ({limit:,}).")
            text = file.read(about.st_size + 1).decode("utf-8-sig")  # Python makes room for all that is asked for.
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"cannot read {path}: {reason}.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """What a JSON file says.

    Raises:
      UserError: as for `read_text`.
      ValueError: it is not JSON.
    """
    try:
        return json.loads(read_text(path), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_records(path: str | Path) -> list[dict]:
    """The lines of a file of JSON objects that have a "step"; others are left out: the last may be half written."""
    records = []
    for line in read_text(path).splitlines() if Path(path).exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if isinstance(step, int) and not isinstance(step, bool):
            records.append(record)
    return records


def write_atomically(path: str | Path, text: str) -> None:
    """Writes a text file that is either the old one or the new one, whatever happens; UserError if it cannot."""
    # "x" follows no link that lies there instead.
    with replacing(path) as partial, open(partial, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], shared: bool = False) -> Iterator[Path]:
    """Within it, the path of a file to be written, which in the end takes the place of `path`, or is gone on a failure.

    Args:
      path: the file; whoever reads it sees the old one or the new one.
      shared: whether several processes may write it at once.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with _renamed(Path(path), f".{os.getpid()}" if shared else "") as partial:
            yield partial
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file as `write_atomically` would, but lets an `OSError` pass: what it means, the caller says."""
    with _renamed(path) as partial:
        partial.write_text(json.dumps(value, indent=1))
        synchronize(partial)


@contextlib.contextmanager
def _renamed(path: Path, writer: str = "") -> Iterator[Path]:
    partial = path.with_name(f".{path.name}{writer}.partial")
    try:
        partial.unlink(missing_ok=True)
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden, empty folder beside `path`, which gets this name at the block's end, or is gone where the block fails.

    Raises:
      UserError: it cannot be written, another process writes it, or `path` is there by then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _held(partial, path):
            try:
                for left in partial.iterdir():  # By a process that was killed.
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
                yield partial
                place_folder(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Within it, no other process is: each waits until the one before it has read and written a file of the folder.

    Raises:
      UserError: there is no such folder, or it cannot be read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error
    try:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append_line(path: str | Path, line: str) -> None:
    """Adds a line to a text file, made if need be; half a line of a process that was killed stays one by itself.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            file.seek(max(file.tell() - 1, 0))
            lacks_end = file.read(1) not in (b"", b"\n")
            file.write(f"{chr(10) * lacks_end}{line}\n".encode())
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error


@contextlib.contextmanager
def _held(folder: Path, path: Path) -> Iterator[None]:
    """Holds a folder's lock, which the system drops when the process ends; UserError where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing {path}: wait for it, or choose another name.") from None
        yield
    finally:
        os.close(descriptor)


def place_file(partial: Path, path: str | Path) -> None:
    """Moves a finished file to where others look for it, as `place_folder` a folder, but over an older file.

    Raises:
      UserError: it cannot be written there.
    """
    try:
        synchronize(partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error


def place_folder(partial: Path, folder: Path) -> None:
    """Moves a finished folder to where others look for it: they find all of it or nothing, even after a power cut.

    Raises:
      FileExistsError: a file lies there already, or a folder that is not empty.
      OSError: the disk refuses.
    """
    synchronize_tree(partial)
    try:
        os.replace(partial, folder)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error
    synchronize(folder.parent)


def synchronize(path: str | os.PathLike[str]) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def synchronize_tree(folder: str | os.PathLike[str]) -> None:
    """Waits until all that a folder holds is on the disk."""
    for root, _, files in os.walk(folder):
        for name in [*files, "."]:
            synchronize(os.path.join(root, name))


def files_below(folder: Path) -> Iterator[os.stat_result]:
    """What `lstat` says of the files in a folder, in its folders, and so on, those left out that go meanwhile: a
    training removes checkpoints while others look."""
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(path, name))


def default_cache_dir() -> Path:
    """`$TF_PIVAE_CACHE`, or `~/.cache/tf_pivae`: data sets, reference statistics and models of the hub."""
    return Path(os.environ.get("TF_PIVAE_CACHE") or "~/.cache/tf_pivae").expanduser()


def existing(path: str | os.PathLike[str]) -> Path:
    """A folder itself or the nearest one above it that exists."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def csv_cell(value: object) -> object:
    """A value as it may stand in a spreadsheet, which would run a text such as "=1+1": that gets a quote before it."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    return value if isinstance(plain(value), (int, float)) else f"'{value}"


def plain(text: str) -> bool | int | float | str:
    """A setting as the number, bool or string that it is."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, (bool, int, float, str)) else text
