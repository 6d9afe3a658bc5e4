"""Errors of a served model that say what to do, and when to try again."""

import random
import time

from tf_pivae.errors import UserError

_FIRST_PAUSE = 0.05  # seconds; doubled after every attempt
_ADVICE = {
    "UNAVAILABLE": "is the server running and its address right?",
    "DEADLINE_EXCEEDED": "give a longer `timeout`, or a smaller `batch_size`.",
    "NOT_FOUND": "is `model_name` right?",
    "RESOURCE_EXHAUSTED": "give a smaller `batch_size`.",
}


class ServingError(UserError):
    """A request that failed for good.

    Attributes:
      code: str, gRPC's name of the status, such as "INVALID_ARGUMENT"; over REST the one that its status stands for.
    """

    def __init__(self, code, address, reason):
        advice = _ADVICE.get(code)
        super().__init__(f"{address}: {code}: {reason}" + (f" ({advice})" if advice else ""))
        self.code = code
        self.address = address
        self.reason = reason


def with_retries(attempt, timeout, max_attempts, address):
    """Calls `attempt(seconds left)` until it succeeds; again only after UNAVAILABLE.

    The pauses double, each scattered over its upper half so that clients do not come back all at once.

    Args:
      attempt: function of a float.
      timeout: seconds for all attempts together.
      max_attempts: int.
      address: for messages.

    Raises:
      ServingError: the last attempt's, or DEADLINE_EXCEEDED where no time is left for another.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    for number in range(1, max_attempts + 1):
        left = deadline - time.monotonic()
        if left <= 0.0:
            raise ServingError("DEADLINE_EXCEEDED", address, f"no answer within {timeout:g} s")
        try:
            return attempt(left)
        except ServingError as error:
            wait = pause * random.uniform(0.5, 1.0)
            if error.code != "UNAVAILABLE" or number == max_attempts or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        pause *= 2.0
    raise AssertionError("unreachable")
