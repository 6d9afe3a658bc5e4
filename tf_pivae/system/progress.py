"""Progress: a bar on a terminal, one line per minute where the output goes to a file."""

import sys
import time
from collections.abc import Iterable
from typing import Any

import tqdm

_SECONDS = 60.0


class _Lines(tqdm.tqdm):
    """tqdm's arithmetic, whose states are lines of their own."""

    def __init__(self, iterable: Iterable[Any] | None = None, **options: Any) -> None:
        self._last_display = time.monotonic()
        # `gui`: tqdm itself then draws nothing, and has nothing to wipe away at the end.
        super().__init__(iterable, gui=True, mininterval=_SECONDS, maxinterval=_SECONDS, delay=_SECONDS, **options)

    def display(self, *_: Any, **__: Any) -> bool:
        """Prints a line, unless one was printed just now: tqdm also wants to for every new postfix."""
        now = time.monotonic()
        if now - self._last_display > 0.9 * _SECONDS:
            print(self, file=self.fp, flush=True)
            self._last_display = now
        return True


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> "tqdm.tqdm[Any]":
    """`tqdm.tqdm(iterable, **options)` for a terminal or a log, whichever stderr is.

    Work of less than a minute leaves no line in a log.
    """
    return (tqdm.tqdm if sys.stderr.isatty() else _Lines)(iterable, **options)
