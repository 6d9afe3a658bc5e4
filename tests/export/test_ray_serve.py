"""The Ray Serve application on a cluster of this machine: its own rows for everybody, over HTTP and without it."""

import gzip
import json
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import talking

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray-serve`)")
serve = pytest.importorskip("ray.serve", reason="its part that serves is not installed (the extra `ray-serve`)")


@pytest.fixture(scope="module")
def application(published):
    """(a handle, the URL)."""
    from tf_pivae.export.ray_serve import app

    with pytest.MonkeyPatch.context() as patch, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # It would report to its makers.
        patch.setenv("RAY_worker_niceness", "0")  # Its workers give way to everything else on the machine.
        options = dict(
            include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=80 << 20
        )
        ray.init(address="local", num_cpus=2, **options)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            arguments = {"export_dir": str(published.folders[0]), "runtime": "openvino", "num_replicas": "1"}
            yield serve.run(app(arguments)), f"http://127.0.0.1:{port}/"
        finally:
            serve.shutdown()
            ray.shutdown()


def test_arrays(application, published):
    handle, _ = application
    table = published.tables[0]
    answers = []
    for start in range(0, 64, 2):
        answers.append(handle.predict.remote("reconstruct", {"images": table.images[start : start + 2]}))
    images = np.concatenate([answer.result(timeout_s=60)["images"] for answer in answers])
    assert talking.same(images, table.reconstructed)


@pytest.mark.parametrize(
    ("signature", "inputs", "code"),
    [
        ("sample", {"seeds": np.arange(2)}, "UNIMPLEMENTED"),
        ("nonsense", {}, "INVALID_ARGUMENT"),
        ("reconstruct", {"images": np.zeros([65, 4, 4, 1], np.uint8)}, "INVALID_ARGUMENT"),
        ("reconstruct", {"images": np.zeros([1, 4, 5, 1], np.uint8)}, "INVALID_ARGUMENT"),
        ("reconstruct", {"images": np.zeros([1, 4, 4, 1])}, "INVALID_ARGUMENT"),
        ("reconstruct", {"images": np.full([1, 4, 4, 1], 300)}, "INVALID_ARGUMENT"),
        ("reconstruct", {"images": np.zeros([0, 4, 4, 1], np.uint8)}, "INVALID_ARGUMENT"),
        ("decode", talking.latents(1, np.nan), "INVALID_ARGUMENT"),
    ],
)
def test_errors(application, signature, inputs, code):
    from tf_pivae.export.requests import RequestError

    with pytest.raises(RequestError) as error:
        application[0].predict.remote(signature, inputs).result(timeout_s=60)
    assert error.value.code == code


def test_http(application, published):
    _, url = application
    table = published.tables[0]
    body = json.dumps({"signature_name": "reconstruct", "inputs": table.images[:3].tolist()}).encode()
    for headers, sent in (({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body))):
        request = urllib.request.Request(url, sent, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            assert talking.same(np.array(json.load(response)["outputs"], np.uint8), table.reconstructed[:3])
    bad = {status: json.dumps(talking.by_rows(name, 1)).encode() for name, status in (("sample", 501), ("other", 400))}
    for status, body in [(400, b"{"), (413, b" " * 3_000_000), *bad.items()]:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(url, body, timeout=60)
        with error.value:
            assert error.value.code == status
