"""nginx with export/serving/gateway.conf, started as docs/serving.md says, between the clients and a server."""

import contextlib
import gzip
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest
import servers
from talking import PREDICT, request_bytes, same

from tf_pivae.export.client import GrpcClient, RestClient, ServingError

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = ROOT / "export/serving/gateway.conf"
PATH = f"{os.environ['PATH']}:/usr/sbin"  # Where Debian has it, and not every user looks.
PROTOCOLS = ["grpc", "rest"]

pytestmark = [
    pytest.mark.skipif(shutil.which("nginx", path=PATH) is None, reason="needs nginx: apt-get install nginx"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]


class Gateway(NamedTuple):
    port: int
    folder: Path  # the page's: certificate.pem, tokens
    token: str
    log: Path

    def context(self):
        return ssl.create_default_context(cafile=self.folder / "certificate.pem")

    def connect(self, protocol, **options):
        options = {"token": self.token, **options}
        if protocol == "rest":
            return RestClient(f"https://localhost:{self.port}", context=self.context(), batch_size=50, **options)
        credentials = grpc.ssl_channel_credentials((self.folder / "certificate.pem").read_bytes())
        return GrpcClient(f"localhost:{self.port}", credentials=credentials, **options)

    def channel(self, token):
        credentials = grpc.ssl_channel_credentials((self.folder / "certificate.pem").read_bytes())
        bearer = grpc.access_token_call_credentials(token)
        return grpc.secure_channel(f"localhost:{self.port}", grpc.composite_channel_credentials(credentials, bearer))

    def ask(self, method, path, body=None, **headers):
        """(status, text) over REST, by hand."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=self.context())
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})
            response = connection.getresponse()
            return response.status, response.read().decode()


def page():
    """The page's commands: those that make what the gateway needs, and the one that starts it."""
    (block,) = re.findall(r"^```sh gateway\n(.*?)^```$", (ROOT / "docs/serving.md").read_text(), re.M | re.S)
    preparation, _, start = block.rstrip().rpartition("\n")
    return preparation, start


@contextlib.contextmanager
def gateway(folder, grpc_address, rest_address, patience="60s"):
    """The gateway on a free port, with another patience than 10 s."""
    port = servers._free_port()
    text = CONFIGURATION.read_text()
    changes = {
        "server pivae:8500;": f"server {grpc_address};",
        "server pivae:8501;": f"server {rest_address};",
        "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        " 10s;": f" {patience};",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "gateway.conf").write_text(text)
    environment = {**os.environ, "PATH": PATH}
    preparation, start = page()
    subprocess.run(["sh", "-ec", preparation], cwd=folder, env=environment, capture_output=True, check=True)
    (token,) = re.findall(r'"Bearer (\w+)" \w+;', (folder / "tokens").read_text())
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(["sh", "-c", f"exec {start}"], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        assert process.poll() is None, (folder / "log").read_text()
        yield Gateway(port, folder, token, folder / "log")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def through(server, tmp_path_factory):
    with gateway(tmp_path_factory.mktemp("gateway"), server.address, server.url.removeprefix("http://")) as started:
        yield started


def test_nginx_takes_the_configuration(through):
    command = [shutil.which("nginx", path=PATH), "-t", "-p", through.folder, "-c", "gateway.conf"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        f"nginx: the configuration file {through.folder}/gateway.conf syntax is ok",
        f"nginx: configuration file {through.folder}/gateway.conf test is successful",
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_token_opens_it(through, published, protocol):
    table = published.tables[0]
    with through.connect(protocol) as client:
        assert same(client.log_prob(table.images).log_prob, table.log_prob)
        assert same(client.sample(table.seeds), table.sampled)
        assert same(client.log_prob_of_files(list(table.files[:2])).log_prob, table.log_prob[:2])
        with pytest.raises(ServingError, match="INVALID_ARGUMENT") as error:
            client.log_prob_of_files([b"no image"])
        assert "gateway" not in str(error.value)  # The server's own words.
    for token in (through.token[:-1], f"{through.token}0", ""):
        with pytest.raises(ServingError, match="UNAUTHENTICATED: no or an unknown token") as error:
            through.connect(protocol, token=token)
        assert "is `token` right" in str(error.value)
    log = through.log.read_text()
    assert through.token not in log
    assert re.search(r" alice \"POST /\S+\" 200 ", log)


def test_only_over_tls_and_only_with_its_certificate(through):
    connection = http.client.HTTPConnection("127.0.0.1", through.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models/pivae", headers={"Authorization": f"Bearer {through.token}"})
        assert connection.getresponse().status == 400
    with pytest.raises(ServingError, match="certificate verify failed"):
        RestClient(f"https://localhost:{through.port}", token=through.token, max_attempts=1)


def test_bodies_are_limited(through):
    nested = b'{"inputs": ' + 200_000 * b"["
    status, text = through.ask("POST", "/v1/models/pivae:predict", nested)
    assert (status, text) == (413, '{"error": "the request is too large"}')
    with through.connect("rest") as client:
        client.batch_size = 1000
        with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: the request is too large") as error:
            client.log_prob(np.full([1000, 4, 4, 1], 255, np.uint8))
        assert "smaller `batch_size`" in str(error.value)
    with through.channel(through.token) as channel:
        predict = channel.unary_unary(PREDICT)
        with pytest.raises(grpc.RpcError) as error:
            predict(bytes(5_000_000), timeout=20)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.value.details() == "the request is too large"


def test_compressed_requests_are_refused(through):
    body = gzip.compress(b'{"inputs": ' + 14_000 * b"[")
    status, text = through.ask("POST", "/v1/models/pivae:predict", body, **{"Content-Encoding": "gzip"})
    assert (status, text) == (415, '{"error": "requests must not be compressed"}')
    with through.channel(through.token) as channel:
        predict = channel.unary_unary(PREDICT)
        with pytest.raises(grpc.RpcError, match="must not be compressed") as error:
            predict(request_bytes("sample", seeds=np.arange(64)), timeout=20, compression=grpc.Compression.Gzip)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_nothing_but_the_model_is_reached(through):
    for path in ("/monitoring/prometheus/metrics", "/", "/v1/models", "/v1/models/pivae:classify", "/v1/models/../x"):
        assert through.ask("GET", path)[0] == 404
    assert through.ask("GET", "/v1/models/pivae")[0] == 200
    with through.channel(through.token) as channel:
        for method in ("ModelService/HandleReloadConfigRequest", "PredictionService/Classify"):
            with pytest.raises(grpc.RpcError, match="no such method") as error:
                channel.unary_unary(f"/tensorflow.serving.{method}")(b"", timeout=20)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def _beginning(through, text):
    """A connection on which a request has begun."""
    plain = socket.create_connection(("127.0.0.1", through.port), timeout=20)
    connection = through.context().wrap_socket(plain, server_hostname="localhost")
    connection.sendall(text.encode())
    return connection


BEGUN = "POST /v1/models/pivae:predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n"


def test_requests_at_once_are_limited(through):
    clients = [through.connect(protocol, max_attempts=1) for protocol in PROTOCOLS]
    begun = BEGUN.format(through.token) + "Content-Length: 9\r\n\r\n1"
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            last = stack.enter_context(_beginning(through, begun))
        assert b" 429 " in last.recv(1000)
        for client in clients:
            with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: too many requests at once") as error:
                client.sample([1])
            assert error.value.busy
    for client in clients:  # There is room again, or will be.
        client.max_attempts = 2
        assert len(client.sample([1])) == 1
        client.close()
    assert re.search(r" alice \"POST /v1/models/pivae:predict\" 429 ", through.log.read_text())


def test_slow_requests_are_cut_off(server, tmp_path):
    with gateway(tmp_path, server.address, server.url.removeprefix("http://"), "1s") as impatient:
        begun = BEGUN.format(impatient.token)
        for text in ("", begun, begun + "Content-Length: 9\r\n\r\n1"):
            with _beginning(impatient, text) as slow:
                assert slow.recv(1000) == b""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_not_there(tmp_path, protocol):
    with (
        gateway(tmp_path, "127.0.0.1:9", "127.0.0.1:9") as started,
        pytest.raises(ServingError, match="UNAVAILABLE: the server cannot be reached"),
    ):
        started.connect(protocol, max_attempts=2)
