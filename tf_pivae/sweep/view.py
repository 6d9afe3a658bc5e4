"""What a sweep shows while it runs: a live table in a terminal, a line for each change elsewhere."""

from __future__ import annotations

import collections
import sys
from typing import TYPE_CHECKING, TextIO

from tf_pivae.sweep import results
from tf_pivae.sweep.trials import FAILED, FINISHED, RUNNING, STOPPED, WAITING

if TYPE_CHECKING:
    from tf_pivae.sweep.trials import Record, Trial

_STYLES = {RUNNING: "bold", FINISHED: "green", FAILED: "red", STOPPED: "yellow", WAITING: "dim"}
_MOST_ROWS = 30


def view(num_steps: dict[Trial, int], stream: TextIO | None = None) -> Lines | LiveTable:
    """A context manager with a method `update(trials, records)`: a table, or lines where there is no terminal.

    Args:
      num_steps: dict trial -> int, the length of its training.
      stream: text file; None is stdout.
    """
    stream = stream or sys.stdout
    return LiveTable(num_steps, stream) if stream.isatty() else Lines(num_steps, stream)


def summary(records: dict[Trial, Record]) -> str:
    """ "3 finished, 1 failed, 2 running, 6 waiting" """
    counts = collections.Counter(record.status for record in records.values())
    return ", ".join(f"{counts[s]} {s}" for s in (FINISHED, FAILED, STOPPED, RUNNING, WAITING) if counts[s])


def _cells(trial, record, num_steps):
    values = results.row(trial)
    bits = values["bits_per_dim"]
    if bits is not None:
        score = f"{bits:.4f} +- {values['bits_per_dim_standard_error'] or 0.0:.4f}"
    else:
        bits = values.get("train/bits_per_dim")
        score = "" if bits is None else f"({bits:.4f})"
    return f"{values['step']}/{num_steps[trial]}", score, record.error or ""


class Lines:
    """One line for each trial whose status has changed."""

    def __init__(self, num_steps: dict[Trial, int], stream: TextIO) -> None:
        self._num_steps = num_steps
        self._stream = stream
        self._states = {}

    def update(self, records: dict[Trial, Record]) -> None:
        """Shows `records`, a dict trial -> `Record`."""
        for trial, record in records.items():
            if record.status != self._states.get(trial, WAITING):
                steps, score, error = _cells(trial, record, self._num_steps)
                parts = [f"{trial.name}: {record.status}", f"step {steps}"]
                parts += [f"bits/dim {score}"] * bool(score) + [error] * bool(error)
                print("  ".join(parts), f"({summary(records)})", file=self._stream, flush=True)
            self._states[trial] = record.status

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LiveTable:
    """A table that is redrawn in place: the running trials, then those that ended."""

    def __init__(self, num_steps: dict[Trial, int], stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._num_steps = num_steps
        self._live = Live(console=Console(file=stream), auto_refresh=False)

    def update(self, records: dict[Trial, Record]) -> None:
        """Shows `records`, a dict trial -> `Record`."""
        from rich.table import Table as RichTable

        table = RichTable(title=summary(records))
        for heading in ("trial", "status", "step", "bits/dim", "error"):
            table.add_column(heading, overflow="fold")
        order = [RUNNING, FAILED, STOPPED, FINISHED, WAITING]
        rows = sorted(records.items(), key=lambda pair: order.index(pair[1].status))
        for trial, record in rows[:_MOST_ROWS]:
            cells = _cells(trial, record, self._num_steps)
            table.add_row(trial.name, record.status, *cells, style=_STYLES[record.status])
        table.caption = "bits/dim: held out; in brackets: on training batches so far"
        if len(rows) > _MOST_ROWS:
            table.caption = f"and {len(rows) - _MOST_ROWS} more; {table.caption}"
        self._live.update(table, refresh=True)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
