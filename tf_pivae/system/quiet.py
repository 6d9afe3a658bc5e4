"""Importing TensorFlow without its start-up messages."""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Imports TensorFlow, if that has not happened, with what it says when it starts kept off the terminal.

    It writes some of that to the file descriptor before any log level counts, hence the detour of stderr.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as errors, _redirected(2, errors.fileno()):
        importlib.import_module("tensorflow_probability")  # After TensorFlow, it would load `experimental` at once.
        import tensorflow as tf

        tf.config.list_physical_devices()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # In a notebook the import has set another.


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    copy = os.dup(descriptor)
    try:
        os.dup2(target, descriptor)
        yield
    finally:
        os.dup2(copy, descriptor)
        os.close(copy)
