"""Runs commands of the package as `python -m` does, without the same imports each time.

TensorFlow and what else a command imports take four of the eight seconds of the shortest training. Here a process that
has imported them is forked for each command, which has arguments, folder, environment, output, exit status and process
of its own, and goes through the same `__main__`. What is imported when, and variables that only an import reads, cannot
be tested like this; the commands of the documentation are started by the shell.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from typing import Any

_IMPORTED = ("configurables", "training.loop", "evaluation", "reports.page", "export.saved_model")


class Forker:
    """The process that is forked; it starts with the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: str, timeout: int = 600, **process: Any) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)` returns.

        Args:
          *arguments: a module of the package and its arguments.
          timeout: seconds after which the command is killed.
          **process: `cwd` and `env`, as `subprocess.run` takes them.
        """
        if self._process is None:
            command = [sys.executable, __file__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            place = str(process.get("cwd") or os.getcwd()), process.get("env") or dict(os.environ)
            request = json.dumps([[str(a) for a in arguments], *place, out.name, err.name, timeout])
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), status, out.read(), err.read())

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.communicate()


def _child() -> tuple[list[str], str, dict[str, str], str, str]:
    """Forks for each request, answers with the child's exit status, and returns in the child."""
    replies = os.fdopen(os.dup(1), "w")
    for line in os.fdopen(os.dup(0)):
        *request, timeout = json.loads(line)
        child = os.fork()
        if not child:
            signal.alarm(timeout)  # Ends the command, unless it handles SIGALRM, which none does.
            return tuple(request)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, file=replies, flush=True)
    os._exit(0)


def _become(arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = arguments


if __name__ == "__main__":
    from tf_pivae import cli

    cli.import_tensorflow_quietly()
    for name in _IMPORTED:
        importlib.import_module(f"tf_pivae.{name}")
    gc.freeze()
    _become(*_child())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
