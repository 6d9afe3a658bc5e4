"""Starts the servers that the tests of the client run against."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from typing import NamedTuple

import forking
import pytest

IMAGE = "tensorflow/serving:2.21.0"  # As in export/serving/docker-compose.yml.


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen
    address: str  # HOST:PORT of gRPC
    url: str  # http://HOST:PORT of REST


@contextlib.contextmanager
def development(export_dir, *flags):
    """`python -m tf_pivae.export.serve` on free ports, from its first line of output to SIGTERM."""
    ports = ["--grpc_port=0", "--rest_port=0", "--poll_seconds=0.2"]
    command = ["export.serve", f"--export_dir={export_dir}", *flags, *ports]
    process = forking.Popen(*command, stdout=subprocess.PIPE, text=True)
    try:
        words = process.stdout.readline().replace(",", "").split()
        assert words, "the server did not start"
        yield Server(process, words[words.index("gRPC") + 1], words[-1].split("/v1/")[0])
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def tensorflow_model_server(export_dir):
    """TensorFlow Serving's own binary, where it is installed."""
    binary = shutil.which("tensorflow_model_server")
    if binary is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    ports = _free_port(), _free_port()
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--model_name=pivae"]
    with _external([binary, *flags, f"--model_base_path={os.path.abspath(export_dir)}"], *ports) as server:
        yield server


@contextlib.contextmanager
def docker(export_dir):
    """TensorFlow Serving's image, where docker has it."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not on the PATH")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        pytest.skip(f"docker does not have the image {IMAGE}")
    ports = _free_port(), _free_port()
    published = ["-p", f"127.0.0.1:{ports[0]}:8500", "-p", f"127.0.0.1:{ports[1]}:8501"]
    mounted = ["-v", f"{os.path.abspath(export_dir)}:/models/pivae:ro", "-e", "MODEL_NAME=pivae"]
    with _external(["docker", "run", "--rm", "--init", *published, *mounted, IMAGE], *ports) as server:
        yield server


SERVERS = {"development": development, "tensorflow_model_server": tensorflow_model_server, "docker": docker}


@contextlib.contextmanager
def _external(command, grpc_port, rest_port):
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{rest_port}"
        _wait_until_available(f"{url}/v1/models/pivae", process)
        yield Server(process, f"127.0.0.1:{grpc_port}", url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_until_available(url, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as response:
            if json.load(response)["model_version_status"][0]["state"] == "AVAILABLE":
                return
        time.sleep(0.2)
    raise AssertionError("the server did not become available")


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
