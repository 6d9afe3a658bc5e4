"""Errors of a served model that say what to do, and when to try again."""

import itertools
import random
import re
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tf_pivae.errors import UserError

Answer = TypeVar("Answer")

# seconds; doubled after every attempt
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5


class _Cause(NamedTuple):
    """The cause of a status, as the server's message names it."""

    code: str
    words: str  # a regular expression that is found in the reason
    advice: str
    busy: bool = False  # The server is there and has too much to do: that passes.


_CAUSES = (  # The first that fits.
    _Cause(
        "RESOURCE_EXHAUSTED",
        "Threadpool Exhausted",
        "send fewer requests at once, or start the server with a larger --grpc_max_threads.",
        busy=True,
    ),
    _Cause("RESOURCE_EXHAUSTED", "(?i)too many|limit exceeded", "send fewer requests at once.", busy=True),
    _Cause("RESOURCE_EXHAUSTED", "", "give a smaller `batch_size`."),
    _Cause(
        "UNAVAILABLE",
        r"queue .*\bfull|are waiting",
        "the server is full: send fewer requests at once, or run more servers.",
        busy=True,
    ),
    _Cause("UNAVAILABLE", "", "is the server running and its address right?"),
    _Cause("DEADLINE_EXCEEDED", "", "give a longer `timeout`, or a smaller `batch_size`."),
    _Cause("NOT_FOUND", "", "is `model_name` right?"),
    _Cause("UNAUTHENTICATED", "", "is `token` right?"),
)


class ServingError(UserError):
    """A request that failed for good.

    Args:
      code: gRPC's name of the status, such as "INVALID_ARGUMENT"; over REST the one that its status stands for.
      address: of the server.
      reason: what the server says.

    Attributes:
      code, address, reason: as given.
      busy: bool, whether the server is there and has too much to do.
    """

    def __init__(self, code: str, address: str, reason: str) -> None:
        cause = next((cause for cause in _CAUSES if cause.code == code and re.search(cause.words, reason)), None)
        super().__init__(f"{address}: {code}: {reason}" + (f" ({cause.advice})" if cause else ""))
        self.code = code
        self.address = address
        self.reason = reason
        self.busy = cause is not None and cause.busy


def with_retries(attempt: Callable[[float], Answer], timeout: float, max_attempts: int, address: str) -> Answer:
    """Calls `attempt(seconds left)` until it succeeds.

    It is called again where the server is busy, until `timeout`, and after UNAVAILABLE, `max_attempts` times at most;
    never if `max_attempts` is 1. The pauses double up to half a second, each scattered over its upper half so that
    clients do not come back all at once.

    Args:
      attempt: function of a float.
      timeout: seconds for all attempts together.
      address: for messages.

    Raises:
      ServingError: the last attempt's, or DEADLINE_EXCEEDED where no time is left for another.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    for number in itertools.count(1):
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0.0:
            break
        try:
            return attempt(seconds_left)
        except ServingError as error:
            wait = pause * random.uniform(0.5, 1.0)
            if not _passes(error, number, max_attempts) or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        pause = min(2.0 * pause, _LONGEST_PAUSE)
    raise ServingError("DEADLINE_EXCEEDED", address, f"no answer within {timeout:g} s.")


def _passes(error: ServingError, number: int, max_attempts: int) -> bool:
    if error.busy:
        return max_attempts > 1
    return error.code == "UNAVAILABLE" and number < max_attempts
