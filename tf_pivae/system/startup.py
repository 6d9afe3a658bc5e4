"""Before a command computes: TensorFlow imported as this machine wants it, optional packages there."""

import importlib.util

from tf_pivae.errors import UserError
from tf_pivae.system import memory, quiet, threads


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow, set up for the machine's memory and cores, without its start-up messages."""
    memory.keep_freed_memory()
    threads.fit_to_cores()
    quiet.import_tensorflow()


def require_extra(extra: str, *modules: str) -> None:
    """Checks that the modules of an optional dependency can be found.

    Args:
      extra: its name in `pip install 'tf-pivae[EXTRA]'`.
      *modules: top-level modules.

    Raises:
      UserError: one of them is missing; says what to install.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed: pip install 'tf-pivae[{extra}]' brings it.")
