"""The one exception that commands turn into a single line."""


class UserError(Exception):
    """A mistake the user can mend: the message says what is wrong and what to do.

    Commands print it as one line on stderr, without a traceback, and exit with status 2.
    """
