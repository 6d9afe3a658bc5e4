"""Where trials run: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tf_pivae.errors import UserError, first_line, last_line, sentence
from tf_pivae.sweep.trials import run_trial
from tf_pivae.system.threads import thread_variables

if TYPE_CHECKING:
    from tf_pivae.sweep import trials

_CONNECT_SECONDS = 10


def shares(items: Sequence, parallel: int) -> list[list]:
    """Deals a machine's cores or GPUs out to the trials that run at a time.

    Args:
      items: list.
      parallel: number of trials at a time.

    Returns:
      A list of `parallel` lists of equal length, at least one item each if there are any: disjoint where there are
      enough of them.
    """
    if not items:
        return [[] for _ in range(parallel)]
    each = max(1, len(items) // parallel)
    return [[items[(slot * each + i) % len(items)] for i in range(each)] for slot in range(parallel)]


def local_environments(parallel: int, num_gpus: int = 0, threads: int | None = None) -> list[dict[str, str]]:
    """Environment variables of each of `parallel` trials at a time: its share of the cores, and of the GPUs.

    Args:
      num_gpus: GPUs of this machine.
      threads: int, of each trial; None is its share of the cores that this process may use.
    """
    cores = shares(sorted(os.sched_getaffinity(0)), parallel)
    gpus = shares(list(range(num_gpus)), parallel)
    environments = []
    for slot in range(parallel):
        variables = thread_variables(threads or len(cores[slot]))
        if num_gpus and parallel > 1:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus[slot]))
        if parallel > num_gpus > 0:
            variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # Trials that share a GPU take memory as they need it.
        environments.append(variables)
    return environments


class LocalLauncher:
    """Runs trials as processes of this machine.

    Args:
      environments: dicts of environment variables, one for each trial at a time.
    """

    def __init__(self, environments: list[dict[str, str]]) -> None:
        self.max_parallel = len(environments)
        self._slots = queue.SimpleQueue()
        for environment in environments:
            self._slots.put(environment)
        self._pool = concurrent.futures.ThreadPoolExecutor(len(environments))
        self._stop = threading.Event()

    def submit(self, trial: trials.Trial, stages: list[trials.TrialStage]) -> Any:
        """Starts a trial; returns a handle."""
        return self._pool.submit(self._run, trial, stages)

    def _run(self, trial, stages):
        environment = self._slots.get()
        try:
            return run_trial(trial, stages, environment, self._stop.is_set)
        finally:
            self._slots.put(environment)

    def wait(self, handles: Iterable, seconds: float) -> set:
        """Those of the handles that have ended, after at most `seconds`."""
        return concurrent.futures.wait(handles, seconds, concurrent.futures.FIRST_COMPLETED).done

    def error(self, handle: Any) -> str | None:
        """What went wrong with an ended trial, or None."""
        error = handle.exception()
        return handle.result().error if error is None else f"{type(error).__name__}: {error}"

    def stop(self, handles: Iterable) -> None:
        """Has the running trials save and end."""
        self._stop.set()

    def close(self) -> None:
        self._stop.set()  # Nothing runs any more, unless an error ended the sweep.
        self._pool.shutdown()


def _knock(address):
    """Raises OSError where nobody answers at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            pass


def _run_as_task(trial, stages, environment):
    """`run_trial` in a worker of Ray's, which is cancelled by SIGINT: whatever a background job starts ignores that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_trial(trial, stages, environment)


class RayLauncher:
    """Runs trials as tasks of a Ray cluster, whose machines must see the sweep's folder under the same path.

    Args:
      max_parallel: trials handed over at a time.
      num_cpus, num_gpus: what a trial asks of the cluster; it keeps to `num_cpus` threads.
      address: of the cluster, such as "auto" or "ray://host:10001"; None starts one on this machine.

    Raises:
      UserError: Ray is not installed or not there, or no machine of the cluster can hold a trial.
    """

    def __init__(self, max_parallel: int, num_cpus: int = 1, num_gpus: int = 0, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send usage statistics.
        try:
            import ray
        except ImportError as error:
            raise UserError("--launcher=ray needs Ray: pip install 'tf-pivae[ray]' brings it.") from error
        self.max_parallel = max_parallel
        self._ray = ray
        options = {} if address else {"include_dashboard": False}
        try:
            _knock(address)
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **options)
        except (OSError, ValueError, RuntimeError, TimeoutError) as error:
            reason = sentence(first_line(error))
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
        self._check_capacity(num_cpus, num_gpus)
        self._environment = thread_variables(num_cpus)
        # A lost worker is not retried by Ray: the sweep records it, and its next run continues the trial.
        self._task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(_run_as_task)

    def _check_capacity(self, num_cpus, num_gpus):
        largest = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= num_cpus and node.get("GPU", 0) >= num_gpus for node in largest):
            self.close()
            raise UserError(
                f"no machine of the Ray cluster has {num_cpus} CPUs and {num_gpus} GPUs: lower --cpus_per_trial or "
                "--gpus_per_trial."
            )

    def submit(self, trial: trials.Trial, stages: list[trials.TrialStage]) -> Any:
        """Starts a trial; returns a handle."""
        return self._task.remote(trial, stages, self._environment)

    def wait(self, handles: Iterable, seconds: float) -> set:
        """Those of the handles that have ended, after at most `seconds`."""
        return set(self._ray.wait(list(handles), num_returns=1, timeout=seconds)[0])

    def error(self, handle: Any) -> str | None:
        """What went wrong with an ended trial, or None."""
        try:
            return self._ray.get(handle).error
        except Exception as error:  # Whatever a remote machine met with.
            return last_line(error)

    def stop(self, handles: Iterable) -> None:
        """Has the running trials save and end."""
        for handle in handles:
            self._ray.cancel(handle, force=False, recursive=False)

    def close(self) -> None:
        self._ray.shutdown()
