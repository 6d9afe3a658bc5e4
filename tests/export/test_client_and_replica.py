"""The clients against what a genuine TensorFlow Serving was seen to do (see replica.py)."""

import concurrent.futures
import contextlib
import time

import grpc
import numpy as np
import pytest
import replica
from talking import ONE, as_numbers, connect, latents, post, raw_predict, request_bytes, same
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tf_pivae.export.client import GrpcClient, RestClient, ServingError

PROTOCOLS = ["grpc", "rest"]
NUM_CLIENTS = 32


@pytest.fixture(scope="module")
def run(published, graph_session):
    return graph_session(str(published.folders[0]))


@pytest.fixture
def serve(run):
    """A function of `Replica`'s settings: the replica, and its addresses."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            served = replica.Replica(run, **settings)
            return served, stack.enter_context(replica.serving(served))

        yield start


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_signature_without_types_does_not_keep_clients_away(serve, published, protocol):
    served, server = serve()
    assert served.metadata("pivae").signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].dtype == 0
    with connect(server, protocol) as client:
        names = {"serving_default", "log_prob", "image_bytes", "sample", "reconstruct", "encode", "decode"}
        assert set(client.signatures) == names
        assert same(client.sample(published.tables[0].seeds), published.tables[0].sampled)


def test_the_development_server_describes_a_model_as_it_stands_in_its_file(server, run):
    message = get_model_metadata_pb2.SignatureDefMap()
    with grpc.insecure_channel(server.address) as channel:
        metadata = channel.unary_unary("/tensorflow.serving.PredictionService/GetModelMetadata")
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "pivae"
        answer = get_model_metadata_pb2.GetModelMetadataResponse.FromString(metadata(request.SerializeToString()))
    answer.metadata["signature_def"].Unpack(message)
    assert dict(message.signature_def) == dict(run.signatures)


# Too much to do.

FULL = {
    "threads": (dict(threads=8), "RESOURCE_EXHAUSTED: Server Threadpool Exhausted", "grpc_max_threads"),
    "queue": (dict(threads=64, queue=2, batch_threads=1), "UNAVAILABLE: .* is full", "the server is full"),
}


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("full", FULL)
def test_no_error_reaches_the_users_of_32_clients(serve, published, full):
    settings, says, advice = FULL[full]
    served, server = serve(**settings)
    table = published.tables[0]
    clients = [GrpcClient(server.address, max_attempts=2, timeout=120.0) for _ in range(NUM_CLIENTS)]

    def work(index):
        rows = np.random.default_rng(index).integers(64, size=[5, 3])
        return all(same(clients[index].log_prob(table.images[some]).log_prob, table.log_prob[some]) for some in rows)

    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as executor:
        stack.callback(lambda: [client.close() for client in clients])
        served.gate.clear()
        result = executor.map(work, range(NUM_CLIENTS))
        wait_for(lambda: served.refusals > 2 * NUM_CLIENTS)
        served.gate.set()
        assert all(result)
        # Without a second attempt there are errors.
        served.gate.clear()
        for client in clients:
            client.max_attempts = 1
        futures = [executor.submit(client.sample, [1]) for client in clients]
        concurrent.futures.wait(futures, timeout=60, return_when="FIRST_EXCEPTION")
        served.gate.set()
        errors = [error for error in (future.exception() for future in futures) if error is not None]
    assert all(isinstance(error, ServingError) and error.busy and advice in str(error) for error in errors)
    with pytest.raises(ServingError, match=says):
        raise errors[0]


def test_a_queue_that_is_full_over_rest(serve, published):
    served, server = serve(queue=2, batch_threads=1)
    table = published.tables[0]
    client = RestClient(server.url, timeout=120.0)
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        served.gate.clear()
        result = executor.map(lambda row: client.sample(table.seeds[row : row + 1]), range(24))
        wait_for(lambda: served.refusals > 8)
        served.gate.set()
        assert same(np.concatenate(list(result)), table.sampled[:24])


# What must not be sent.


def test_an_empty_batch_waits_for_another_request(serve):
    """The replica, as seen on the server: without a deadline it would be for good."""
    _, server = serve()
    channel, predict = raw_predict(server)
    with channel:
        empty = request_bytes(images=ONE[:0])
        with pytest.raises(grpc.RpcError) as error:
            predict(empty, timeout=0.3)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        waits = predict.future(empty, timeout=20)
        predict(request_bytes("sample", seeds=np.array([1])))
        assert not waits.done()
        predict(request_bytes(images=ONE))
        assert waits.exception().code() == grpc.StatusCode.INVALID_ARGUMENT  # The graph's own check.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_clients_send_no_empty_batch(serve, protocol):
    served, server = serve()
    with connect(server, protocol, timeout=5.0) as client:
        calls = [
            lambda: client.log_prob(ONE[:0]),
            lambda: client.log_prob([]),
            lambda: client.log_prob_of_files([]),
            lambda: client.sample([]),
            lambda: client.reconstruct(ONE[:0]),
            lambda: client.encode(ONE[:0]),
            lambda: client.decode(latents(0)),
            lambda: client.predict("serving_default", {"images": ONE[:0]}),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="no rows"):
                call()
    assert served.calls == 0


def test_rest_takes_pixels_modulo_256_without_a_word(serve):
    """The replica, as seen on the server: why the clients look at values."""
    _, server = serve()
    bodies = [
        {"signature_name": "log_prob", "inputs": {"images": np.full([1, 4, 4, 1], v).tolist()}} for v in (300, 44)
    ]
    answers = [post(server, body) for body in bodies]
    assert answers[0][0] == 200
    assert answers[0] == answers[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_clients_send_no_number_that_the_type_cannot_hold(serve, protocol):
    served, server = serve()
    images = ONE.astype(int)
    with connect(server, protocol) as client:
        for bad in (images + 300, images - 1, images + 0.0, images > 0, ONE[0], ONE[..., 0], "images", [[[[2**70]]]]):
            with pytest.raises(ValueError, match="`images` must be uint8"):
                client.log_prob(bad)
        for bad in ([2**63], [0.5], [None], 7):
            with pytest.raises(ValueError, match="`seeds` must be int64"):
                client.sample(bad)
        for bad in (np.nan, np.inf, 1e300):
            with pytest.raises(ValueError, match="`top` must be float32"):
                client.decode(latents(1, top=np.full([1, 3], bad)))
        with pytest.raises(ValueError, match="same number of rows"):
            client.decode(latents(2, top=np.zeros([1, 3])))
    assert served.calls == 0


# What comes back.


def test_responses_are_as_large_as_seen(serve):
    """64 KiB of pixels, 57 % of them at least 128, took 103 kB."""
    pixels = np.where(np.arange(1 << 16) < 0.57 * (1 << 16), 200, 100).astype(np.uint8)
    assert 102_000 < as_numbers(pixels).ByteSize() < 104_000
    _, server = serve()
    channel, predict = raw_predict(server)
    with channel:
        body = predict(request_bytes("sample", seeds=np.arange(64)))
    tensor = predict_pb2.PredictResponse.FromString(body).outputs["images"]
    assert (len(tensor.int_val), tensor.tensor_content) == (64 * 16, b"")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_more_rows_than_the_server_takes(serve, protocol):
    _, server = serve(max_batch_size=8)
    with connect(server, protocol) as client:
        with pytest.raises(ServingError, match="larger than maximum input batch size 8") as error:
            client.sample(range(9))
        assert error.value.code == "INVALID_ARGUMENT"
        client.batch_size = 8
        assert len(client.sample(range(9))) == 9
