"""Models on a hub: a server of this file's keeps repositories as the Hugging Face hub does, for the real client.

It speaks as much of the hub's protocol as huggingface_hub needs for a small model: files in the commit itself. What the
real hub does with large ones (its LFS and Xet storage) is not tested without a network.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.publish.folder import publish
from tf_pivae.runs import hub
from tf_pivae.runs.directory import RunDirectory
from tf_pivae.runs.pretrained import FOLDER, check_own

pytest.importorskip("huggingface_hub", reason="pip install '.[hub]'")
MODEL = FOLDER / "fashion_mnist"


class Hub:
    """Repositories: name -> commit -> file -> bytes, the newest commit last."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.requests: list[str] = []
        self.address = ""

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories.setdefault(name, {})[commit] = files
        return commit

    def newest(self, name: str) -> tuple[str, dict[str, bytes]]:
        return next(reversed(self.repositories[name].items()), ("", {}))

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict | bytes, dict[str, str]]:
        """Status, JSON or bytes, headers."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            request = json.loads(body)
            name = "/".join(filter(None, (request.get("organization"), request["name"])))
            self.repositories.setdefault(name, {})
            return 200, {"url": f"{self.address}/{name}"}, {}
        match = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+)(?:/(\w+)(?:/([^/]+)(?:/(.*))?)?)?", path)
        if not match or match[1] not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        name, verb, revision, file = match.groups()
        commit, files = self.newest(name)
        if verb == "preupload":
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return 200, {"files": modes}, {}
        if verb == "commit":
            files = dict(files)
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            commit = self.commit(name, files)
            return 200, {"commitOid": commit, "commitUrl": f"{self.address}/{name}/commit/{commit}"}, {}
        if revision in self.repositories[name]:
            commit = revision
            files = self.repositories[name][revision]
        elif revision not in (None, "main"):
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        listed = [{"type": "file", "path": f, "oid": "0" * 40, "size": len(data)} for f, data in files.items()]
        if verb == "tree":
            return 200, listed, {}
        if verb == "resolve":
            data = files[file]
            etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return 200, data, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        siblings = [{"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]} for entry in listed]
        return 200, {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}, {}


@contextlib.contextmanager
def served(hub_: Hub) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub_.requests.append(f"{self.command} {path}")
            status, result, headers = hub_.answer(self.command, path, body)
            data = result if isinstance(result, bytes) else json.dumps(result).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = _answer
        do_HEAD = _answer
        do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub_.address = f"http://127.0.0.1:{server.server_port}"
        yield hub_.address
        server.shutdown()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process takes for the real one."""
    from huggingface_hub import constants

    result = Hub()
    with served(result) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("TF_PIVAE_CACHE", str(tmp_path / "cache"))
        hub.fetch.cache_clear()
        yield result
        hub.fetch.cache_clear()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_published_and_loaded_by_the_commands(tmp_path, run_command):
    server = Hub()
    with served(server) as address:
        places = {"HF_HOME": str(tmp_path / "hf"), "TF_PIVAE_CACHE": str(tmp_path / "cache")}
        environment = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_test", **places}

        def run(*command: str) -> str:
            result = run_command(*command, cwd=tmp_path, env=environment)
            assert result.returncode == 0, result.stderr
            return result.stdout

        server.commit("me/clothes", {"checkpoints/00000001/manifest.json": b"{}", "LICENSE": b"mine"})
        assert "hf://me/clothes" in run("publish", "--run_dir=fashion_mnist", "--to=hub", "--output=me/clothes")
        _, files = server.newest("me/clothes")
        assert files["LICENSE"] == b"mine"
        assert "checkpoints/00000001/manifest.json" not in files, "an older checkpoint is gone"
        assert files["README.md"].startswith(b"---\nlibrary_name: tf_pivae\n")
        assert b'tf_pivae.load("hf://me/clothes")' in files["README.md"]
        run("sample", "--run_dir=hf://me/clothes", "--num_samples=3", "--output=theirs.npz")
    run("sample", "--run_dir=fashion_mnist", "--num_samples=3", "--output=ours.npz")
    theirs, ours = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("theirs", "ours"))
    np.testing.assert_array_equal(theirs, ours)


def test_what_is_fetched_and_where(there, tmp_path):
    """The files of a model and no others, once; a commit that is here needs no network."""
    others = {"../outside": b"x", "setup.py": b"x", "checkpoints/00006000/evil.pkl": b"x", "config.gin/x": b"x"}
    commit = there.commit("me/model", files_of(MODEL) | others)
    folder = hub.fetch("hf://me/model")
    assert folder == tmp_path / "cache/hub/me/model" / commit
    assert files_of(folder) == files_of(MODEL)
    assert not [path for path in tmp_path.rglob("*") if path.name in ("outside", "setup.py")]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    hub.fetch.cache_clear()
    num_requests = len(there.requests)
    assert hub.fetch("hf://me/model") == folder
    assert there.requests[num_requests:] == ["GET /api/models/me/model"], "what changed, if anything"
    num_requests = len(there.requests)
    assert hub.fetch(f"hf:/me/model@{commit}") == folder
    assert len(there.requests) == num_requests
    newer = there.commit("me/model", files_of(MODEL) | {"model_card.md": b"newer"})
    hub.fetch.cache_clear()
    assert hub.fetch("hf://me/model").name == newer
    assert hub.fetch(f"hf://me/model@{commit}") == folder


def test_a_damaged_model_is_refused_as_any_other(there):
    files = files_of(MODEL)
    data = next(name for name in files if ".data-" in name)
    there.commit("me/cut", files | {data: files[data][:-1]})
    with pytest.raises(UserError, match="checkpoint") as error:
        loading.load("hf://me/cut")
    assert "\n" not in str(error.value)
    there.commit("me/code", files | {"config.gin": b"import os\n" + files["config.gin"]})
    with pytest.raises(UserError, match="import"):
        loading.load("hf://me/code")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://me/absent", "cannot fetch hf://me/absent: there is no such model"),
        ("hf://me/other", "hf://me/other holds no model of this program: it has no config.gin"),
        ("hf://me/other@v9", "cannot fetch hf://me/other: there is no such model or revision"),
        ("hf://me", "hf://me is not an address: write hf://OWNER/NAME"),
        ("hf://../etc", "is not an address"),
    ],
)
def test_mistakes_are_one_line(there, address, message):
    there.commit("me/other", {"pytorch_model.bin": b"x"})
    with pytest.raises(UserError, match=re.escape(message)) as error:
        loading.load(address)
    assert "\n" not in str(error.value)


def test_a_model_that_is_too_large(there, monkeypatch):
    monkeypatch.setattr(hub, "MOST_BYTES", 1000)
    there.commit("me/large", files_of(MODEL))
    with pytest.raises(UserError, match="more than a model of this program"):
        hub.fetch("hf://me/large")


def test_no_network_and_nothing_written_into_it(there, monkeypatch):
    from huggingface_hub import constants

    there.commit("me/model", files_of(MODEL))
    with pytest.raises(
        UserError, match=r"lies on the hub, where nothing is written: cp -r \S+ runs/model first, and name the copy.$"
    ):
        check_own("hf://me/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot fetch hf://me/unseen") as error:
        hub.fetch("hf://me/unseen")
    assert "\n" not in str(error.value)


def test_names_on_the_hub():
    for name in ("model", "a/b/c", "../x", "a b/c"):
        with pytest.raises(UserError, match="write --output=OWNER/NAME"):
            hub.check_name(name)


def test_an_older_models_evaluation_is_not_the_newer_ones(there, tmp_path):
    folders = []
    for name in ("evaluated", "new"):
        folders.append(tmp_path / name)
        shutil.copytree(MODEL, folders[-1])
    (folders[1] / "evaluation.json").unlink()
    for folder in folders:
        hub.upload(folder, "me/model")
    _, files = there.newest("me/model")
    assert "evaluation.json" not in files
    assert "config.gin" in files


def test_a_folder_is_not_written_under_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"hf://a/b is an address on the Hugging Face hub: give a folder"):
        publish("fashion_mnist", "hf://a/b")
    with pytest.raises(UserError, match=r"hf://a/b is an address on the Hugging Face hub: give a folder"):
        RunDirectory("hf://a/b")
    assert not list(tmp_path.iterdir())


def test_an_entry_of_the_cache_that_is_no_model_is_fetched_again(there):
    commit = there.commit("me/again", files_of(MODEL))
    address = f"hf://me/again@{commit}"
    folder = hub.fetch(address)
    hub.fetch.cache_clear()
    (folder / "config.gin").unlink()
    assert (hub.fetch(address) / "config.gin").is_file()
