"""Trials on a Ray cluster: a local one, of this machine."""

import csv
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tf_pivae.errors import UserError
from tf_pivae.sweep import launch
from tf_pivae.sweep.command import SOME_FAILED

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'tf-pivae[ray]'", allow_module_level=True)


@pytest.mark.slow
def test_trials_run_stop_and_go_on_as_tasks(tmp_path, run_command, plain):
    sweep_dir = tmp_path / "sweep"
    arguments = [f"--gin_file={plain}", f"--sweep_dir={sweep_dir}", "--launcher=ray", "--max_parallel=2"]
    arguments += ["--sweep=likelihood_weight=1.0,0.0", "--gin_param=num_steps=600", "--gin_param=train.log_every=100"]
    good, bad = (sweep_dir / f"Trainer.likelihood_weight={weight}" for weight in ("1.0", "0.0"))
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_pivae.sweep", *arguments, "--cpus_per_trial=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not ((good / "metrics.jsonl").exists() and (good / "metrics.jsonl").stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert json.loads((good / "trial.json").read_text())["status"] == "stopped"
    (saved,) = (good / "checkpoints").iterdir()
    assert 100 <= int(saved.name) < 600

    result = run_command("sweep", *arguments)
    assert result.returncode == SOME_FAILED, result.stderr
    with open(sweep_dir / "results.csv", newline="") as file:
        rows = {row["Trainer.likelihood_weight"]: row for row in csv.DictReader(file)}
    assert (rows["1.0"]["status"], rows["1.0"]["step"]) == ("finished", "600")
    assert (rows["0.0"]["status"], rows["0.0"]["exit_status"]) == ("failed", "2")
    assert "nothing to train" in rows["0.0"]["error"]
    steps = [json.loads(line)["step"] for line in (good / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(100, 601, 100), 600]  # and the held-out bits/dim
    assert "nothing to train" in (bad / "output.log").read_text()


def test_clusters_that_cannot_serve_are_refused_in_a_line():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]  # nobody listens
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            with pytest.raises(UserError, match=r"no Ray cluster at .*refused"):
                launch.RayLauncher(1, address=address)
    with pytest.raises(UserError, match="no machine of the Ray cluster has 1000 CPUs and 0 GPUs"):
        launch.RayLauncher(1, num_cpus=1000)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
