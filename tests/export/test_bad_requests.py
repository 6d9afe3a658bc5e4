"""Requests that mean nothing: each gets its reason, and the server goes on."""

import json

import grpc
import numpy as np
import pytest
from attacks import field, tensor
from talking import (
    BOMB,
    LATENTS,
    MAX_BYTES,
    ONE,
    PNG,
    b64,
    by_rows,
    claimed,
    connect,
    latents,
    post,
    raw_predict,
    request_bytes,
    same,
)

# Dimensions come in several fields, none of them long; the reason has to fit into gRPC's 8 KiB.
DIMENSIONS = field(2, b"\x12\x00" * 2000) * 50
BAD_GRPC = {
    "garbage": (b"\xff\x00garbage", "not a PredictRequest"),
    "dtype": (request_bytes(images=ONE.astype(np.float32)), "uint8"),
    "rank": (request_bytes(images=ONE[0]), "shape"),
    "size": (request_bytes(images=np.zeros([1, 5, 4, 1], np.uint8)), "shape"),
    "channels": (request_bytes(images=np.zeros([1, 4, 4, 3], np.uint8)), "shape"),
    "empty batch": (request_bytes(images=ONE[:0]), "empty"),
    "over-large batch": (request_bytes(images=np.zeros([65, 4, 4, 1], np.uint8)), "65 rows, this server takes 64"),
    "fields in fields": (field(2, field(2, b"\x08\x04" * 128) * 64) * 25, "too many fields"),
    "many dimensions": (tensor(b"\x08\x04" + DIMENSIONS), "got the shape [0, 0, 0"),
    "huge claim": (request_bytes(images=claimed([2**40, 4, 4, 1], int_val=[1])), "rows"),
    "negative claim": (request_bytes(images=claimed([-1, 4, 4, 1], int_val=[1])), "the batch is empty"),
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


BAD_REST = {
    "no JSON": (b"\x00nonsense", "not JSON"),
    "no object": (b"[1]", "object"),
    "deep": (b"[" * 3_000, "not JSON"),
    "deeper": (b"[" * 100_000, "100000 values or more"),
    "NaN": (b'{"signature_name": "sample", "instances": [NaN]}', "finite"),
    "neither format": ({"signature_name": "sample"}, "instances"),
    "both formats": ({"instances": [1], "inputs": [1]}, "instances"),
    "unknown key": ({"instances": [1], "nonsense": 1}, "nonsense"),
    "a key twice": (b'{"instances": [1], "signature_name": "sample", "instances": [2]}', "'instances' twice"),
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
    "ragged": (by_rows("log_prob", [[[0], [1]], [[0]]]), "shape"),
    "empty batch": (by_rows("log_prob"), "empty"),
    "empty column": ({"signature_name": "log_prob", "inputs": []}, "the batch is empty; send"),
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
    assert "stack traces" not in answer["error"]


def test_other_rest_errors(server):
    assert post(server, by_rows("sample", 1), "/v1/models/other:predict")[0] == 404
    assert post(server, by_rows("sample", 1), "/v1/models/pivae/versions/77:predict")[0] == 404
    assert post(server, by_rows("sample", 1), "/v2/nonsense")[0] == 404
    assert post(server, by_rows("sample", 1), "/v1/models/pivae")[0] == 404


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
            start = int(rng.integers(len(data) + 1))
            kind = rng.integers(4)
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
