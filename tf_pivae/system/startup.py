"""Before a command computes: TensorFlow imported as this machine wants it, optional packages there."""

import contextlib
import gc
import importlib.util
from collections.abc import Iterator

from tf_pivae.errors import UserError
from tf_pivae.system import memory, quiet, threads


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow, set up for the machine's memory and cores, without its start-up messages."""
    memory.keep_freed_memory()
    threads.fit_to_cores()
    with kept_for_good():
        quiet.import_tensorflow()


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """What is imported within is there until the end: Python's search for garbage passes it over, then and later.

    Half a million objects: to look through them took a tenth of a short command's time.
    """
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


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
