"""One trial: its folder, its processes, and what is known of it.

SWEEP/NAME/             the run directory, and beside what training writes there:
SWEEP/NAME/trial.gin    the trial's whole configuration
SWEEP/NAME/trial.json   its `Record`
SWEEP/NAME/output.log   what its processes printed

Nothing here imports TensorFlow: a cluster's worker that starts trials stays small.
"""

import dataclasses
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tf_pivae.errors import UserError, cannot_write
from tf_pivae.files import write_atomically, write_json
from tf_pivae.system import children

WAITING = "waiting"
RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
STOPPED = "stopped"
_STOPPED_BY = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # caught, or not
_POLL_SECONDS = 0.2
_LONGEST_NAME = 120  # Characters of a folder's name; file systems take 255 bytes.


@dataclasses.dataclass(frozen=True)
class Record:
    """The state of a trial."""

    status: str = WAITING
    done: tuple[str, ...] = ()  # names of the stages that ended well
    exit_status: int | None = None  # of the last process; negative: killed by that signal
    error: str | None = None  # the last line with an error
    seconds: float = 0.0  # of all processes together, of every attempt


@dataclasses.dataclass(frozen=True)
class TrialStage:
    """A command of the program, run on a trial's folder.

    Attributes:
      name: what identifies it; a stage done is not done again.
      module: "train" or "evaluate".
      arguments: beside the run directory.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Trial:
    """Settings and the folder that belongs to them.

    Attributes:
      settings: tuple of (gin name, gin text), sorted by name.
      sweep_dir: the sweep's folder.
    """

    settings: tuple[tuple[str, str], ...]
    sweep_dir: str

    @property
    def name(self) -> str:
        """A function of the settings alone: "adversarial_weight=10,seed=0", shortened with a checksum if need be."""
        text = ",".join(f"{name}={value}" for name, value in self.settings)
        short = re.sub(r"[^\w.,=@+-]+", "_", text, flags=re.ASCII)[:_LONGEST_NAME]
        return short if short == text else f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def directory(self) -> Path:
        return Path(self.sweep_dir) / self.name

    def claim(self, config: str) -> None:
        """Writes the trial's configuration, or compares it with the one that its folder was made for.

        Raises:
          UserError: the folder belongs to another configuration, or cannot be written.
        """
        path = self.directory / "trial.gin"
        try:
            if path.exists():
                if path.read_text() != config:
                    raise UserError(
                        f"{self.directory} was made with other --gin_file or --gin_param: choose another --sweep_dir."
                    )
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, config)
        except OSError as error:
            raise UserError(cannot_write(path, error)) from error

    @property
    def claimed(self) -> bool:
        """Whether its folder was made."""
        return (self.directory / "trial.gin").is_file()

    def read(self) -> Record:
        """The trial's `Record`; a fresh one where there is none that can be read."""
        try:
            fields = json.loads((self.directory / "trial.json").read_text())
            return Record(**{**fields, "done": tuple(fields["done"])})
        except (OSError, ValueError, KeyError, TypeError):
            return Record()

    def write(self, record: Record) -> None:
        write_json(self.directory / "trial.json", dataclasses.asdict(record))


def run_trial(
    trial: Trial, stages: Sequence[TrialStage], environment: dict[str, str], stopped: Callable[[], bool] = lambda: False
) -> Record:
    """Runs the stages of a trial that are not done yet, each a process; returns its `Record`.

    Args:
      trial: `Trial`, its folder claimed.
      stages: `TrialStage`s in order; one that fails ends the trial.
      environment: dict of variables beside this process's own.
      stopped: a function; once true, the running process gets SIGTERM, saves and ends, and no other is started.
    """
    record = dataclasses.replace(trial.read(), status=RUNNING, exit_status=None, error=None)
    try:
        trial.write(record)
        children.wait_for_lock(trial.directory, stopped)
        for stage in stages:
            if stage.name in record.done:
                continue
            if stopped():
                record = dataclasses.replace(record, status=STOPPED)
                break
            record = _run_stage(trial, stage, record, environment, stopped)
            if record.status != RUNNING:
                break
        else:
            record = dataclasses.replace(record, status=FINISHED)
        trial.write(record)
    except OSError as error:
        return dataclasses.replace(record, status=FAILED, error=f"{error.filename or 'disk'}: {error.strerror}")
    return record


def _run_stage(trial, stage, record, environment, stopped):
    command = [sys.executable, "-m", f"tf_pivae.{stage.module}", f"--run_dir={trial.directory}", *stage.arguments]
    if stage.module == "train":
        command.append(f"--gin_file={trial.directory / 'trial.gin'}")
    # A trial is a training of its own, also where the sweep is a task of a cluster's job.
    inherited = {name: value for name, value in children.environment().items() if name != "TF_CONFIG"}
    started = time.monotonic()
    with open(trial.directory / "output.log", "ab") as log:
        start = log.tell()
        status = _run(command, log, inherited | environment, stopped)
    seconds = round(record.seconds + time.monotonic() - started, 1)
    record = dataclasses.replace(record, exit_status=status, seconds=seconds)
    if status == 0:
        return dataclasses.replace(record, done=(*record.done, stage.name))
    if status in _STOPPED_BY:
        return dataclasses.replace(record, status=STOPPED)
    error = _last_error(trial.directory / "output.log", start)
    if status < 0:  # Usually by the system, for lack of memory.
        error = f"killed by {signal.Signals(-status).name}; {error}"
    return dataclasses.replace(record, status=FAILED, error=error)


def _run(command, log, environment, stopped):
    # A session of its own: Ctrl-C in the terminal reaches the sweep alone, which passes it on once.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    signalled = False
    try:
        while True:
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if stopped() and not signalled:
                    process.terminate()
                    signalled = True
    except KeyboardInterrupt:  # How Ray cancels a task.
        process.terminate()
        return process.wait()


def _last_error(path, start):
    """The last line of the log that reports an error, else the last line of all."""
    with open(path, "rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error: |[\w.]*(Error|Exception|Interrupt)\b)", line)]
    return (errors or lines or ["no output"])[-1].removeprefix("error: ")
