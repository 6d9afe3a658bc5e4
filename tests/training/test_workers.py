"""Two worker processes on the loopback: the training of one process, and nothing lost when one of them is."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forking
import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.training.workers import num_workers

STEPS = 20
PARAMETERS = (f"num_steps={STEPS}", "train.log_every=1", "train.checkpoint_every=8", "train.sample_every=0")
SMALLER = ("residual_vae.widths=(8,)", "plain_critic.widths=(8,)", "RealNVP.num_couplings=1")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(folder, tiny, workers, parameters=(*PARAMETERS, *SMALLER)):
    """Starts so many workers; worker i's run directory is FOLDER/i, of which only the chief's should come to be."""
    settings = [f"--gin_file={tiny}", *(f"--gin_param={p}" for p in parameters)]
    arguments = [[folder / f"weights-{i}.npz", *settings, f"--run_dir={folder / str(i)}"] for i in range(workers)]
    return start_scripts(folder, "worker.py", arguments)


def start_scripts(folder, script, arguments):
    """Starts a worker for each list of arguments."""
    addresses = [f"localhost:{port}" for port in free_ports(len(arguments))]
    processes = []
    for i, own in enumerate(arguments):
        environment = dict(os.environ)
        if len(arguments) > 1:
            task = {"type": "worker", "index": i}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        log = open(folder / f"log-{i}", "w")  # noqa: SIM115
        command = [Path(__file__).parent / script, *own]
        processes.append(forking.Popen(*command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    return processes


def wait(processes, folder, statuses):
    for i, (process, status) in enumerate(zip(processes, statuses, strict=True)):
        try:
            assert process.wait(timeout=240) == status, (folder / f"log-{i}").read_text()
        finally:
            if process.poll() is None:
                for other in processes:
                    other.kill()


def curves(folder):
    lines = [json.loads(line) for line in (folder / "0" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "critic_loss" in line]


def weights(folder, worker):
    with np.load(folder / f"weights-{worker}.npz") as arrays:
        return dict(arrays)


def assert_bitwise(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny):
    """Two workers' run from beginning to end."""
    folder = tmp_path_factory.mktemp("two")
    wait(start(folder, tiny, 2), folder, [0, 0])
    return folder


def test_two_workers_train_as_one_process(undisturbed, tmp_path, tiny):
    wait(start(tmp_path, tiny, 1), tmp_path, [0])
    one = curves(tmp_path)
    two = curves(undisturbed)
    assert [line["step"] for line in two] == list(range(1, STEPS + 1))
    for a, b in zip(one, two, strict=True):
        for name in a.keys() - {"images_per_second"}:
            assert b[name] == pytest.approx(a[name], rel=2e-3, abs=2e-3), (a["step"], name)
    for name, value in weights(tmp_path, 0).items():
        np.testing.assert_allclose(weights(undisturbed, 0)[name], value, rtol=0.05, atol=5e-3, err_msg=name)


def test_all_workers_have_the_same_weights_and_only_the_chief_writes(undisturbed):
    chief = weights(undisturbed, 0)
    other = weights(undisturbed, 1)
    assert int(chief["step"]) == STEPS
    assert_bitwise(chief, other)
    assert (undisturbed / "0" / "samples.png").exists()
    assert not (undisturbed / "1").exists()


def test_only_who_leaves_before_all_have_come_to_the_end_is_lost(tmp_path):
    leaves = {"between": 1, "before": 0}
    for name in leaves:
        (tmp_path / name).mkdir()
    # At once, since TensorFlow takes ten seconds to give a connection up.
    pairs = {name: start_scripts(tmp_path / name, "ending_worker.py", [[2], [n]]) for name, n in leaves.items()}
    try:
        wait(pairs["between"], tmp_path / "between", [0, 0])
    finally:
        wait(pairs["before"], tmp_path / "before", [1, 0])
    assert "tf_pivae.errors.WorkerLost: another worker is gone" in (tmp_path / "before" / "log-0").read_text()


@pytest.mark.slow  # Four trainings by itself.
def test_ctrl_c_ends_a_worker_that_waits_for_others(tmp_path, tiny):
    port, other = free_ports(2)
    cluster = {"worker": [f"localhost:{other}", f"localhost:{port}"]}
    environment = os.environ | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}})}
    command = [sys.executable, "-m", "tf_pivae.train", f"--gin_file={tiny}", f"--run_dir={tmp_path / 'run'}"]
    # As a terminal starts it: a shell's background, where these tests may run, has SIGINT ignored.
    streams = dict(env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=_restore_interrupt)
    with subprocess.Popen(command, **streams) as waiting:
        try:
            assert waiting.stdout.readline() == "waiting for all 2 workers of TF_CONFIG\n"
            time.sleep(2.0)  # Now it waits in TensorFlow, where Python handles no signals.
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(timeout=60) == -signal.SIGINT
        finally:
            waiting.kill()
    assert not (tmp_path / "run").exists()


def _restore_interrupt():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_killed_worker_ends_the_others_and_all_go_on(undisturbed, tmp_path, tiny):
    processes = start(tmp_path, tiny, 2)
    checkpoints = tmp_path / "0" / "checkpoints"
    while processes[1].poll() is None and not (checkpoints / "00000008").exists():
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    wait(processes, tmp_path, [75, -signal.SIGKILL])
    errors = [line for line in (tmp_path / "log-0").read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "another worker is gone" in errors[0]
    assert "Traceback" not in (tmp_path / "log-0").read_text()
    wait(start(tmp_path, tiny, 2), tmp_path, [0, 0])
    for worker in (0, 1):
        assert_bitwise(weights(undisturbed, worker), weights(tmp_path, worker))


def test_a_signal_to_one_worker_stops_all_at_the_same_step(tmp_path, plain):
    processes = start(tmp_path, plain, 2, ("num_steps=100000", *PARAMETERS[1:]))
    while processes[1].poll() is None and not (tmp_path / "weights-1.npz").exists():
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    wait(processes, tmp_path, [143, 143])
    chief = weights(tmp_path, 0)
    other = weights(tmp_path, 1)
    assert int(chief["step"]) == int(other["step"])
    assert int(chief["step"]) % 20 == 0
    assert_bitwise(chief, other)
    assert "saved at step" in (tmp_path / "log-0").read_text()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("{}", 1),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', 1),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}', 2),
        ('{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": "1"}}', 3),
    ],
)
def test_workers_of_a_tf_config(text, count):
    assert num_workers(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "first"}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0.5}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:99999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1,b:1"}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_one_line(text):
    with pytest.raises(UserError, match="TF_CONFIG") as error:
        num_workers(text)
    assert "\n" not in str(error.value)
