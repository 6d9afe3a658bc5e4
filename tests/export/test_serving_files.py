"""The configuration for TensorFlow Serving agrees with itself and with what is installed; the page's commands run."""

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import forking
import pytest
import servers
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tf_pivae.export.requests import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parent.parent.parent
SERVING = ROOT / "export" / "serving"
PAGE = ROOT / "docs" / "serving.md"


def documents(name):
    return list(yaml.safe_load_all((SERVING / name).read_text()))


def one(name):
    (document,) = documents(name)
    return document


def container():
    (result,) = one("deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return result


def compose():
    """The server's part of docker-compose.yml."""
    return one("docker-compose.yml")["services"]["pivae"]


def flags(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


def text_fields(name):
    """Fields of a flat text message and their scalar values (a wrapped value stands in braces)."""
    text = re.sub(r"#.*", "", (SERVING / name).read_text())
    return dict(re.findall(r"(\w+)(?:: | \{ value: )(\"[^\"]*\"|\w+)", text))


def test_model_config_is_tensorflow_servings_message():
    config = text_format.Parse((SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == DEFAULT_MODEL
    assert model.base_path in [mount["mountPath"] for mount in container()["volumeMounts"]]
    assert any(volume.endswith(f":{model.base_path}:ro") for volume in compose()["volumes"])


def test_batching_config_is_the_development_servers():
    from tf_pivae.export.serve import __main__ as serve

    fields = text_fields("batching.config")
    assert set(fields) == {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
    assert int(fields["max_batch_size"]) == serve._MAX_BATCH_SIZE.default
    assert int(fields["batch_timeout_micros"]) == serve._TIMEOUT.default


def test_both_deployments_start_the_server_in_the_same_way():
    service = compose()
    assert service["entrypoint"] == container()["command"]
    assert service["image"] == container()["image"] == servers.IMAGE
    assert flags(service["command"]) == flags(container()["args"])
    options = flags(container()["args"])
    files = {value.rsplit("/", 1)[1] for value in options.values() if value.startswith("/config/")}
    (generated,) = one("kustomization.yaml")["configMapGenerator"]
    assert files == set(generated["files"]) == {path.name for path in SERVING.glob("*.config")}
    assert {volume.split(":")[1].rsplit("/", 1)[1] for volume in service["volumes"][1:]} == files
    pin = re.search(r"^tensorflow-serving-api==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert service["image"].endswith(f":{pin}")


def test_what_a_genuine_server_needs_is_set():
    """Each of these was missed on one: see the table of docs/serving.md."""
    options = flags(container()["args"])
    assert (options["num_load_threads"], options["max_num_load_retries"]) == ("1", "0")
    assert "enable_serialization_as_tensor_content" not in options
    assert compose()["init"] is True
    assert one("deployment.yaml")["spec"]["template"]["spec"]["shareProcessNamespace"] is True
    requested, allowed = (container()["resources"][kind]["memory"] for kind in ("requests", "limits"))
    assert 1.36e9 < int(requested.removesuffix("Gi")) * 2**30 < int(allowed.removesuffix("Gi")) * 2**30


def test_gateway_is_for_this_server():
    text = (SERVING / "gateway.conf").read_text()
    targets = set(re.findall(r"^ +server (\S+);", text, re.MULTILINE))
    options = flags(compose()["command"])
    gateway = one("docker-compose.yml")["services"]["gateway"]
    assert targets == {f"pivae:{options['port']}", f"pivae:{options['rest_api_port']}"}
    reached = {
        f"{service['metadata']['name']}:{port['port']}"
        for service in documents("service.yaml")
        for port in service["spec"]["ports"]
    }
    assert targets <= reached
    assert int(re.search(r"limit_conn all (\d+);", text)[1]) <= int(options["grpc_max_threads"]) // 2
    assert int(re.search(r"v1/models.*?client_max_body_size (\d+);", text, re.DOTALL)[1]) <= 15_000
    (port,) = re.findall(r"listen (\d+) ssl;", text)
    assert gateway["ports"] == [f"{port}:{port}"]
    assert all(port.startswith("127.0.0.1:") for port in compose()["ports"])
    mounted = {volume.split(":")[-2].rsplit("/", 1)[1] for volume in gateway["volumes"]}
    assert mounted == {"gateway.conf", "certificate.pem", "key.pem", "tokens"}
    assert all(f" {name};" in text for name in mounted - {"gateway.conf"})


def test_manifests_refer_to_each_other():
    assert set(one("kustomization.yaml")["resources"]) == {"deployment.yaml", "service.yaml", "autoscaler.yaml"}
    deployment = one("deployment.yaml")
    autoscaler = one("autoscaler.yaml")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    target = autoscaler["spec"]["scaleTargetRef"]
    assert {key: deployment[key] for key in ("apiVersion", "kind")} == {k: target[k] for k in ("apiVersion", "kind")}
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "the autoscaler decides"
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    options = flags(container()["args"])
    assert (str(ports["grpc"]), str(ports["rest"])) == (options["port"], options["rest_api_port"])
    for service in documents("service.yaml"):
        assert service["spec"]["selector"].items() <= labels.items()
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes
    (generated,) = one("kustomization.yaml")["configMapGenerator"]
    assert pod["spec"]["volumes"][1]["configMap"]["name"] == generated["name"]


def test_probes_limits_and_metrics():
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"] == {"path": f"/v1/models/{DEFAULT_MODEL}", "port": "rest"}
    resources = container()["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    spec = one("autoscaler.yaml")["spec"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    pod = one("deployment.yaml")["spec"]["template"]
    path = pod["metadata"]["annotations"]["prometheus.io/path"]
    assert text_fields("monitoring.config") == {"enable": "true", "path": f'"{path}"'}
    pause = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause < pod["spec"]["terminationGracePeriodSeconds"]


# The page.


def blocks():
    """(language, text) of the page's code blocks, in their order."""
    return re.findall(r"^```([\w ]+)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_every_block_of_the_page_is_run():
    assert {language for language, _ in blocks()} == {"sh", "sh server", "sh gateway", "python"}


def test_commands_of_the_page(finished, tmp_path):
    """In a folder like a clone in which a run was trained, with free ports for the usual ones.

    The benchmark measures for a moment, and is forked as the commands are, with the servers that it starts.
    """
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH")
    (tmp_path / "runs").mkdir()
    shutil.copytree(finished[0], tmp_path / "runs/demo")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    grpc_port = str(servers._free_port())
    rest_port = str(servers._free_port())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec {forking.python()} "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    background = []
    outputs = []
    try:
        for language, text in blocks():
            if language == "sh gateway":  # By test_gateway.py.
                continue
            text = text.replace("8500", grpc_port).replace("8501", rest_port)
            text = text.replace("python benchmarks/", "python -- benchmarks/").replace("--seconds=2", "--seconds=0.2")
            if language == "sh server":
                command = f"exec {text.strip()} --grpc_port={grpc_port} --rest_port={rest_port}"
                background.append(subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=environment))
                _wait(f"http://localhost:{rest_port}/v1/models/pivae", background[-1])
                continue
            (tmp_path / "program.py").write_text(text)
            command = ["python", "--", "program.py"] if language == "python" else ["sh", "-e", "-c", text]
            result = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
            )
            assert result.returncode == 0, f"{text}\n{result.stderr}"
            outputs.append(result.stdout)
    finally:
        for process in background:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    export, load, rest, client, benchmark = outputs
    assert "exports/demo/1" in export
    assert load.strip() == "(4, 16, 16, 1)"
    assert '"AVAILABLE"' in rest
    assert '{"predictions":[[[[' in rest
    assert "pivae_model_version 1.0" in rest
    assert '"error"' not in rest
    assert len(client.splitlines()) == 2
    assert len(benchmark.splitlines()) == 2 + 2


def _wait(url, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server did not start"
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not become available")
