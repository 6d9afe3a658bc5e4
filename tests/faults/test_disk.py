"""A full disk and a read-only one: one line that says so, the last good checkpoint intact, and on afterwards."""

import fcntl
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from in_process import checkpoint_steps, train
from killing import curves, read_metrics, state_bytes
from PIL import Image

from tf_pivae import cli, figures
from tf_pivae.errors import UserError
from tf_pivae.export.versions import new_version
from tf_pivae.files import place_folder, write_atomically
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.directory import RunDirectory
from tf_pivae.training.loggers import JsonlLogger, TensorBoardLogger
from tf_pivae.training.monitor import Monitor

FULL = "No space left on device; make room, then run the same command again."
READ_ONLY = "Read-only file system; choose a folder that can be written, or change its permissions."


def line_of(action):
    """What a command prints of the exception that `action` raises; None would be a traceback."""
    with pytest.raises((UserError, OSError, tf.errors.OpError)) as error:
        action()
    line = cli.one_line(error.value)
    assert line is not None
    assert "\n" not in line
    return line


def save(folder, value):
    Checkpoints(folder / "checkpoints").save(value, {"model": [keras.Variable(np.full(100_000, value, np.float32))]})


def write_samples(folder, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, [100, 100, 3], np.uint8)  # Noise does not compress.
    figures.save_png(Image.fromarray(pixels), folder / "000001.png")


def write_evaluation(folder, value):
    write_atomically(folder / "evaluation.json", json.dumps({"rows": [value] * 20_000}))


def export(folder, value):
    module = tf.Module()
    module.weights = tf.Variable(tf.fill([100_000], float(value)))
    with new_version(folder / "exports") as publication:
        tf.saved_model.save(module, str(publication.folder))


WRITERS = {
    "checkpoint": (save, "checkpoints/00000001"),
    "samples": (write_samples, "000001.png"),
    "evaluation": (write_evaluation, "evaluation.json"),
    "export": (export, "exports/1"),
}


def contents(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file): file.read_bytes() for file in files}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_whole_or_not_at_all(disk, writer):
    """Full: one line, what was there is intact, nothing half-written lies about, and the next try succeeds."""
    write, first = WRITERS[writer]
    write(disk.path, 1)
    before = contents(disk.path / first)
    assert before
    disk.fill()
    assert FULL in line_of(lambda: write(disk.path, 2))
    assert contents(disk.path / first) == before
    assert not [path for path in disk.path.rglob("*") if "partial" in path.name]
    disk.make_room()
    write(disk.path, 2)
    newest = {"checkpoint": "checkpoints/00000002", "export": "exports/2"}.get(writer, first)
    assert contents(disk.path / newest) != before
    disk.make_read_only()
    earlier = contents(disk.path)
    assert READ_ONLY in line_of(lambda: write(disk.path, 3))
    assert contents(disk.path) == earlier


def test_metrics(disk):
    """They are appended to: the next start drops the half line that did fit, and goes on."""
    monitor = Monitor([JsonlLogger(disk.path, 0)], 0, 10, 8)
    monitor.report(1, {"loss": 1.0})
    disk.fill()
    line = line_of(lambda: [monitor.report(step, {f"loss/{i}": 1.0 for i in range(200)}) for step in range(2, 9)])
    assert line == f"cannot write {disk.path}/metrics.jsonl: {FULL}"
    written = (disk.path / "metrics.jsonl").read_text()
    assert len(written) % 4096 == 0  # Up to the last byte of what it had of the disk.
    assert not written.endswith("\n")
    disk.make_room()
    again = Monitor([JsonlLogger(disk.path, 1)], 1, 10, 8)
    again.report(2, {"loss": 2.0})
    assert [line["loss"] for line in read_metrics(disk.path)] == [1.0, 2.0]


def test_tensorboard(disk):
    """TensorFlow's own writer is heard of too."""
    monitor = Monitor([TensorBoardLogger(disk.path, 0)], 0, 10, 8)
    disk.fill()
    line = line_of(lambda: [monitor.report(step, {f"loss/{i}": 1.0 for i in range(200)}) for step in range(1, 9)])
    assert line.startswith(f"cannot use {disk.path}/tensorboard/events")
    assert line.endswith(FULL)


def test_a_training_on_a_disk_that_fills_up_and_is_given_room(disk, tmp_path):
    train(tmp_path / "undisturbed")

    def after(step, state):
        if step == 3:  # The next checkpoint is due one step later.
            disk.fill()

    assert FULL in line_of(lambda: train(disk.path / "run", after_step=after))
    assert checkpoint_steps(disk.path / "run") == [2]
    before = state_bytes(disk.path / "run", 2)
    assert FULL in line_of(lambda: train(disk.path / "run"))  # Still full.
    assert state_bytes(disk.path / "run", 2) == before
    disk.make_room()
    train(disk.path / "run")
    assert state_bytes(disk.path / "run", 8) == state_bytes(tmp_path / "undisturbed", 8)
    assert curves(disk.path / "run") == curves(tmp_path / "undisturbed")


def test_a_run_directory_that_has_become_read_only(disk):
    train(disk.path / "run", num_steps=4)
    before = contents(disk.path)
    disk.make_read_only()
    assert line_of(lambda: train(disk.path / "run", num_steps=4)) == (
        f"cannot use {disk.path}/run as a run directory: {disk.path}/run/lock: Read-only file system; "
        "choose another --run_dir."
    )
    assert contents(disk.path) == before


def test_a_locked_run_directory_is_refused_whatever_its_dates(tmp_path):
    owner = RunDirectory(tmp_path / "run")
    for date in (0, 4.2e9):
        os.utime(tmp_path / "run" / "lock", (date, date))
        with pytest.raises(UserError, match="another process is training"):
            RunDirectory(tmp_path / "run")
    owner.close()
    RunDirectory(tmp_path / "run").close()


def test_a_refused_training_leaves_no_folder(tmp_path):
    """But what was there before stays, and so does a run."""
    (tmp_path / "there").mkdir()
    for run_dir in (tmp_path / "sweep" / "run", tmp_path / "there"):
        RunDirectory(run_dir).close()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    for name in ("config.gin", "samples/000001.png"):
        owner = RunDirectory(tmp_path / "run")
        (tmp_path / "run" / name).touch()
        owner.close()
        assert (tmp_path / "run" / name).exists()
        (tmp_path / "run" / name).unlink()


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Else two trainings could hold the same folder, by two files of that name."""
    first = RunDirectory(tmp_path / "run")
    monkeypatch.setattr(fcntl, "flock", lambda *_: first.close())
    with pytest.raises(UserError, match="another process is training"):
        RunDirectory(tmp_path / "run")


def test_the_command_ends_with_status_2_and_one_line(disk, tiny, run_command):
    disk.make_read_only()
    result = run_command("train", f"--gin_file={tiny}", f"--run_dir={disk.path}/run")
    assert result.returncode == 2
    line = f"error: cannot use {disk.path}/run as a run directory: {disk.path}/run: Read-only"
    assert result.stderr.splitlines()[-1].startswith(line)
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("other", ["folder", "file"])
def test_a_finished_folder_takes_the_place_of_nothing_else(tmp_path, other):
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "a").write_text("new")
    place = tmp_path / "place"
    old = place
    if other == "folder":
        place.mkdir()
        old = place / "a"
    old.write_text("old")
    with pytest.raises(FileExistsError, match="place"):
        place_folder(partial, place)
    assert ((partial / "a").read_text(), old.read_text()) == ("new", "old")
    place_folder(partial, tmp_path / "free")
    assert (tmp_path / "free/a").read_text() == "new"
    assert not partial.exists()
