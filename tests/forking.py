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

_IMPORTED = ("training.loop", "evaluate.measuring", "report.page", "export.write.saved_model")


_template: list[subprocess.Popen[str]] = []


def run(module: str, *arguments: object, timeout: int = 600, **process: Any) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-m", "tf_pivae.MODULE", *arguments], ...)` returns, its output captured.

    Args:
      module: a command's name.
      *arguments: its flags.
      timeout: seconds after which the command is killed.
      **process: `cwd` and `env`, as `subprocess.run` takes them.
    """
    if not _template:
        command = [sys.executable, __file__]
        _template.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        command = [f"tf_pivae.{module}", *map(str, arguments)]
        place = str(process.get("cwd") or os.getcwd()), process.get("env") or dict(os.environ)
        _template[0].stdin.write(json.dumps([command, *place, out.name, err.name, timeout]) + "\n")
        _template[0].stdin.flush()
        status = int(_template[0].stdout.readline())
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def close() -> None:
    """Ends the process that is forked."""
    for process in _template:
        process.communicate()
    _template.clear()


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
    from tf_pivae import cli, loading

    cli.import_tensorflow_quietly()
    loading.register()
    for name in _IMPORTED:
        importlib.import_module(f"tf_pivae.{name}")
    gc.freeze()
    _become(*_child())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
