"""What clients get from servers, and what a server says of itself."""

import json
import time
import urllib.request

import grpc
import numpy as np
import pytest
import replica
import servers
from talking import by_rows, connect, metric, post, same
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc

from tf_pivae.export.client import ServingError

# The answers, from whatever server there is.


@pytest.fixture(scope="module", params=["replica", *servers.SERVERS])
def any_server(request, export_dir):
    if request.param == "development":
        yield request.getfixturevalue("server")
    elif request.param == "replica":
        run = request.getfixturevalue("graph_session")(str(export_dir / "1"))
        with replica.serving(replica.Replica(run)) as server:
            yield server
    else:
        with servers.SERVERS[request.param](export_dir) as server:
            yield server


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_client_gets_the_models_rows(any_server, published, protocol):
    table = published.tables[0]
    with connect(any_server, protocol, batch_size=50) as client:  # Two requests for 64 rows.
        for results in (client.log_prob(table.images), client.log_prob_of_files(list(table.files))):
            assert same(results.log_prob, table.log_prob)
            assert same(results.bits_per_dim, table.bits_per_dim)
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
