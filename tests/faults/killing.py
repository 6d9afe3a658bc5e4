"""Runs a command again and again, killing it by SIGKILL at given moments, until it is left alone to end.

What it was doing when it was killed is read from the disk afterwards, as its successor has to.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

_DEADLINE_SECONDS = 1500.0


class Kill(NamedTuple):
    """When to kill: so many seconds after something began."""

    aim: str  # "start" of the process, "preparation" of the data, "step" (its first), "checkpoint" (a write), "end"
    delay: float


class Killed(NamedTuple):
    """What one kill came to."""

    aim: str
    delay: float  # s
    seconds: float  # s since the process started
    doing: str
    step: int  # the last one logged
    checkpoint: int  # the newest whole one then; 0 is none
    continued: int | None = None  # the step from which the next process went on


def random_kills(seed, longest, **counts):
    """Kills in random order at random delays.

    Args:
      seed: int.
      longest: dict of an aim -> longest delay in s.
      **counts: number of kills of each aim. Those of "preparation" come first and those of "end" last: there is no
        other time for them.
    """
    generator = random.Random(seed)
    kills = {aim: [Kill(aim, generator.uniform(0.0, longest[aim])) for _ in range(n)] for aim, n in counts.items()}
    between = [kill for aim, several in kills.items() if aim not in ("preparation", "end") for kill in several]
    generator.shuffle(between)
    return [*kills.get("preparation", []), *between, *kills.get("end", [])]


def write_photos(folder, count, size=256, distinct=16):
    """Writes so many PNG files of noise, most of them further names of the first few."""
    Path(folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(count):
        path = Path(folder) / f"{i:05d}.png"
        if i < distinct:
            coarse = generator.integers(0, 256, [size // 16, size // 16, 1], np.uint8)
            noise = generator.integers(0, 32, [size, size, 1], np.uint8)
            Image.fromarray((coarse.repeat(16, 0).repeat(16, 1) // 2 + noise)[..., 0]).save(path)
        else:
            os.link(Path(folder) / f"{i % distinct:05d}.png", path)


def start_command(module, *arguments, **options):
    """Starts `python -m tf_pivae.MODULE *arguments`, as users do; returns the `subprocess.Popen`."""
    return subprocess.Popen([sys.executable, "-m", f"tf_pivae.{module}", *arguments], **options)


class Training:
    """The train command in a folder of its own, with a data cache of its own.

    Args:
      folder: for the run directory `run`, the data `cache` and the logs.
      arguments: of the command, but --run_dir.
      workers: number of processes; each kill hits `victims[kill's number % len(victims)]`, a tuple of their numbers.
      start: what starts a command, see `start_command`.
    """

    def __init__(self, folder, arguments, workers=1, victims=((0,),), start=start_command):
        self.folder = Path(folder)
        self.run = Path(folder) / "run"
        self.arguments = list(arguments)
        self.workers = workers
        self.victims = victims
        self.start = start
        self.survivors = []  # exit statuses of the workers that were not killed
        self.folder.mkdir(parents=True, exist_ok=True)

    def to_the_end(self):
        """Runs the command undisturbed; its exit statuses."""
        processes = self._start()
        return [process.wait(timeout=_DEADLINE_SECONDS) for process in processes]

    def killed(self, kills):
        """Runs it with a kill at each of `kills`, then to the end; yields a `Killed` for each when it is known."""
        last = None
        for i, kill in enumerate(kills):
            launched = time.time_ns()
            processes = self._start()
            started = time.monotonic()
            self._wait(kill.aim, launched, processes)
            time.sleep(kill.delay)
            seconds = time.monotonic() - started
            victims = self.victims[i % len(self.victims)]
            gone = [process.poll() for process in processes]
            for worker in victims:
                processes[worker].kill()
            statuses = [process.wait(timeout=_DEADLINE_SECONDS) for process in processes]
            assert gone == [None] * self.workers, f"ended before it was killed: {gone}, {self.log()}"
            self.survivors += [status for worker, status in enumerate(statuses) if worker not in victims]
            if last is not None:
                yield last._replace(continued=self._continued(launched))
            last = Killed(kill.aim, kill.delay, seconds, self._doing(launched), self._step(), self._checkpoint())
        launched = time.time_ns()
        statuses = self.to_the_end()
        assert statuses == [0] * self.workers, self.log()
        yield last._replace(continued=self._continued(launched))

    def log(self):
        """What the processes of the last start said."""
        return "\n".join((self.folder / f"log-{i}").read_text() for i in range(self.workers))

    def _start(self):
        command = ["train", f"--run_dir={self.run}", *self.arguments]
        addresses = [f"localhost:{port}" for port in _free_ports(self.workers)]
        processes = []
        for i in range(self.workers):
            environment = {**os.environ, "TF_PIVAE_CACHE": str(self.folder / "cache")}
            if self.workers > 1:
                task = {"type": "worker", "index": i}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            with open(self.folder / f"log-{i}", "w") as log:
                processes.append(self.start(*command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return processes

    def _wait(self, aim, launched, processes):
        begun = {
            "start": lambda: True,
            "preparation": lambda: preparing(self.folder / "cache", launched),
            "step": lambda: self._steps_said() > 0,
            "checkpoint": lambda: self._writing(launched) is not None,
            "end": lambda: "held-out" in (self.folder / "log-0").read_text(),
        }[aim]
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not begun():
            assert all(process.poll() is None for process in processes), self.log()
            assert time.monotonic() < deadline, f"waited in vain for {aim}: {self.log()}"
            time.sleep(0.0005 if aim == "checkpoint" else 0.005)

    def _doing(self, launched):
        """What the process started at `launched` (ns) was doing when it was killed."""
        if (writing := self._writing(launched)) is not None:
            return f"writing checkpoint {writing}"
        if "held-out" in (self.folder / "log-0").read_text():
            return "evaluating and drawing at the end"
        if self._steps_said():
            return f"step {self._step() + 1}"
        if preparing(self.folder / "cache", launched):
            return f"preparing data, {noted(self.folder / 'cache')}"
        return "starting, or its first step" if self._environments(launched) else "starting"

    def _writing(self, launched):
        """The checkpoint that a process started at `launched` (ns) began to write and did not end, or None."""
        for path in (self.run / "checkpoints").glob(".*.partial"):
            try:
                if path.stat().st_mtime_ns > launched:
                    return int(path.name.split(".")[1])
            except OSError:
                continue  # It has just been renamed.
        return None

    def _environments(self, launched=0):
        """What environment.json lists, if a process started at `launched` (ns) or later has written it."""
        path = self.run / "environment.json"
        try:
            return json.loads(path.read_text()) if path.stat().st_mtime_ns > launched else []
        except OSError:
            return []

    def _continued(self, launched):
        """The step from which the process started at `launched` went on; None if it did not come so far."""
        environments = self._environments(launched)
        return environments[-1]["from_step"] if environments else None

    def _step(self):
        """The last logged step of the run."""
        return max((line["step"] for line in read_metrics(self.run)), default=0)

    def _steps_said(self):
        """How many steps the last process started has reported."""
        return sum(line.startswith("step ") for line in (self.folder / "log-0").read_text().splitlines())

    def _checkpoint(self):
        names = (path.name for path in (self.run / "checkpoints").glob("[0-9]*"))
        return max(map(int, names), default=0)


def preparing(cache, launched):
    """Whether a process started at `launched` (ns) is writing a data set below the folder `cache`, or was."""
    with contextlib.suppress(FileNotFoundError):  # Labels that there are none of are removed at the end of a split.
        return any(path.stat().st_mtime_ns > launched for path in Path(cache).glob("*.partial/*.npy"))
    return True


def noted(cache):
    """What a killed preparation left a note of."""
    try:
        (path,) = Path(cache).glob("*.partial/progress.json")
        return f"{json.loads(path.read_text())['train']['records']} files noted"
    except (OSError, ValueError, KeyError):
        return "nothing noted yet"


def _free_ports(count):
    import socket

    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def read_metrics(run):
    """The lines of metrics.jsonl, a list of dicts; without the half line that a kill may have left."""
    lines = []
    try:
        for line in (Path(run) / "metrics.jsonl").read_text().splitlines():
            lines.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return lines


def curves(run):
    """The lines of metrics.jsonl without what depends on the clock: what is left does not depend on interruptions."""
    timings = ("images_per_second", "evaluation_seconds")
    return [{name: value for name, value in line.items() if name not in timings} for line in read_metrics(run)]


def state_bytes(run, step):
    """Every variable of a run's checkpoint: dict of its name -> bytes."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(Path(run) / "checkpoints" / f"{step:08d}" / "checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def folder_bytes(folder):
    """Every file below a folder: dict of its relative path -> bytes; locks, which are empty, are left out."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
