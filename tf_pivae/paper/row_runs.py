"""Trains and evaluates rows of the paper's tables, each part in a process of its own and none of them twice.

DIR/runs/ROW/seed_S/likelihood/  the run trained by likelihood first (appendix C), where the row has one
DIR/runs/ROW/seed_S/model/       the row's run
DIR/runs/ROW/seed_S/bound/       the inference network around a GAN (section 5.1)
DIR/runs/ROW/seed_S/STAGE_before/  a run of a stage that began with other weights than the stage before it has now
DIR/runs/ROW/seed_S/parts.json   the finished parts: name -> the command that made it, a sum of the user's gin files,
                               and what it came to; enough to print the table again where the runs are gone.
                               "STAGE from": the weights that a stage began with
DIR/runs/ROW/seed_S/lock         held by the process that works on the row; another one waits
DIR/runs/real_subsets/...        Table 7 has no runs, only parts
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tf_pivae import configuration
from tf_pivae.configuration import parsing
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, write_atomically
from tf_pivae.paper.numbers import BEYOND
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.system import children

if TYPE_CHECKING:
    from tf_pivae.paper.numbers import System

# Names in evaluation.json.
_NAMES = {
    "bits_per_dim": "bits/dim, K=1",
    "inception_score": "Inception Score",
    "fid": "FID",
    "gan_test": "GAN-test %",
    "gan_train": "GAN-train %",
    **{name: name.capitalize() for name in BEYOND},
}
_STAGES = ("likelihood", "model", "bound")
_INTERRUPTED_SECONDS = 3.0


class Preset(NamedTuple):
    """How large the rows are trained."""

    own_data: bool  # instead of the row's
    evaluation: tuple  # flags of the evaluate command
    real_subsets: tuple  # sizes for Table 7


PRESETS = {
    "full": Preset(False, (), (50_000, 40_000, 30_000, 20_000, 10_000, 5_000, 2_500)),
    "small": Preset(True, ("--num_examples=2000", "--num_samples=2500"), (50_000, 10_000, 5_000, 2_500)),
    "tiny": Preset(True, ("--num_examples=32", "--num_samples=64", "--importance_samples=2"), (128, 64)),
}


class Failure(Exception):
    """A part of a row that cannot be had: its message is what the command said."""


def gin_files(row_name: str, preset: str) -> list[str]:
    """The gin files of a row under a preset; a preset may have one for the row's system, the name's first word."""
    if preset == "full":
        return [f"paper/{row_name}.gin"]
    shipped = [f"presets/{preset}_{row_name.split('_')[0]}.gin", f"presets/{preset}.gin"]
    return [f"paper/{row_name}.gin", next(name for name in shipped if configuration.is_file(name))]


class Parts:
    """The finished parts of a folder, on disk as soon as they are finished.

    Args:
      directory: the folder.
      files: the user's gin files, whose content decides the parts.

    Raises:
      UserError: the file of the parts, or a gin file, cannot be read.
    """

    def __init__(self, directory: Path, files: Sequence[str] = ()) -> None:
        files = [file for file in files if Path(file).is_file()]  # The others come with the package.
        own = [text for file in files for text in parsing.texts(file)]
        self._content = {"files": hashlib.sha256("\0".join(own).encode()).hexdigest()[:16]} if own else {}
        self._path = Path(directory) / "parts.json"
        try:
            self._parts = read_json(self._path) if self._path.exists() else {}
            whole = all({"command", "result"} <= part.keys() for part in self._parts.values())
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            raise UserError(f"{self._path} is damaged: remove it, then the same command evaluates the runs again.")

    def finished(self, name: str, command: Sequence[str]) -> dict | None:
        """What a part came to, or None if it is still to do, or was done by another command or with other files."""
        part = {**self._content, **self._parts.get(name, {})}  # Those of before do not tell of the files.
        same = part.get("command") == list(command) and self._content.items() <= part.items()
        return part["result"] if same else None

    def beginning(self, name: str) -> str | None:
        """The weights that a stage began with; None where it is not known."""
        return self._parts[f"{name} from"]["command"][0] if f"{name} from" in self._parts else None

    def begin(self, name: str, weights: str) -> None:
        """Keeps what a stage begins with; where that was something else, the stage is to do again."""
        if self.beginning(name) not in (None, weights):
            self._parts.pop(name, None)
        self._parts[f"{name} from"] = {"command": [weights], "result": {}}
        self._write()

    def total(self, key: str, names: Iterable[str]) -> float | None:
        """The sum of a number over those of the parts that are finished; None if none is."""
        numbers = [self._parts[name]["result"][key] for name in names if name in self._parts]
        return sum(numbers) if numbers else None

    def finish(self, name: str, command: Sequence[str], result: dict) -> None:
        """Keeps what a part came to, a dict of plain types. After a training, what was evaluated of it is forgotten."""
        if name in _STAGES:
            stages = (*_STAGES, *(f"{stage} from" for stage in _STAGES))
            earlier = _STAGES[: _STAGES.index(name)]
            self._parts = {k: p for k, p in self._parts.items() if k in stages or _stage(p["command"]) in earlier}
        self._parts[name] = {"command": list(command), **self._content, "result": result}
        self._write()

    def _write(self):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps(self._parts, indent=1))


class RowRun:
    """One row with one seed.

    Args:
      row: `numbers.System`.
      preset: name of a `Preset`.
      output_dir: DIR of the module's docstring.
      extra_files, gin_params: further gin files, after the preset's, and bindings, of all trainings.
      evaluation: further flags of the evaluate command.
      retry: evaluate again what was refused.
      import_flags: the --import flags of each part.
      say: a function of a line of text.
    """

    def __init__(
        self,
        row: System,
        preset: str,
        seed: int,
        output_dir: str | Path,
        extra_files: Sequence[str] = (),
        gin_params: Sequence[str] = (),
        evaluation: Sequence[str] = (),
        retry: bool = False,
        import_flags: Sequence[str] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self.row = row
        self.preset = preset
        self.name = row.elsewhere if row.elsewhere and PRESETS[preset].own_data else row.name
        self.directory = Path(output_dir) / "runs" / self.name / f"seed_{seed}"
        self.retry = retry
        self._import_flags = import_flags
        self.say = lambda text: say(f"{row.label}, seed {seed}: {text}")
        files = [f"--gin_file={file}" for file in [*gin_files(self.name, preset), *extra_files]]
        self._configuration = [*files, f"--gin_param=seed={seed}", *(f"--gin_param={p}" for p in gin_params)]
        self._evaluation = [*PRESETS[preset].evaluation, *evaluation]
        if preset != "full":
            self._evaluation.append(f"--gin_file=presets/{preset}_evaluation.gin")
        self._files = extra_files
        self._parts = Parts(self.directory, extra_files)

    def minutes(self) -> float | None:
        """Minutes that its trainings took, with all stages; None if there is none."""
        return self._parts.total("minutes", _STAGES)

    def run(self) -> dict[str, dict]:
        """Trains and evaluates what is not finished yet.

        Returns:
          dict of a metric's name -> {"value", "spread", "protocol"} or {"reason": why there is none}, for the metrics
          that the paper gives and those wanted beyond them.
        """
        with self._held():
            return self._run()

    @contextlib.contextmanager
    def _held(self):
        """Waits until no other process works on the row, whose parts may be finished then."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("another process works on it: waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._parts = Parts(self.directory, self._files)
            yield

    def _run(self):
        metrics = [metric for metric, value in self.row.numbers.items() if value is not None] + list(self.row.also)
        bound = [metric for metric in metrics if metric == "bits_per_dim" and self.row.approximate]
        results = {}
        try:
            if self.row.likelihood_first:
                self._train("likelihood", ["--gin_param=train.critic=None"])
                self._train("model", [], "train.initial_run", "likelihood")
            else:
                self._train("model", [])
            self._evaluate("model", [metric for metric in metrics if metric not in bound], results)
            if bound:
                self._train("bound", ["--gin_file=gan_bits_per_dim.gin"], "initial_run", "model")
                self._evaluate("bound", bound, results)
        except Failure as failure:
            results = {metric: results.get(metric, {"reason": str(failure)}) for metric in metrics}
        return results

    def _train(self, stage, extra, setting=None, earlier=None):
        """Trains a stage, one that begins with the weights of an `earlier` one by that `setting`."""
        run_dir = self.directory / stage
        command = ["tf_pivae.train", *self._configuration, *extra, f"--run_dir={run_dir}"]
        if earlier is not None:
            command.insert(-1, f"--gin_param={setting}={str(self.directory / earlier)!r}")
            self._begin(stage, run_dir, earlier)
        if self._parts.finished(stage, command) is None:
            self.say(f"training ({stage})")
            children.wait_for_lock(run_dir)
            error = _run([*command, *self._import_flags])
            if error:
                raise Failure(error)
            self._parts.finish(stage, command, {"minutes": _minutes(run_dir)})

    def _begin(self, stage, run_dir, earlier):
        """Puts away the run of a stage that began with other weights than the earlier stage's run has by now."""
        sums = Checkpoints(self.directory / earlier / "checkpoints").sums()
        weights = sums[max(sums)] if sums else None
        began_with = self._parts.beginning(stage)
        if weights in (None, began_with):
            return
        if began_with is not None and run_dir.exists():
            before = run_dir.with_name(f"{stage}_before")
            self.say(f"{earlier} was trained on, so {stage} begins anew; its run of before is {before}")
            children.wait_for_lock(run_dir)
            shutil.rmtree(before, ignore_errors=True)
            run_dir.rename(before)
        self._parts.begin(stage, weights)  # Last: whoever is killed before does it again.

    def _evaluate(self, stage, metrics, results):
        """Adds to results. Each metric is a part: what one run refused does not make another compute the rest again."""
        missing = []
        run_dir = self.directory / stage
        command = ["tf_pivae.evaluate", f"--run_dir={run_dir}", *self._evaluation]
        for metric in metrics:
            result = self._parts.finished(metric, command)
            if result is None or (self.retry and "reason" in result):
                missing.append(metric)
            else:
                results[metric] = result
        if missing:
            self.say(f"evaluating {', '.join(missing)}")
            file = run_dir / "evaluation.json"
            file.unlink(missing_ok=True)
            error = _run([*command, f"--metrics={','.join(missing)}", *self._import_flags])
            if not file.exists():
                raise Failure(error or f"the evaluation wrote no {file}")
            evaluation = json.loads(file.read_text())
            for metric in missing:
                results[metric] = _result(metric, evaluation, error)
                self._parts.finish(metric, command, results[metric])


def _stage(command):
    """The stage whose run a command is about."""
    return next((Path(a).name for a in command if a.startswith("--run_dir=")), None)


def _minutes(run_dir):
    from tf_pivae.report.hardware import training_seconds
    from tf_pivae.report.run import read_runs

    (run,) = read_runs([run_dir])
    return (training_seconds(run) or 0.0) / 60.0


def _result(metric, evaluation, error):
    for row in evaluation["rows"]:
        if row["metric"] == _NAMES[metric]:
            return {key: row[key] for key in ("value", "spread", "protocol")}
    for refusal in evaluation["refused"]:
        names, _, reason = refusal.partition(": ")
        if metric in names.split(", "):
            return {"reason": reason}
    return {"reason": error or "the evaluation does not say why"}


def _run(command):
    """Runs a command of this program to its end; returns its one-line error, or None.

    SIGTERM is handed on, and ends this process when the command has saved and ended. Its messages pass through.
    """
    arguments = [sys.executable, "-m", *command]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env=children.environment())
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    error = None
    try:
        # A bar goes back to the start of its line: each of its states is handed on when the next one comes.
        for line in io.TextIOWrapper(process.stderr, newline=""):
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
            else:
                sys.stderr.write(line)
        status = process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_INTERRUPTED_SECONDS)  # The terminal has interrupted it too, or else it goes on.
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if status in (130, 143, -signal.SIGTERM, -signal.SIGINT):
        sys.exit(130 if status in (130, -signal.SIGINT) else 143)
    if status == UserError.exit_status:
        return error
    if status:
        raise UserError(f"`python -m {' '.join(command)}` ended with status {status}.")
    return None
