"""Commands started by a command: they end with it, however it ends, and the next one waits for them.

Nothing here imports TensorFlow.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PARENT = "TF_PIVAE_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_SECONDS = 0.2


def environment() -> dict[str, str]:
    """This process's environment variables, and the one that ties a command started with them to this process."""
    return {**os.environ, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """In a command that was started with `environment()`: SIGTERM when the parent is gone, so that it saves and ends.

    The parent may have been killed by SIGKILL, which it cannot hand on. On systems other than Linux nothing happens.
    """
    parent = os.environ.pop(_PARENT, None)  # Popped: it is not the parent of this process's own children.
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # The parent ended before this was set.
        sys.exit(128 + signal.SIGTERM)


def wait_for_lock(run_dir: str | Path, stopped: Callable[[], bool] = lambda: False) -> None:
    """Waits while another process holds a run directory: that of a killed command, on its way out.

    Args:
      run_dir: folder; made if need be.
      stopped: a function; once true, there is no more waiting.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(run_dir) / "lock", "a") as lock:
        while not stopped():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
