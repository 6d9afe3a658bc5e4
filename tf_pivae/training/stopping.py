"""SIGTERM, SIGINT and, unless it is ignored, SIGHUP: a training finishes its step and saves.

The evaluation after the last step ends at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Stopped(BaseException):
    """Raised by a signal within `Stopping.at_once`. Not an `Exception`, so that no handler of errors catches it."""


class Stopping:
    """A context in which these signals are noted; `signal` is the number of the first, or None.

    Outside of the main thread, where Python delivers no signals, only `request` sets it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As under nohup, which outlasts its terminal.
                numbers.append(signal.SIGHUP)
            self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if self._at_once:
            self._at_once = False  # Only once: the exception must get through.
            raise Stopped

    def request(self) -> None:
        """Asks for a stop from within the program, as if SIGTERM had come."""
        self.signal = self.signal or signal.SIGTERM

    def check(self) -> None:
        """Raises `Stopped` if there was a signal."""
        if self.signal is not None:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context that a signal ends at once; `signal` tells afterwards."""
        self._at_once = True
        with contextlib.suppress(Stopped):
            yield
        self._at_once = False
