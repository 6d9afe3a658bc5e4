"""The runs below a folder, from their files alone: nothing is built, TensorFlow is not imported."""

import dataclasses
import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tf_pivae.errors import UserError, cannot_write, printable
from tf_pivae.files import files_below, read_json, read_records, read_text
from tf_pivae.runs.recorded import setting

_CHECKPOINT = re.compile(r"\d{8,}")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run."""

    path: Path
    state: str  # "running", "finished", "stopped" or "damaged"
    step: int  # of the newest checkpoint; 0 without one
    num_steps: int | None  # of the finished run, where its configuration says so in a number
    bits_per_dim: float | None  # held out, K = 1: of the training's end, or of `evaluation.json`
    fid: float | None
    num_bytes: int  # of all its files
    changed: float  # when its records were last written, seconds since 1970


def find(folder: str | Path) -> list[Entry]:
    """The runs in a folder, in its folders, and so on, by path; what is in a run is not looked into.

    Raises:
      UserError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"there is no folder {folder}: give the folder of the runs, --root=DIR.")
    entries = []
    for path, folders, files in os.walk(folder):
        if "config.gin" in files and ("checkpoints" in folders or "data.json" in files):
            entries.append(entry(Path(path)))
            folders.clear()
    return sorted(entries, key=lambda run: str(run.path))


def entry(path: Path) -> Entry:
    """What a run's files say of it."""
    held_out = None
    evaluation: dict = {}
    scores = {}
    damaged = False
    try:
        records = read_records(path / "metrics.jsonl")
        held_out = next((r[k] for r in records[::-1] for k in ["held_out_bits_per_dim/K=1"] if k in r), None)
        evaluation = read_json(path / "evaluation.json") if (path / "evaluation.json").exists() else {"rows": []}
        scores = {row["metric"].strip(): row["value"] for row in evaluation["rows"]}
        recorded = setting(read_text(path / "config.gin"), "train.num_steps") or ""
        num_steps = int(recorded) if recorded.isdecimal() else None
        read_json(path / "data.json")
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        num_steps = None
        damaged = True
    step = max((int(c.name) for c in (path / "checkpoints").glob("*") if _CHECKPOINT.fullmatch(c.name)), default=0)
    best = (int(c.name) for c in (path / "best").glob("*") if _CHECKPOINT.fullmatch(c.name))
    if scores and evaluation.get("step") not in (step, *best):
        scores = {}  # Of weights that were trained on since.
    state = "finished" if num_steps is not None and step >= num_steps else "stopped"
    about = [*files_below(path)]
    return Entry(
        path=path,
        state="running" if is_locked(path) else "damaged" if damaged else state,
        step=step,
        num_steps=num_steps,
        bits_per_dim=_number(scores.get("bits/dim, K=1", held_out)),
        fid=_number(next((value for name, value in scores.items() if name.startswith("FID")), None)),
        num_bytes=sum(one.st_size for one in about),
        changed=max((one.st_mtime for one in about), default=0.0),
    )


def _number(value: object) -> float | None:
    """A number that a float holds, or None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        return None
    return value


def is_locked(path: Path) -> bool:
    """Whether a process is training there."""
    try:
        lock = os.open(path / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # Released at once.
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def table(entries: Iterable[Entry], now: float | None = None) -> str:
    """The runs as text, a line each."""
    now = time.time() if now is None else now
    rows: list[tuple[str, ...]] = [("run", "state", "step", "bits/dim", "FID", "size", "age")]
    for run in entries:
        numbers = [f"{run.step}/{run.num_steps or '?'}"]
        numbers.append("" if run.bits_per_dim is None else f"{run.bits_per_dim:.4f}")
        numbers.append("" if run.fid is None else f"{run.fid:.2f}")
        numbers += [f"{run.num_bytes / 1e6:.1f} MB", _age(now - run.changed)]
        rows.append((printable(run.path), run.state, *numbers))
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if i < 2 else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def delete(paths: Sequence[str | Path]) -> list[Entry]:
    """Deletes runs, all of which are looked at before the first goes; returns what they were.

    Raises:
      UserError: one is not a run, is a link, is being trained, or has another run in it; or a file cannot be removed.
    """
    entries = []
    once = {Path(path).resolve(): Path(path) for path in paths}
    for path in once.values():
        if path.is_symlink() or not (path / "config.gin").exists() or not (path / "checkpoints").is_dir():
            raise UserError(f"{path} is not a run: nothing was deleted.")
        entries.append(entry(path))
        if entries[-1].state == "running":
            raise UserError(f"a process is training in {path}: nothing was deleted.")
        for folder, _, files in os.walk(path):
            if Path(folder) != path and ("config.gin" in files or is_locked(Path(folder))):
                raise UserError(f"{path} has another run in it, {folder}: delete or move that first.")
    for run in entries:
        try:
            shutil.rmtree(run.path.resolve())
        except OSError as error:
            raise UserError(cannot_write(error.filename or run.path, error)) from error
    return entries
