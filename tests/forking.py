"""Runs commands of the package as `python -m` does, without the same imports each time.

TensorFlow and what else a command imports take four of the eight seconds of the shortest training. Here a process that
has imported them is forked for each command, which has arguments, folder, environment, output, exit status and process
of its own, and goes through the same `__main__`; so are the commands that a command starts, and those of benchmarks/.
A command ends without Python taking every object apart, which takes another quarter of a second. What is imported when,
what TensorFlow's optimiser makes of a graph, variables that only an import reads, and what happens when Python takes
itself apart, cannot be tested like this; the README's first command and program are started by the shell.

Who starts a command gets a child process of tests/forked.py, which hands its streams to a keeper. The keeper, forked
from the process that has imported everything, forks the command, passes signals on to it, and its exit status back.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_IMPORTED = ("training.loop", "evaluate.measuring", "report.page", "export.write.saved_model")  # None imports gRPC.
# For all tests: TensorFlow's optimiser of graphs takes longer than small graphs that run a few times.
OPTIMIZER = {"disable_meta_optimizer": True}
_PARENT = "TF_PIVAE_PARENT"  # See tf_pivae/system/children.py.
_statuses: list[int] = []  # The exit status of the command that this process has become, once it is known.


@contextlib.contextmanager
def optimized_graphs() -> Iterator[None]:
    """TensorFlow's optimiser of graphs is on, as in commands of users: big networks take much less memory with it."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options(OPTIMIZER)


class Popen(subprocess.Popen):
    """`subprocess.Popen([sys.executable, "-m", "tf_pivae.MODULE", *arguments], ...)`.

    MODULE may be a script's path; one that begins with "benchmarks." is that of the clone, which has to be `cwd`.
    """

    def __init__(self, module: object, *arguments: object, **options: Any):
        full = str(module) if str(module).startswith("benchmarks.") else f"tf_pivae.{module}"
        name = ["--", str(module)] if str(module).endswith(".py") else ["-m", full]
        super().__init__([str(python()), *name, *map(str, arguments)], **options)

    def send_signal(self, sig: int) -> None:
        """To the command itself, so that it is gone where it is killed and this process has ended."""
        if (command := self.command_pid()) is not None and self.poll() is None:
            os.kill(command, sig)

    def command_pid(self) -> int | None:
        """The command's own number, where `pid` is that of the process that stands for it; None: it has ended."""
        file = python().parent / str(self.pid)
        while self.poll() is None:
            if file.exists() and (number := file.read_text()):
                return int(number)
            time.sleep(0.01)
        return None


def run(module: object, *arguments: object, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-m", "tf_pivae.MODULE", ...], ...)` returns, its output captured."""
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Popen(module, *arguments, **streams, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


_template: list[subprocess.Popen[str]] = []


@functools.cache
def python() -> Path:
    """What takes Python's place, a program; the process that is forked waits at a socket beside it."""
    program = Path(tempfile.mkdtemp(prefix="forking-")) / "python"
    program.write_text(f"#!{sys.executable} -IS\n{Path(__file__).with_name('forked.py').read_text()}")
    program.chmod(0o755)
    command = [sys.executable, __file__, str(program)]
    _template.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    assert _template[0].stdout.readline() == "up\n"
    return program


def close() -> None:
    """Ends the process that is forked."""
    for process in _template:
        process.communicate()
        shutil.rmtree(python().parent)
    _template.clear()


def _serve(program: Path) -> tuple[list[str], str, dict[str, str]]:
    """Forks for each request; returns in the command's own process, with the request."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(program.with_name("socket")))
        server.listen(64)
        print("up", flush=True)
        while True:
            over = 0 in select.select([server, 0], [], [])[0]
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if over:
                os._exit(0)
            connection, _ = server.accept()
            if not os.fork():
                break
            connection.close()
    message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 20)
    number, arguments, folder, environment = json.loads(message)
    if _PARENT in environment:
        environment[_PARENT] = str(os.getpid())
    ended, alive = os.pipe()  # `alive` is the command's, whose end closes it.
    child = os.fork()
    if not child:
        connection.close()
        for i, stream in enumerate(streams):
            os.dup2(stream, i)
            os.close(stream)
        return arguments, folder, environment
    os.close(alive)
    (program.parent / str(number)).write_text(str(child))
    while ended not in select.select([connection, ended], [], [])[0]:
        signals = connection.recv(64)
        for sig in signals:
            os.kill(child, sig)
        if not signals:  # The process of tests/forked.py was killed.
            if _PARENT not in environment:
                os.kill(child, 9)
            os._exit(0)
    connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def _become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module("tf_pivae.system.threads").fit_to_cores()  # As the import of TensorFlow has it done.
    os.chdir(folder)
    kind, *sys.argv = arguments
    try:
        if kind == "-m":
            sys.path[0] = folder
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        _statuses.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _statuses.append(end.code or 0)
        raise


def _end() -> None:
    """The last of what is registered with `atexit`: the process ends without taking every object apart.

    Where the status is Python's to decide, something cannot be written out, or threads still run, as a server's may,
    Python ends as ever.
    """
    if _statuses and threading.active_count() == 1:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(_statuses[0] & 0xFF)


if __name__ == "__main__":
    atexit.register(_end)  # Before anything else is: what is registered first comes last.
    from tf_pivae import cli, loading

    cli.import_tensorflow_quietly()
    loading.register()
    for name in _IMPORTED:
        importlib.import_module(f"tf_pivae.{name}")
    sys.modules["tensorflow"].config.optimizer.set_experimental_options(OPTIMIZER)
    gc.freeze()
    sys.executable = sys.argv[1]
    _become(*_serve(Path(sys.executable)))
