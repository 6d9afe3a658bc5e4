"""Workers as seen from the program that compares them, and the comparison itself."""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_VISIT_SECONDS = 0.5  # A system runs for about as long before the next one's turn.


class WorkerFailed(Exception):
    """A worker ended early; the last line that it wrote."""


class Worker:
    """A process of `benchmarks.worker`, asleep while it is not asked.

    Args:
      system: a key of `benchmarks.worker.MODULES`.
      threads: cores, and threads on them.
      logical_cpus: into how many devices TensorFlow divides the processor.
      device: "gpu", or "cpu" where GPUs are hidden from it.
      python: the interpreter.
    """

    def __init__(
        self, system: str, threads: int, logical_cpus: int = 1, device: str = "cpu", python: str = sys.executable
    ) -> None:
        self.system = system
        self.fresh = True  # Until the first case.
        self._started = time.perf_counter()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._cache = tempfile.TemporaryDirectory()  # What `torch.compile` kept from other runs does not count.
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TF_CPP_MIN_LOG_LEVEL="3")
        environment["TORCHINDUCTOR_CACHE_DIR"] = self._cache.name
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", system, str(threads), str(logical_cpus), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ask(self, do: str, **request: Any) -> dict:
        """One request and its answer.

        Raises:
          WorkerFailed: the process ended instead of answering.
        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["ended without a word"]
            raise WorkerFailed(f"{self.system}: {lines[-1]}")
        return json.loads(answer)

    def prepare(self, case: dict) -> tuple[float, float]:
        """Builds a case and runs it once: seconds of that, and seconds since the start (see `Timing`)."""
        seconds = self.ask("prepare", case=case)["seconds"]
        since_start = time.perf_counter() - self._started if self.fresh else None
        self.fresh = False
        return seconds, since_start

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._cache.cleanup()


class Competitor(NamedTuple):
    """A system with a case, in a process of its own."""

    system: str
    case: dict
    logical_cpus: int = 1
    copy: int = 0  # Tells apart competitors that are the same in everything but the case.


class Pool:
    """Workers by what sets their processes apart, started when they are first needed.

    Args:
      threads, device: see `Worker`.
      peer_python: the interpreter of the systems that are not ours: PyTorch and TensorFlow bring CUDA libraries of
        different versions along, which one environment cannot hold.
    """

    def __init__(self, threads: int, device: str = "cpu", peer_python: str = sys.executable) -> None:
        self.threads = threads
        self.device = device
        self._peer_python = peer_python
        self._workers = {}

    def worker(self, system: str, logical_cpus: int = 1, copy: int = 0) -> Worker:
        """The running worker, or a new one."""
        key = system, logical_cpus, copy
        if key not in self._workers:
            python = sys.executable if system == "ours" else self._peer_python
            self._workers[key] = Worker(system, self.threads, logical_cpus, self.device, python)
        return self._workers[key]

    def discard(self, worker: Worker) -> None:
        """Ends a worker."""
        self._workers = {key: other for key, other in self._workers.items() if other is not worker}
        worker.close()

    def close(self) -> None:
        """Ends all workers: the next ones start with fresh memory."""
        for worker in list(self._workers.values()):
            self.discard(worker)


class Timing(NamedTuple):
    """What one competitor took for a case."""

    seconds: list  # of one call, a number each round
    first: float  # seconds from `prepare` to the end of the first call
    since_start: float | None  # seconds from the process's start to there; None if it had served another case before
    peak_bytes: int | None
    libraries_bytes: int | None  # of the peak: what the process held before its first case

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(timing: Timing, reference: Timing) -> Spread:
    """The `Spread` of timing / reference, each round's by itself: what slows both down at once falls out."""
    ratios = [a / b for a, b in zip(timing.seconds, reference.seconds, strict=True)]
    if len(ratios) == 1:
        return Spread(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Spread(median, low, high)


def compare(pool: Pool, competitors: dict, rounds: int, budget: float) -> dict:
    """Times competitors in turns, A B A B.

    Args:
      pool: `Pool`.
      competitors: dict of a name -> `Competitor`.
      rounds: turns of each; fewer, but at least 3, once `budget` seconds have gone by.
      budget: seconds.

    Returns:
      dict of a name -> `Timing`, or the message of a competitor that failed.
    """
    workers = {}
    calls = {}
    results: dict[str, Any] = {}
    for name, (system, case, logical_cpus, copy) in competitors.items():
        worker = pool.worker(system, logical_cpus, copy)
        if worker in workers.values():
            raise ValueError("two cases cannot take turns in one process.")
        try:
            first, since_start = worker.prepare(case)
            worker.ask("time", calls=1)
            memory = worker.ask("peak")
            once = worker.ask("time", calls=1)["seconds"]
        except WorkerFailed as failure:
            pool.discard(worker)
            results[name] = str(failure)
            continue
        workers[name] = worker
        calls[name] = max(1, math.ceil(_VISIT_SECONDS / max(once, 1e-6)))
        if budget == 0:
            calls[name] = 1
        results[name] = Timing([], first, since_start, memory["bytes"], memory["libraries"])
    started = time.perf_counter()
    for i in range(rounds):
        if i >= min(rounds, 3) and time.perf_counter() - started > budget:
            break
        for name, worker in list(workers.items()):
            try:
                results[name].seconds.append(worker.ask("time", calls=calls[name])["seconds"] / calls[name])
            except WorkerFailed as failure:
                pool.discard(workers.pop(name))
                results[name] = str(failure)
    return results


def compare_all(pool: Pool, competitors: dict, rounds: int, budget: float) -> dict:
    """`compare` where nobody may fail.

    Raises:
      WorkerFailed: one did.
    """
    results = compare(pool, competitors, rounds, budget)
    for result in results.values():
        if isinstance(result, str):
            raise WorkerFailed(result)
    return results
