"""Runs the trials of a sweep, one sweep to a folder."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_pivae.errors import UserError
from tf_pivae.sweep.trials import FAILED, FINISHED, RUNNING, STOPPED, WAITING

if TYPE_CHECKING:
    from tf_pivae.sweep.trials import Trial, TrialStage

_POLL_SECONDS = 0.5


@contextlib.contextmanager
def hold(sweep_dir: str | Path) -> Iterator[None]:
    """Makes the sweep's folder and holds it against other sweeps.

    Raises:
      UserError: another sweep holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            Path(sweep_dir).mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(Path(sweep_dir) / "lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another sweep is running in {sweep_dir}: wait, or choose another --sweep_dir.") from None
        except OSError as error:
            raise UserError(
                f"cannot use {sweep_dir} as a sweep's folder: {error.strerror}; choose another --sweep_dir."
            ) from error
        yield  # What fails within is not the folder's.


def pending(trials: Iterable[Trial], commands: list[TrialStage]) -> list[Trial]:
    """The trials that have something left to do."""
    return [trial for trial in trials if any(stage.name not in trial.read().done for stage in commands)]


def run_all(
    trials: Iterable[Trial], waiting: list[Trial], commands: list[TrialStage], launcher: Any, display: Any
) -> int | None:
    """Runs the waiting trials, `launcher.max_parallel` at a time; returns the signal that stopped it, or None.

    Args:
      trials: all trials, as the view lists them.
      waiting: those to run.
      commands: `TrialStage`s of every trial.
      launcher: `LocalLauncher` or `RayLauncher`.
      display: an object with `update(records)`, see `view`.
    """
    queue = collections.deque(waiting)
    running = {}
    records = {trial: _not_running(trial.read()) for trial in trials}
    for trial in waiting:
        records[trial] = dataclasses.replace(records[trial], status=WAITING, error=None)
    with _signals() as received:
        while queue or running:
            if received:
                queue.clear()
            while queue and len(running) < launcher.max_parallel:
                trial = queue.popleft()
                running[launcher.submit(trial, commands)] = trial
                records[trial] = dataclasses.replace(records[trial], status=RUNNING)
            display.update(records)
            if received and running and not received.passed_on:
                launcher.stop(list(running))
                received.passed_on = True
            if running:
                for handle in launcher.wait(list(running), _POLL_SECONDS):
                    trial = running.pop(handle)
                    records[trial] = _ended(trial, launcher.error(handle), bool(received))
        display.update(records)
    return received[0] if received else None


def _ended(trial, error, stopping):
    """The record of a trial that has ended, also where whoever ran it could not write one."""
    record = trial.read()
    if record.status not in (FINISHED, FAILED, STOPPED):
        status = STOPPED if stopping else FAILED
        record = dataclasses.replace(record, status=status, error=None if stopping else error)
        with contextlib.suppress(OSError):  # The disk may be the cause.
            trial.write(record)
    return record


def _not_running(record):
    """A record that says "running" though this sweep has started nothing is that of a killed sweep."""
    return dataclasses.replace(record, status=STOPPED) if record.status == RUNNING else record


class _Received(list):
    """The signals received; `passed_on` once the trials know."""

    passed_on = False


@contextlib.contextmanager
def _signals():
    received = _Received()
    handlers = {n: signal.signal(n, lambda number, _: received.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
