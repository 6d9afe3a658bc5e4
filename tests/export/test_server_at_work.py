"""A server under load, with new versions, and at its end."""

import asyncio
import json
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest
import servers
from talking import connect, metric, same

from tf_pivae.errors import UserError
from tf_pivae.export.client import ServingError
from tf_pivae.export.serve.manager import ModelManager
from tf_pivae.export.serve.servable import Servable


def one_call(client, table, rng):
    """A random call of one to four rows: (found, its expected rows in each version's table)."""
    rows = rng.integers(64, size=rng.integers(1, 5))
    kind = rng.choice(["log_prob", "log_prob", "sample", "reconstruct", "encode", "decode", "image_bytes"])
    if kind == "log_prob":
        return client.log_prob(table.images[rows]).log_prob, lambda t: t.log_prob[rows]
    if kind == "image_bytes":
        return client.log_prob_of_files(list(table.files[rows])).bits_per_dim, lambda t: t.bits_per_dim[rows]
    if kind == "sample":
        return client.sample(table.seeds[rows]), lambda t: t.sampled[rows]
    if kind == "reconstruct":
        return client.reconstruct(table.images[rows]), lambda t: t.reconstructed[rows]
    if kind == "encode":
        return client.encode(table.images[rows])["top_down_0"], lambda t: t.latents["top_down_0"][rows]
    return client.decode({name: z[rows] for name, z in table.prior.items()}), lambda t: t.decoded[rows]


NUM_CLIENTS = 64
NUM_REQUESTS = 10_000


def test_load_with_a_new_version_in_the_middle(server, published, export_dir):
    tables = published.tables
    errors = []
    wrong = []
    answered = [0, 0]
    lock = threading.Lock()
    enough = threading.Event()
    count = iter(range(NUM_REQUESTS))
    shutil.copytree(published.folders[1], export_dir / ".partial")
    after = []  # set once the new version is known to answer

    def work(index):
        rng = np.random.default_rng(index)
        # Every eighth over REST, and no second attempts: an error is an error.
        with connect(server, "rest" if index % 8 == 0 else "grpc", max_attempts=1, timeout=120.0) as client:
            while True:
                with lock:
                    number = next(count, None)
                if number is None:
                    return
                if number == NUM_REQUESTS // 10:
                    enough.set()
                swapped = bool(after)
                try:
                    actual, expected = one_call(client, tables[0], rng)
                except Exception as error:  # Whatever it is, the test fails with it.
                    errors.append(error)
                    continue
                right = [same(actual, expected(table)) for table in tables]
                answered[1 if right[1] else 0] += 1
                if not any(right) or (swapped and not right[1]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=[index]) for index in range(NUM_CLIENTS)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    assert enough.wait(300)
    (export_dir / ".partial").rename(export_dir / "2")
    while metric(server, "pivae_model_version") != 2:
        time.sleep(0.05)
    after.append(True)
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    assert not errors, errors[:3]
    assert not wrong
    assert sum(answered) == NUM_REQUESTS
    assert min(answered) > NUM_REQUESTS // 20
    runs = sum(metric(server, "pivae_batch_rows_count", signature=name) for name in ("log_prob", "sample", "decode"))
    rows = sum(metric(server, "pivae_batch_rows_sum", signature=name) for name in ("log_prob", "sample", "decode"))
    print(f"{NUM_REQUESTS / seconds:.0f} requests/s, {rows / runs:.1f} rows a run, {answered} from the versions")
    assert rows > 3.5 * runs, "requests of 2.5 rows on average were hardly joined"


def test_a_broken_version_is_reported_and_the_old_one_answers_on(server, published, export_dir):
    (export_dir / "9").mkdir()
    (export_dir / "9" / "saved_model.pb").write_bytes(b"nonsense")
    deadline = time.monotonic() + 60
    states = {}
    while states.get("9") != "END" and time.monotonic() < deadline:
        with urllib.request.urlopen(server.url + "/v1/models/pivae") as response:
            statuses = json.load(response)["model_version_status"]
        states = {status["version"]: status["state"] for status in statuses}
        time.sleep(0.05)
    assert states["9"] == "END"
    assert list(states.values()).count("AVAILABLE") == 1
    with connect(server, "grpc") as client:
        assert client.sample([1]).shape == (1, 4, 4, 1)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_sigterm_drains(published, tmp_path, protocol):
    """Requests that wait for their batch when the signal comes are answered; then the server is gone, with status 0."""
    shutil.copytree(published.folders[0], tmp_path / "1")
    with servers.development(tmp_path, "--batch_timeout_micros=3000000") as server:
        answers = []
        clients = [connect(server, protocol, max_attempts=1) for _ in range(5)]

        def ask(client):
            answers.append(client.sample(published.tables[0].seeds[:2]))

        threads = [threading.Thread(target=ask, args=[client]) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(1.5)  # Long enough to arrive, too short for the batch to be run.
        assert not answers
        server.process.terminate()
        time.sleep(0.5)
        with pytest.raises(ServingError) as error:
            connect(server, protocol, max_attempts=1, timeout=5.0)
        assert error.value.code == "UNAVAILABLE"
        for thread in threads:
            thread.join()
        assert len(answers) == 5
        assert all(same(answer, published.tables[0].sampled[:2]) for answer in answers)
        assert server.process.wait(30) == 0
        assert server.process.stdout.read().split() == ["draining", "stopped"]


def test_a_port_that_is_taken_is_a_mistake_in_one_line(run_command, published, server):
    flags = f"--export_dir={published.folders[0].parent}", f"--grpc_port={server.address.split(':')[1]}"
    result = run_command("export.serve", *flags)
    assert result.returncode == 2
    assert "choose another --grpc_port" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("content", ["nothing", "no version", "no model"])
def test_a_folder_without_a_model_is_a_users_mistake(tmp_path, content):
    folder = tmp_path / "exports"
    if content != "nothing":
        (folder / ("text" if content == "no version" else "3")).mkdir(parents=True)
    message = {"nothing": "cannot read", "no version": "python -m tf_pivae.export", "no model": "version 3: cannot be"}
    with pytest.raises(UserError, match=message[content]):
        asyncio.run(ModelManager(folder, Servable, make_batcher=None).start())
