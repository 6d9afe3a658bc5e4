"""The clients against servers; one development server for all tests of the file but that of its end."""

import asyncio
import base64
import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import servers
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc, predict_pb2

from tf_pivae.errors import UserError
from tf_pivae.export.client import GrpcClient, RestClient, ServingError
from tf_pivae.export.manager import ModelManager

MAX_BYTES = 500_000
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def export_dir(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    shutil.copytree(published.folders[0], folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(export_dir):
    with servers.development(export_dir, f"--max_message_bytes={MAX_BYTES}") as server:
        yield server


def connect(server, protocol, **options):
    if protocol == "grpc":
        return GrpcClient(server.address, **options)
    return RestClient(server.url, **options)


def same(found, expected):
    """Within the rounding of the contract: one grey level, 1e-5."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if found.dtype == np.uint8:
        return np.abs(found.astype(int) - expected).max() <= 1
    return np.allclose(found, expected, rtol=1e-5, atol=1e-5)


# The answers, from whatever server there is.


@pytest.fixture(scope="module", params=servers.SERVERS)
def any_server(request, export_dir):
    if request.param == "development":
        yield request.getfixturevalue("server")
    else:
        with servers.SERVERS[request.param](export_dir) as server:
            yield server


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_client_gets_the_models_rows(any_server, published, protocol):
    table = published.tables[0]
    with connect(any_server, protocol, batch_size=50) as client:  # Two requests for 64 rows.
        for found in (client.log_prob(table.images), client.log_prob_of_files(list(table.files))):
            assert same(found.log_prob, table.log_prob)
            assert same(found.bits_per_dim, table.bits_per_dim)
        assert same(client.sample(table.seeds), table.sampled)
        assert same(client.reconstruct(table.images), table.reconstructed)
        latents = client.encode(table.images)
        assert set(latents) == set(table.latents)
        assert all(same(latents[name], table.latents[name]) for name in latents)
        assert same(client.decode(table.prior), table.decoded)
        with pytest.raises(ServingError) as error:
            client.log_prob_of_files([table.files[0][:-20]])
        assert error.value.code == "INVALID_ARGUMENT"
    with pytest.raises(ServingError, match="NOT_FOUND") as error:
        connect(any_server, protocol, model_name="other")
    assert "model_name" in str(error.value)


def test_client_refuses_what_cannot_be_meant(server):
    with connect(server, "grpc") as client:
        zeros = np.zeros([1, 4, 4, 1], int)
        for images in (zeros.astype(float), zeros + 256, zeros[0], zeros[:0]):
            with pytest.raises(ValueError, match=r"images|rows"):
                client.log_prob(images)
        with pytest.raises(ValueError, match="labels"):
            client.sample([1], labels=[0])
        with pytest.raises(ValueError, match="bytes"):
            client.log_prob_of_files(["name.png"])


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_no_server_is_said_after_a_few_attempts(protocol):
    nobody = servers.Server(None, "127.0.0.1:9", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ServingError, match="is the server running") as error:
        connect(nobody, protocol, max_attempts=3, timeout=10.0)
    assert error.value.code == "UNAVAILABLE"
    assert 0.07 < time.monotonic() - start < 5.0  # Pauses of 25 to 50 and of 50 to 100 ms.


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_timeout_is_kept(server, protocol):
    with connect(server, protocol) as client:
        client.timeout = 1e-6
        with pytest.raises(ServingError) as error:
            client.sample([1])
    assert error.value.code == "DEADLINE_EXCEEDED"


# Bad requests.


def raw_predict(server):
    channel = grpc.insecure_channel(server.address)
    return channel, channel.unary_unary(PREDICT)


def request_bytes(signature="log_prob", name="pivae", output_filter=(), version=None, **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        proto = value if isinstance(value, TensorProto) else tf.make_tensor_proto(value)
        request.inputs[key].CopyFrom(proto)
    return request.SerializeToString()


def claimed(shape, dtype="uint8", **values):
    proto = tf.make_tensor_proto(np.zeros([1], dtype))
    proto.ClearField("int_val")
    proto.ClearField("tensor_content")
    del proto.tensor_shape.dim[:]
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    proto.MergeFrom(type(proto)(**values))
    return proto


ONE = np.zeros([1, 4, 4, 1], np.uint8)
PNG = tf.io.encode_png(ONE[0]).numpy()
BOMB = tf.io.encode_png(np.zeros([5000, 5000, 1], np.uint8)).numpy()
LATENTS = {"top": (3,), "top_down_0": (4, 4, 2)}


def latents(rows, value=0.0, **changed):
    given = {name: np.full([rows, *shape], value, np.float32) for name, shape in LATENTS.items()}
    return {**given, **changed}


BAD_GRPC = {
    "garbage": (b"\xff\x00garbage", "no PredictRequest"),
    "dtype": (request_bytes(images=ONE.astype(np.float32)), "uint8"),
    "rank": (request_bytes(images=ONE[0]), "shape"),
    "size": (request_bytes(images=np.zeros([1, 5, 4, 1], np.uint8)), "shape"),
    "channels": (request_bytes(images=np.zeros([1, 4, 4, 3], np.uint8)), "shape"),
    "empty batch": (request_bytes(images=ONE[:0]), "empty"),
    "over-large batch": (request_bytes(images=np.zeros([65, 4, 4, 1], np.uint8)), "65 rows, this server takes 64"),
    "huge claim": (request_bytes(images=claimed([2**40, 4, 4, 1], int_val=[1])), "rows"),
    "negative claim": (request_bytes(images=claimed([-1, 4, 4, 1], int_val=[1])), "rows"),
    "bytes that do not fill": (request_bytes(images=claimed([1, 4, 4, 1], tensor_content=b"12345")), "values"),
    "value beyond the type": (request_bytes(images=claimed([1, 4, 4, 1], int_val=[300] * 16)), "values"),
    "no signature": (request_bytes("nonsense", images=ONE), "log_prob"),
    "missing input": (request_bytes(), "lacks images"),
    "unknown input": (request_bytes(images=ONE, labels=np.zeros([1], np.int64)), "no input 'labels'"),
    "unknown output": (request_bytes(images=ONE, output_filter=["nonsense"]), "bits_per_dim"),
    "truncated PNG": (request_bytes("image_bytes", image_bytes=[PNG[:-20]]), "PNG"),
    "bomb": (request_bytes("image_bytes", image_bytes=[BOMB]), "4 rows, 4 columns"),
    "no file": (request_bytes("image_bytes", image_bytes=[b"nonsense"]), "PNG or JPEG"),
    "NaN": (request_bytes("decode", **latents(2, np.nan)), "finite"),
    "infinity": (request_bytes("decode", **latents(2, np.inf)), "finite"),
    "rows differ": (request_bytes("decode", **latents(2, top=np.zeros([1, 3], np.float32))), "same number of rows"),
    "seeds as int32": (request_bytes("sample", seeds=np.zeros([1], np.int32)), "int64"),
}


@pytest.mark.parametrize("name", BAD_GRPC)
def test_bad_grpc_requests_get_invalid_argument(server, name):
    body, reason = BAD_GRPC[name]
    channel, predict = raw_predict(server)
    with channel, pytest.raises(grpc.RpcError) as error:
        predict(body, timeout=20)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason in error.value.details()


def test_other_models_and_versions_are_not_found(server):
    channel, predict = raw_predict(server)
    with channel:
        for body in (request_bytes(name="other", images=ONE), request_bytes(version=77, images=ONE)):
            with pytest.raises(grpc.RpcError) as error:
                predict(body, timeout=20)
            assert error.value.code() == grpc.StatusCode.NOT_FOUND


def post(server, body, path="/v1/models/pivae:predict"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(server.url + path, body, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def b64(data):
    return base64.b64encode(data).decode()


def by_rows(signature, *rows):
    return {"signature_name": signature, "instances": list(rows)}


BAD_REST = {
    "no JSON": (b"\x00nonsense", "not JSON"),
    "no object": (b"[1]", "object"),
    "deep": (b"[" * 100_000, "not JSON"),
    "NaN": (b'{"signature_name": "sample", "instances": [NaN]}', "finite"),
    "neither format": ({"signature_name": "sample"}, "instances"),
    "both formats": ({"instances": [1], "inputs": [1]}, "instances"),
    "unknown key": ({"instances": [1], "nonsense": 1}, "nonsense"),
    "no signature": (by_rows("nonsense", 1), "log_prob"),
    "signature no string": ({"signature_name": 3, "instances": [1]}, "string"),
    "dtype": (by_rows("sample", 1.5), "int64"),
    "bool": (by_rows("sample", True), "int64"),
    "string for number": (by_rows("sample", "1"), "int64"),
    "beyond int64": (by_rows("sample", 2**70), "int64"),
    "beyond uint8": (by_rows("log_prob", np.full([4, 4, 1], 256).tolist()), "[0, 255]"),
    "negative": (by_rows("log_prob", np.full([4, 4, 1], -1).tolist()), "[0, 255]"),
    "rank": (by_rows("log_prob", np.zeros([4, 4], int).tolist()), "shape"),
    "size": (by_rows("log_prob", np.zeros([4, 5, 1], int).tolist()), "shape"),
    "channels": (by_rows("log_prob", np.zeros([4, 4, 3], int).tolist()), "shape"),
    "ragged": (by_rows("log_prob", [[[0], [1]], [[0]]]), "equal lengths"),
    "empty batch": (by_rows("log_prob"), "empty"),
    "empty column": ({"signature_name": "log_prob", "inputs": []}, "shape"),
    "over-large batch": (by_rows("sample", *range(65)), "65 rows, this server takes 64"),
    "no base64": (by_rows("image_bytes", {"b64": "%%%"}), "base64"),
    "truncated PNG": (by_rows("image_bytes", {"b64": b64(PNG[:-20])}), "PNG"),
    "bomb": (by_rows("image_bytes", {"b64": b64(BOMB)}), "4 rows, 4 columns"),
    "number for file": (by_rows("image_bytes", 5), "b64"),
    "unnamed inputs": (by_rows("decode", 1), "several inputs"),
    "keys differ": (by_rows("decode", {"top": 1}, {"nonsense": 1}), "same keys"),
}
HUGE = {name: np.full([1, *shape], 1e39).tolist() for name, shape in LATENTS.items()}
BAD_REST["beyond float32"] = ({"signature_name": "decode", "inputs": HUGE}, "finite")


@pytest.mark.parametrize("name", BAD_REST)
def test_bad_rest_requests_get_400_and_the_reason(server, name):
    body, reason = BAD_REST[name]
    status, answer = post(server, body)
    assert status == 400
    assert reason in answer["error"]


def test_other_rest_errors(server):
    assert post(server, by_rows("sample", 1), "/v1/models/other:predict")[0] == 404
    assert post(server, by_rows("sample", 1), "/v1/models/pivae/versions/77:predict")[0] == 404
    assert post(server, by_rows("sample", 1), "/v2/nonsense")[0] == 404
    assert post(server, by_rows("sample", 1), "/v1/models/pivae")[0] == 405


def test_messages_beyond_the_limit_are_refused_unread(server):
    channel, predict = raw_predict(server)
    with channel, pytest.raises(grpc.RpcError) as error:
        predict(bytes(MAX_BYTES + 1), timeout=20)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    status, answer = post(server, b" " * (MAX_BYTES + 1))
    assert status == 413
    assert str(MAX_BYTES) in answer["error"]


# A fuzz run: whatever comes, an orderly answer, and the server answers properly afterwards.


def mutations(seeds, rng, count):
    """Valid requests with bytes flipped, cut out, doubled or replaced."""
    for _ in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 5)):
            start, kind = int(rng.integers(len(data) + 1)), rng.integers(4)
            length = int(rng.integers(1, 9))
            if kind == 0:
                data[start : start + length] = rng.bytes(len(data[start : start + length]))
            elif kind == 1:
                del data[start : start + length]
            elif kind == 2:
                data[start:start] = data[start : start + length]
            else:
                data[start:start] = rng.bytes(length)
        yield bytes(data)


def test_fuzz(server, published):
    rng = np.random.default_rng(0)
    codes = {}
    valid = [
        request_bytes(images=ONE),
        request_bytes("sample", seeds=np.arange(2)),
        request_bytes("image_bytes", image_bytes=[PNG]),
        request_bytes("decode", **latents(1)),
    ]
    channel, predict = raw_predict(server)
    with channel:
        waiting = []
        for body in [*mutations(valid, rng, 8000), *(rng.bytes(int(rng.integers(200))) for _ in range(500))]:
            waiting.append(predict.future(body, timeout=60))
            if len(waiting) == 200:
                count_codes(waiting, codes)
        count_codes(waiting, codes)
    allowed = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert set(codes) <= allowed, codes
    assert sum(codes.values()) == 8500
    assert codes["INVALID_ARGUMENT"] > 3000
    statuses = fuzz_rest(server, rng, 2000)
    assert set(statuses) <= {200, 400, 404}, statuses
    assert statuses[400] > 1000
    assert server.process.poll() is None
    with connect(server, "grpc") as client:
        assert same(client.sample(published.tables[0].seeds), published.tables[0].sampled)


def count_codes(waiting, codes):
    for call in waiting:
        code = call.code().name
        codes[code] = codes.get(code, 0) + 1
    waiting.clear()


def fuzz_rest(server, rng, count):
    """Over a few connections that are kept open; a request that breaks HTTP itself is not ours to test."""
    import http.client

    valid = [json.dumps(by_rows("sample", 1, 2)).encode(), json.dumps({"inputs": ONE.tolist()}).encode()]
    valid.append(json.dumps(by_rows("image_bytes", {"b64": b64(PNG)})).encode())
    statuses = {}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    for body in mutations(valid, rng, count):
        connection.request("POST", "/v1/models/pivae:predict", body)
        response = connection.getresponse()
        assert "error" in json.load(response) or response.status == 200
        statuses[response.status] = statuses.get(response.status, 0) + 1
    connection.close()
    return statuses


# What it says of itself.


def test_status_metadata_and_metrics(server, published):
    with grpc.insecure_channel(server.address) as channel:
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
            get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "pivae"}), timeout=20
        )
        (version,) = status.model_version_status
        assert (version.version, version.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        metadata = channel.unary_unary("/tensorflow.serving.PredictionService/GetModelMetadata")
        bad = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": "pivae"}, metadata_field=["nonsense"])
        with pytest.raises(grpc.RpcError) as error:
            metadata(bad.SerializeToString(), timeout=20)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for path in ("/v1/models/pivae", "/v1/models/pivae/versions/1"):
        with urllib.request.urlopen(server.url + path) as response:
            assert json.load(response)["model_version_status"][0]["state"] == "AVAILABLE"
    before = metric(server, "pivae_requests_total", protocol="rest", signature="sample", code="OK")
    post(server, by_rows("sample", 1))
    assert metric(server, "pivae_requests_total", protocol="rest", signature="sample", code="OK") == before + 1
    assert metric(server, "pivae_model_version") == 1


def metric(server, name, **labels):
    with urllib.request.urlopen(server.url + "/monitoring/prometheus/metrics") as response:
        for line in response.read().decode().splitlines():
            if re.split(r"[ {]", line)[0] == name and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.split()[-1])
    return 0.0


# Load.


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


NUM_CLIENTS, NUM_REQUESTS = 64, 10_000


def test_load_with_a_new_version_in_the_middle(server, published, export_dir):
    tables, errors, wrong, answered = published.tables, [], [], [0, 0]
    lock, enough = threading.Lock(), threading.Event()
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
                    found, expected = one_call(client, tables[0], rng)
                except Exception as error:  # Whatever it is, the test fails with it.
                    errors.append(error)
                    continue
                right = [same(found, expected(table)) for table in tables]
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
        answers, clients = [], [connect(server, protocol, max_attempts=1) for _ in range(5)]

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
        asyncio.run(ModelManager(folder, make_runner=None).start())
