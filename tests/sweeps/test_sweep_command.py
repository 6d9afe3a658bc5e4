"""The sweep command as a user runs it: whole, interrupted, killed, and with mistakes."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import forking
import numpy as np
import pytest
from PIL import Image

from tf_pivae.errors import UserError
from tf_pivae.sweep import command
from tf_pivae.sweep.plan import plan
from tf_pivae.sweep.space import parse_axis


def rows(sweep_dir):
    with open(sweep_dir / "results.csv", newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


def test_a_mistake_is_all_that_is_said(tmp_path, run_command, plain):
    result = run_command("sweep", f"--gin_file={plain}", f"--sweep_dir={tmp_path / 'sweep'}", "--sweep=nosuch=1")
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, run_command, plain):
    """A sweep of three trials, one of which fails: its folder, its arguments, and what the command printed."""
    sweep_dir = tmp_path_factory.mktemp("sweeps") / "sweep"
    arguments = [f"--gin_file={plain}", f"--sweep_dir={sweep_dir}", "--max_parallel=2", "--metrics=bits_per_dim"]
    arguments += ["--sweep=learning_rate=1e-3", "--sweep=likelihood_weight=1.0,2.0,0.0"]
    return sweep_dir, arguments, run_command("sweep", *arguments)


def sweep(gin_files, gin_params, axes, **options):
    """The function behind the command, whose other flags are at their defaults."""
    defaults = dict(mode="grid", num_trials=None, sweep_seed=0, max_parallel=1, metrics=(), launcher="local")
    return command.sweep(
        gin_files,
        gin_params,
        axes,
        **{**defaults, **options},
        cpus_per_trial=None,
        gpus_per_trial=0,
        ray_address=None,
        flags=(),
    )


GOOD = [f"Trainer.learning_rate=0.001,Trainer.likelihood_weight={weight}" for weight in ("1.0", "2.0")]
BAD = "Trainer.learning_rate=0.001,Trainer.likelihood_weight=0.0"


def test_a_sweep_trains_evaluates_and_records(swept):
    sweep_dir, _, result = swept
    assert result.returncode == command.SOME_FAILED, result.stderr
    assert "Traceback" not in result.stderr
    assert f"failed: {BAD} (exit status 2): the model cannot be built" in result.stdout
    assert f"{max(1, len(os.sched_getaffinity(0)) // 2)} threads each" in result.stdout
    table = rows(sweep_dir)
    assert sorted(table) == sorted([*GOOD, BAD])
    for name in GOOD:
        row = table[name]
        lines = (sweep_dir / name / "metrics.jsonl").read_text().splitlines()
        assert (row["status"], row["exit_status"], row["step"], row["error"]) == ("finished", "0", "4", "")
        report = json.loads(lines[-2])
        held_out = json.loads(lines[-1])
        assert float(row["bits_per_dim"]) == held_out["held_out_bits_per_dim/K=1"]
        assert float(row["bits_per_dim_standard_error"]) == held_out["held_out_standard_error/K=1"] > 0
        assert float(row["train/bits_per_dim"]) == report["bits_per_dim"]
        evaluated = json.loads((sweep_dir / name / "evaluation.json").read_text())["rows"][0]
        assert float(row["evaluation/bits/dim, K=1"]) == evaluated["value"]
        assert float(row["evaluation/bits/dim, K=1 +-"]) == evaluated["spread"]
        assert float(row["seconds"]) > 1
        weight = row["Trainer.likelihood_weight"]
        assert f"Trainer.likelihood_weight = {weight}\n" in (Path(row["run_dir"]) / "config.gin").read_text()
    assert (table[BAD]["status"], table[BAD]["exit_status"]) == ("failed", "2")
    assert "nothing to train" in table[BAD]["error"]
    assert np.asarray(Image.open(sweep_dir / "sweep.png")).std() > 0
    assert list(sweep_dir.glob("*.hparams"))


def test_finished_trials_are_not_run_again_and_failed_ones_are(swept, run_command):
    sweep_dir, arguments, _ = swept
    before = {name: (sweep_dir / name / "output.log").stat() for name in [*GOOD, BAD]}
    result = run_command("sweep", *arguments[::-1])
    assert result.returncode == command.SOME_FAILED, result.stderr
    assert f"{BAD}: running" in result.stdout
    assert not any(f"{name}: running" in result.stdout for name in GOOD)
    for name in GOOD:
        after = (sweep_dir / name / "output.log").stat()
        assert (after.st_mtime_ns, after.st_size) == (before[name].st_mtime_ns, before[name].st_size)
    assert (sweep_dir / BAD / "output.log").stat().st_size == 2 * before[BAD].st_size
    assert len(rows(sweep_dir)) == 3


def test_a_folder_belongs_to_one_configuration_and_one_sweep(swept, plain):
    sweep_dir, _, _ = swept
    axes = ["learning_rate=1e-3", "likelihood_weight=1.0"]
    with pytest.raises(UserError, match="was made with other --gin_file or --gin_param"):
        sweep([plain], ["Trainer.beta_1=0.5"], axes, sweep_dir=sweep_dir)
    with pytest.raises(UserError, match="was made with other --gin_file or --gin_param"):  # A new trial in their table.
        sweep([plain], ["Trainer.beta_1=0.5"], ["learning_rate=0.1", "likelihood_weight=1.0"], sweep_dir=sweep_dir)
    before = rows(sweep_dir)
    with pytest.raises(UserError, match=r"holds a sweep over .*likelihood_weight.*: choose another --sweep_dir"):
        sweep([plain], [], ["seed=0"], sweep_dir=sweep_dir)
    assert rows(sweep_dir) == before
    assert not (sweep_dir / "seed=0").exists()
    import fcntl

    with open(sweep_dir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another sweep is running"):
            sweep([plain], [], ["seed=0"], sweep_dir=sweep_dir)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "nothing to sweep: give --sweep"),
        ({"axes": ["seed=0"], "sweep_dir": None}, "give --sweep_dir=DIR"),
        ({"axes": ["sede=0,1"]}, "did you mean seed"),
        ({"axes": ["Trainer.learning_rat=0.1"]}, "Trainer has no parameter 'learning_rat'; did you mean learning_rate"),
        ({"axes": ["Trianer.learning_rate=0.1"]}, "no configurable named 'Trianer'; did you mean Trainer"),
        ({"axes": ["train.dataset=@bundled,@bundld"]}, "no configurable named 'bundld'; did you mean bundled"),
        ({"axes": ["learning_rate=0.1", "Trainer.learning_rate=0.2"]}, "Trainer.learning_rate is swept twice"),
        ({"axes": ["plain_vae.top_channels=1,2"]}, "no trial uses plain_vae.top_channels"),
        ({"axes": ["seed=0,(1"]}, "the configuration cannot be read"),
        ({"axes": ["learning_rate=log(1e-4,1e-2)"]}, "--mode=random"),
        ({"axes": ["seed=0,1"], "num_trials": 3}, "--num_trials belongs to --mode=random"),
        ({"axes": ["learning_rate=log(1e-4,1e-2)"], "mode": "random"}, "--mode=random needs --num_trials"),
        ({"axes": ["seed=0,1"], "metrics": ["fdi"]}, "unknown metric 'fdi'"),
    ],
)
def test_mistakes_are_found_before_the_first_trial_starts(arguments, expected, tmp_path, plain):
    options = {"axes": [], "sweep_dir": tmp_path / "sweep", **arguments}
    with pytest.raises(UserError, match=expected) as caught:
        sweep([plain], [], options.pop("axes"), **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("sweep/*/*"))


def test_random_trials_are_planned_from_the_seed(tmp_path, plain):
    axes = [parse_axis("learning_rate=log(1e-4,1e-2)"), parse_axis("stem_width=int(2,8)")]
    trials = plan([plain], [], axes, "random", 4, 0, tmp_path)
    assert [num_steps for _, num_steps in trials.values()] == [4] * 4
    for trial, (text, _) in trials.items():
        settings = dict(trial.settings)
        assert f"learning_rate = {settings['Trainer.learning_rate']}\n" in text
        assert f"stem_width = {settings['residual_vae.stem_width']}\n" in text
    assert list(plan([plain], [], axes[::-1], "random", 4, 0, tmp_path)) == list(trials)


def start(arguments):
    return forking.Popen("sweep", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_metrics(run_dir):
    path = run_dir / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def steps(run_dir):
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_stopped_and_killed_sweeps_go_on(tmp_path, run_command, plain):
    """SIGTERM: the running trials save. SIGKILL: what it leaves behind is waited for. Then every step is there once."""
    sweep_dir = tmp_path / "sweep"
    arguments = [f"--gin_file={plain}", f"--sweep_dir={sweep_dir}", "--max_parallel=2", "--sweep=seed=0,1"]
    arguments += ["--gin_param=num_steps=300", "--gin_param=train.log_every=10", "--gin_param=train.eval_examples=0"]
    runs = [sweep_dir / "seed=0", sweep_dir / "seed=1"]
    process = start(arguments)
    wait_for(lambda: any(map(has_metrics, runs)), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "2 stopped" in output
    trained = [run for run in runs if has_metrics(run)]  # The other may not have begun.
    for run in runs:
        assert json.loads((run / "trial.json").read_text())["status"] == "stopped"
    for run in trained:
        (saved,) = (run / "checkpoints").iterdir()
        assert 10 <= int(saved.name) < 300
        assert "stopped by SIGTERM" in (run / "output.log").read_text()
    reached = {run: steps(run)[-1] for run in trained}

    process = start(arguments)
    wait_for(lambda: any(has_metrics(run) and steps(run)[-1] > reached.get(run, 0) for run in runs), process)
    process.kill()
    process.wait()
    result = run_command("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    assert "2 finished" in result.stdout
    for run in runs:
        assert steps(run) == list(range(10, 301, 10))
