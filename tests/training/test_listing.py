"""The list of runs: what is said of each, and what is deleted."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

import tf_pivae
from tf_pivae.errors import UserError
from tf_pivae.runs import listing, pretrained


def make(path, step=4, num_steps="4", config="%num_steps", **files):
    """A run's records, as training leaves them."""
    (path / "checkpoints" / f"{step:08d}").mkdir(parents=True)
    (path / "config.gin").write_text(f"num_steps = {num_steps}\n\ntrain.num_steps = {config}\n")
    (path / "data.json").write_text("{}")
    lines = [{"step": step, "bits_per_dim": 9.0}, {"step": step, "held_out_bits_per_dim/K=1": 3.25}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_states_and_numbers(tmp_path):
    rows = [{"metric": "bits/dim, K=1", "value": 3.125}, {"metric": "FID", "value": 40.5}]
    make(tmp_path / "a", evaluation_json=json.dumps({"step": 4, "rows": rows}))
    make(tmp_path / "deep/b", step=2, config="7")
    make(tmp_path / "c", metrics_jsonl="garbage\n", data_json="{")
    (tmp_path / "d").mkdir()
    running = make(tmp_path / "e")
    with open(running / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = {run.path.relative_to(tmp_path).as_posix(): run for run in listing.find(tmp_path)}
    assert {name: run.state for name, run in results.items()} == {
        "a": "finished", "deep/b": "stopped", "c": "damaged", "e": "running"
    }  # fmt: skip
    assert (results["a"].bits_per_dim, results["a"].fid, results["a"].step, results["a"].num_steps) == (
        3.125,
        40.5,
        4,
        4,
    )
    assert (results["deep/b"].bits_per_dim, results["deep/b"].fid, results["deep/b"].num_steps) == (3.25, None, 7)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert results["a"].num_bytes == sum(path.stat().st_size for path in files)
    for path in files:
        os.utime(path, (1000.0, 1000.0))
    (entry,) = listing.find(tmp_path / "a")
    heading, line = listing.table([entry], now=1000.0 + 3 * 3600).splitlines()
    assert heading.split() == ["run", "state", "step", "bits/dim", "FID", "size", "age"]
    assert line.split()[1:] == ["finished", "4/4", "3.1250", "40.50", "0.0", "MB", "3", "h"]


def test_numbers_of_weights_that_were_trained_on_are_not_the_runs(tmp_path):
    rows = [{"metric": "bits/dim, K=1", "value": 3.125}, {"metric": "FID", "value": 40.5}]
    run = make(tmp_path / "a", step=8, evaluation_json=json.dumps({"step": 4, "rows": rows}))
    entry = listing.entry(run)
    assert (entry.bits_per_dim, entry.fid) == (3.25, None)
    (run / "best/00000004").mkdir(parents=True)  # Unless they are kept as the best.
    entry = listing.entry(run)
    assert (entry.bits_per_dim, entry.fid) == (3.125, 40.5)


def test_files_may_go_while_they_are_counted(tmp_path, monkeypatch):
    """The training beside it removes its oldest checkpoint."""
    oldest = make(tmp_path / "a") / "checkpoints/00000004"
    (oldest / "checkpoint.index").write_text("x")

    def gone_meanwhile(path, scandir=os.scandir):
        if str(path) == str(oldest):
            oldest.rename(tmp_path / "removed")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone_meanwhile)
    (run,) = listing.find(tmp_path)
    assert run.num_bytes == sum(path.stat().st_size for path in (tmp_path / "a").rglob("*") if path.is_file())


def test_a_real_one():
    (run,) = listing.find(pretrained.FOLDER / tf_pivae.pretrained()[0])
    evaluated = json.loads((run.path / "evaluation.json").read_text())
    assert (run.state, run.step, run.num_steps) == ("finished", evaluated["step"], evaluated["step"])
    assert run.bits_per_dim == evaluated["rows"][0]["value"]


def test_only_runs_are_deleted_and_all_or_none(tmp_path, monkeypatch):
    keep = make(tmp_path / "keep")
    gone = make(tmp_path / "gone")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "link").symlink_to(keep)
    for refused in (other, tmp_path / "missing", tmp_path / "link"):
        with pytest.raises(UserError, match="is not a run: nothing was deleted"):
            listing.delete([gone, refused])
    with open(keep / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="a process is training"):
            listing.delete([gone, keep])
    shutil.copytree(keep, gone / "deep/inner")
    with pytest.raises(UserError, match=f"{gone} has another run in it, {gone}/deep/inner: delete or move that first"):
        listing.delete([gone])
    shutil.rmtree(gone / "deep")
    assert gone.exists()
    assert [run.path for run in listing.delete([gone])] == [gone]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep", "link", "other"]
    monkeypatch.chdir(keep)
    assert len(listing.delete([".", keep])) == 1  # A run's other name is the same run.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "other"]


def test_a_number_that_no_float_holds_is_none(tmp_path):
    text = '{"step": 4, "rows": [{"metric": "bits/dim, K=1", "value": 1' + 400 * "0" + "}]}"
    make(tmp_path / "a", evaluation_json=text)
    (entry,) = listing.find(tmp_path)
    assert entry.bits_per_dim is None
    assert "finished" in listing.table([entry])


def test_the_command_needs_no_tensorflow(tmp_path):
    make(tmp_path / "runs/one")
    shutil.copytree(tmp_path / "runs/one", tmp_path / "runs/two")
    program = "import sys, runpy; sys.argv = sys.argv[1:]; sys.modules['tensorflow'] = None; "
    program += "runpy.run_module('tf_pivae.runs', run_name='__main__')"

    def run(*flags):
        command = [sys.executable, "-c", program, "runs", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    listed = run()
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["run", "runs/one", "runs/two"], listed.stderr
    assert run("--delete=runs/two").stdout.startswith("deleted runs/two (finished, step 4")
    assert not (tmp_path / "runs/two").exists()
    assert (
        run("--root=nowhere").stderr == "error: there is no folder nowhere: give the folder of the runs, --root=DIR.\n"
    )


def test_a_name_does_not_steer_the_terminal(tmp_path):
    make(tmp_path / "a\x1b[2J\nb")
    lines = listing.table(listing.find(tmp_path)).splitlines()
    assert len(lines) == 2
    assert r"a\x1b[2J\nb" in lines[1]
