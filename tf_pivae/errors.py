"""The exceptions that commands turn into one line, what they say of a disk, and how a closed output is recognised."""

import contextlib
import errno
import os
import re
import signal
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

UNREAD = 128 + signal.SIGPIPE  # Exit status, as of programs that the signal ends; Python ignores it.


class UserError(Exception):
    """A mistake that the user can correct: the message says what is wrong and what to do.

    Commands print it as one line on stderr, without a traceback, and exit with `exit_status`.
    """

    exit_status = 2


class WorkerLost(UserError):
    """Another worker of a training on several machines is gone: nothing is wrong with the command, start it again."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: a scheduler may tell it from a mistake and restart.


class NotFinite(UserError, RuntimeWarning):
    """Images that came out as NaN: what a model's methods warn of, and what commands end with."""


@contextlib.contextmanager
def nan_is_an_error() -> Iterator[None]:
    """Within it, images that come out as NaN are raised as `NotFinite`, not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotFinite)
        yield


def has_no_reader(error: OSError) -> bool:
    """Whether printing failed since nobody reads any more: a pipe's end is closed, or the terminal."""
    return isinstance(error, BrokenPipeError) or error.errno == errno.EIO


_BOLD_END = "\x1b[0m"
_KERAS_CALL = re.compile(r"^Exception encountered when calling .*\n+\x1b\[1m")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type where it has none.

    Keras says in front of what a layer raises in which layer that was, and in bold what it raised: that is the line.
    """
    text = _KERAS_CALL.sub("", str(error).strip())
    return (text.splitlines() or [type(error).__name__])[0].removesuffix(_BOLD_END)


def last_line(error: BaseException) -> str:
    """The last line of an exception's message, or the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def sentence(text: str) -> str:
    """A text of another's, with a full stop where it ends in neither that nor a question mark."""
    return text if text.endswith((".", "?")) else f"{text}."


_MAKE_ROOM = "make room, then run the same command again"
_WRITABLE = "choose a folder that can be written, or change its permissions"
_HINTS = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: _MAKE_ROOM,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk does not answer as it should",
}
_HINTS_ON_WRITING = dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "choose a file in a folder that exists")
_HINTS_ON_WRITING[errno.EEXIST] = "there is a file where a folder is wanted: choose another place"


def missing_setting(error: BaseException) -> str | None:
    """The message for an exception of a configurable that no value was given for, or None for any other."""
    missing = re.match(r"Required bindings for `([\w.]+)` not provided in config: \['(\w+)'", str(error))
    if isinstance(error, TypeError):
        argument = r"(\w+)(?:\.__init__)?\(\) missing \d+ required [\w-]+ arguments?: '(\w+)'"
        missing = re.match(argument, str(error))
        if missing and missing[1] != configured_name(error):  # A defect of the program.
            return None
    return no_setting(f"{missing[1]}.{missing[2]}") if missing else None


def no_setting(name: str) -> str:
    """The message for a setting, CONFIGURABLE.PARAMETER, that has no value."""
    return f"the configuration has no {name}: add --gin_param={name}=..."


def configured_name(error: BaseException) -> str | None:
    """The configurable in whose call an exception was raised, which gin adds to its message; None in no such call."""
    call = re.search(r"In call to configurable '(\w+)'", str(error))
    return call[1] if call else None


def cannot_write(path: object, error: OSError) -> str:
    """The message for an `OSError` met with on writing `path`."""
    hint = (_HINTS | _HINTS_ON_WRITING).get(error.errno)
    return f"cannot write {path}: {error.strerror}{f'; {hint}' if hint else ''}."


def check_output(path: str | Path) -> None:
    """Raises UserError where no file could be written at `path`: before the minutes of work, not after them."""
    folder = Path(path).absolute().parent
    if not Path(path).name or Path(path).is_dir() or not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        raise UserError(f"cannot write {str(path)!r}: choose a file in a folder that exists and can be written.")
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):  # It would be replaced, not written to.
        raise UserError(f"cannot write {str(path)!r}: it is a link, a device or a pipe; choose a file.")


def disk_message(error: BaseException) -> str | None:
    """The message for an exception of Python's or TensorFlow's that comes from the disk, or None for any other."""
    if isinstance(error, OSError):
        number = error.errno
        path = error.filename
        if number not in _HINTS or (path is None and _HINTS[number] == _WRITABLE):  # A port fails with the same error.
            return None
    else:
        reasons = {os.strerror(number): number for number in _HINTS}
        match = re.search(rf"(\S+); ({'|'.join(reasons)})", str(error))  # The form of TensorFlow's messages.
        if not match:
            return None
        number = reasons[match[2]]
        path = match[1]
    return f"cannot use {path or 'the disk'}: {os.strerror(number)}; {_HINTS[number]}."


def printable(text: object) -> str:
    """Text of unknown origin, such as a file's name, with what is not printable escaped: it cannot write a second line,
    or steer a terminal."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
    return "".join(escaped)
