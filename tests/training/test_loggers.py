"""Where a run's numbers go: a logger of one's own, one that fails, and MLflow with its real server."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import gin
import numpy as np
import pytest

from tf_pivae import loading
from tf_pivae.configurable import configurable
from tf_pivae.errors import UserError
from tf_pivae.training import loop, recorder
from tf_pivae.training.loggers import JsonlLogger, Logger
from tf_pivae.training.recipe import Recipe

PAGE = Path(__file__).resolve().parents[2] / "docs/guides/extending.md"
PLAIN = Path(__file__).resolve().parents[1] / "sweeps/plain.gin"


@configurable
class RememberingLogger(Logger):
    """Keeps everything, and may fail."""

    made: ClassVar[list["RememberingLogger"]] = []

    def __init__(self, run_dir: Path, start_step: int, fails_at: int | None = None) -> None:
        if fails_at == 0:
            raise ConnectionError("no server at all\nand more")
        self.start_step = start_step
        self.fails_at = fails_at
        self.lines = []
        self.closed = False
        self.made.append(self)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server is gone\nand more")
        self.lines.append({"step": step, **values})

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self.lines.append({"step": step, name: picture.shape})

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A function (*bindings) that trains four steps without the pictures at the end; returns the run's folder."""
    RememberingLogger.made.clear()
    monkeypatch.setattr(recorder.Recorder, "draw_final_pictures", lambda *_: None)

    def train(*bindings: str) -> Path:
        steps = "num_steps=4", "train.log_every=1", "train.eval_examples=0", "train.checkpoint_every=2"
        loading.parse_gin([str(PLAIN)], [*steps, *bindings])
        loop.train(Recipe(), tmp_path / "run")
        return tmp_path / "run"

    yield train
    gin.clear_config()


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_logger_of_ones_own(train):
    """It gets what metrics.jsonl gets, pictures, and the end; TensorBoard is left out."""
    run_dir = train("train.loggers=(@JsonlLogger, @RememberingLogger)", "train.sample_every=3")
    (logger,) = RememberingLogger.made
    assert [line for line in logger.lines if "samples" not in line] == records(run_dir)
    assert [line["step"] for line in logger.lines] == [1, 2, 3, 3, 4]
    (picture,) = [line["samples"] for line in logger.lines if "samples" in line]
    assert picture[2] == 3
    assert logger.closed
    assert not (run_dir / "tensorboard").exists()


def test_one_that_fails_on_the_way_is_left_out(train, capsys):
    run_dir = train("train.loggers=(@RememberingLogger, @JsonlLogger)", "RememberingLogger.fails_at=2")
    assert [line["step"] for line in records(run_dir)] == [1, 2, 3, 4]
    assert [line["step"] for line in RememberingLogger.made[0].lines] == [1]
    lines = [line for line in capsys.readouterr().out.splitlines() if "RememberingLogger" in line]
    reason = "RememberingLogger gets nothing from step 2 on until the run is started again: the server is gone."
    assert lines == [reason]


def test_one_that_cannot_be_made_is_one_line(train):
    with pytest.raises(UserError, match=r"^train\.loggers: RememberingLogger: ConnectionError: no server at all\.$"):
        train("train.loggers=(@RememberingLogger, @JsonlLogger)", "RememberingLogger.fails_at=0")


def test_the_best_checkpoint_needs_the_record(train):
    bindings = "train.validation=@Validation", "Validation.every=1", "Validation.examples=4"
    with pytest.raises(UserError, match=r"add @JsonlLogger to train\.loggers"):
        train("train.loggers=(@RememberingLogger,)", *bindings, "num_steps=10_000_000")  # Before the first step.


def test_what_a_run_does_again_is_dropped(tmp_path):
    logger = JsonlLogger(tmp_path, 0)
    for step in (1, 2, 3):
        logger.scalars(step, {"loss": float(step)})
    logger.scalars(3, {"evaluation_seconds": 1.0, "bits": float("nan")})
    assert records(tmp_path)[-1]["bits"] is None
    JsonlLogger(tmp_path, 3)
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 3]
    JsonlLogger(tmp_path, 1)
    assert [line["step"] for line in records(tmp_path)] == [1]


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow's own tracking server on a free port, its data in a folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
    environment = {**os.environ, "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        patience = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                assert answer.read() == b"OK"
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < patience
            time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_mlflow_gets_every_number_once(tmp_path, run_command):
    """The page's class, by the page's command: an interrupted run repeats nothing; what MLflow says is the record."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("flask", reason="MLflow's server is in the extra mlflow-server")
    for name, text in re.findall(r"```\w+ file=(track\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(text)
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow") as address:
        command = ["train", "--import=tracking", f"--gin_file={PLAIN}", "--run_dir=runs/tracked"]
        command += ["--gin_param=train.loggers=(@JsonlLogger, @TensorBoardLogger, @MlflowLogger)"]
        command += [f"--gin_param=MlflowLogger.tracking_uri={address!r}", "--gin_param=train.sample_every=4"]
        command += ["--gin_param=num_steps=8", "--gin_param=train.log_every=2", "--gin_param=train.checkpoint_every=4"]
        options = dict(cwd=tmp_path, env={"DO_NOT_TRACK": "true"})
        assert run_command(*command, **options).returncode == 0
        run_dir = tmp_path / "runs/tracked"
        for file in (run_dir / "checkpoints/00000008").iterdir():  # As if it had been killed on the way to step 8.
            file.unlink()
        (run_dir / "checkpoints/00000008").rmdir()
        again = run_command(*command, **options)
        assert again.returncode == 0, again.stderr
        client = mlflow.MlflowClient(address)
        (result,) = client.search_runs([client.get_experiment_by_name("tf_pivae").experiment_id])
        assert (result.info.run_name, result.info.status) == ("tracked", "FINISHED")
        lines = records(run_dir)
        names = {name for line in records(run_dir) for name in line} - {"step"}
        assert {name.replace("=", "_") for name in names} == set(result.data.metrics)
        for name in names - {"images_per_second", "evaluation_seconds"}:
            history = client.get_metric_history(result.info.run_id, name.replace("=", "_"))
            assert sorted((m.step, m.value) for m in history) == [
                (line["step"], line[name]) for line in lines if name in line
            ]
        pictures = [file.path for file in client.list_artifacts(result.info.run_id, "samples")]
        assert sorted(pictures) == ["samples/000004.png", "samples/000008.png"]
    options["env"] |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    gone = run_command(*command, "--gin_param=num_steps=10", **options)
    assert gone.returncode == 2
    assert [line for line in gone.stderr.splitlines() if line.startswith("error: train.loggers: MlflowLogger: ")]
    assert not (run_dir / "checkpoints/00000010").exists()
