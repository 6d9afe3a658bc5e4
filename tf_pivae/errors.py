"""The exceptions that commands turn into a single line."""


class UserError(Exception):
    """A mistake the user can mend: the message says what is wrong and what to do.

    Commands print it as one line on stderr, without a traceback, and exit with `exit_status`.
    """

    exit_status = 2


class WorkerLost(UserError):
    """Another worker of a training on several machines is gone: nothing is wrong with the command, start it again."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: a scheduler may tell it from a mistake and restart.
