"""Exported models in a process: TensorFlow and OpenVINO give the model's own numbers, and say what they cannot do."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import forking
import numpy as np
import pytest
import servers
import talking

import tf_pivae.export
from tf_pivae.errors import UserError
from tf_pivae.export import load
from tf_pivae.export.client import ServingError
from tf_pivae.export.requests import RequestError
from tf_pivae.export.runtimes.opening import open_runtime
from tf_pivae.export.write.model_card import write_model_card

PAGE = Path(__file__).resolve().parents[2] / "docs/runtimes.md"


def _own(exported, count):
    """The model's log_prob of single images, from the model that was exported."""
    return np.concatenate([exported.model.log_prob(image[None], 16) for image in exported.images[:count]])


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_the_models_own_numbers(grey, runtime):
    model = load(grey.folder, runtime, batch_size=3)
    result = model.log_prob(grey.images[:7])
    own = _own(grey, 7)
    images = grey.images[:7]
    np.testing.assert_allclose(result.log_prob, own, rtol=1e-5)
    np.testing.assert_allclose(model.bits_per_dim(images), -own / (64 * np.log(2.0)), rtol=1e-5)
    latents = model.encode(images)
    z = grey.functions["encode"](images=images)
    assert set(latents) == set(z)
    for name, value in latents.items():
        np.testing.assert_allclose(value, z[name], atol=1e-5)
    reconstructed = np.concatenate([grey.model.reconstruct(image[None]) for image in images])
    for decoded in (model.reconstruct(images), model.decode(latents)):
        assert decoded.dtype == np.uint8
        assert talking.same(decoded, reconstructed)


def test_openvino_cuts_any_number_of_rows(grey):
    """1 alone, 8 and more side by side, and what is left; a call that failed leaves nothing behind."""
    runtime = open_runtime(grey.folder, "openvino")
    images = np.concatenate([grey.images[:7]] * 4)[:27]
    own = np.concatenate([_own(grey, 7)] * 4)[:27]
    for count in (1, 2, 8, 27):
        result = runtime.run("log_prob", {"images": images[:count]})
        np.testing.assert_allclose(result["log_prob"], own[:count], rtol=1e-5)
        with pytest.raises(RequestError, match="OpenVINO"):
            runtime.run("log_prob", {"images": np.zeros([count, 3, 3, 1], np.uint8)})
    with pytest.raises(RequestError, match="the batch is empty"):
        runtime.run("log_prob", {"images": images[:0]})


def test_what_the_graph_refuses_is_a_sentence(grey):
    runtime = open_runtime(grey.folder, "tensorflow")
    for inputs, message in (
        ([], "the batch is empty; send at least one row."),
        ([b"GIF"], "image_bytes: every string must be a whole PNG or JPEG file."),
        ([talking.PNG], r"image_bytes: every file must .*another kind\): \[4 4 1\]\."),
    ):
        with pytest.raises(RequestError) as error:
            runtime.run("image_bytes", {"image_bytes": np.array(inputs, object)})
        assert re.fullmatch(message, str(error.value))


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
@pytest.mark.parametrize(
    ("signature", "change", "message"),
    [
        ("reconstruct", {"images": lambda images: images + 56}, r"images: pixels must lie in \[0, 200\)\."),
        ("reconstruct", {"labels": lambda labels: labels + 3}, r"labels: must lie in \[0, 3\)\."),
        ("reconstruct", {"labels": lambda labels: labels - 3}, r"labels: must lie in \[0, 3\)\."),
        ("reconstruct", {"labels": lambda labels: labels[:1]}, "same number of rows|as many rows"),
        ("decode", {"top": lambda z: z * np.nan}, "must be finite; got NaN or infinity."),
    ],
)
def test_ranges(conditional, tmp_path, runtime, signature, change, message):
    """What the graph asserts, OpenVINO leaves out: it would give numbers for what is no image of the model."""
    folder = tmp_path / "1"
    shutil.copytree(conditional.folder, folder)
    write_model_card(folder, {"data": {"num_bins": 200, "num_classes": 3}})
    model = open_runtime(folder, runtime)
    shapes = {name: spec.shape for name, spec in model.signatures[signature].inputs.items()}
    inputs = {name: np.zeros([2, *shape], np.float32) for name, shape in shapes.items()}
    inputs["labels"] = np.array([0, 2])
    if "images" in inputs:
        inputs["images"] = np.full([2, 4, 4, 3], 199, np.uint8)
    model.run(signature, inputs)
    with pytest.raises(RequestError) as error:
        model.run(signature, {**inputs, **{name: function(inputs[name]) for name, function in change.items()}})
    assert error.value.code == "INVALID_ARGUMENT"
    assert re.search(message, str(error.value))


def test_bfloat16_is_near(grey):
    """Rounded to 8 bits, or float32 where the processor has no bfloat16."""
    result = load(grey.folder, "openvino", precision="bf16").log_prob(grey.images[:7]).log_prob
    np.testing.assert_allclose(result, _own(grey, 7), rtol=5e-3)


def test_what_openvino_cannot_run_is_said(grey):
    model = load(grey.folder, "openvino")
    for _ in range(2):  # Also the second time.
        with pytest.raises(ServingError, match=r"cannot run signature 'sample', but TensorFlow can \(.*Random"):
            model.sample([1])
    with pytest.raises(ServingError, match="UNIMPLEMENTED"):
        model.log_prob_of_files([talking.PNG])
    assert load(grey.folder).sample([1]).shape == (1, 8, 8, 1)


def test_openvino_reads_a_version_from_wherever_its_reader_has_gone(grey, tmp_path, monkeypatch):
    """Signatures are compiled when they are first run; until then their files must be there."""
    folder = tmp_path / "versions" / "1"
    shutil.copytree(grey.folder, folder)
    monkeypatch.chdir(tmp_path)
    model = load("versions", "openvino")
    monkeypatch.chdir("/")
    np.testing.assert_allclose(model.log_prob(grey.images[:1]).log_prob, _own(grey, 1), rtol=1e-5)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ServingError, match=f"INTERNAL: {folder} was removed: put it back"):
        model.encode(grey.images[:1])
    (tmp_path / "elsewhere").rename(folder)
    assert model.encode(grey.images[:1])


def test_openvino_starts_without_tensorflow(grey):
    script = (
        "import sys, numpy as np, tf_pivae.export\n"
        f"model = tf_pivae.export.load({grey.folder!r}, runtime='openvino')\n"
        "print(model.log_prob(np.zeros([1, 8, 8, 1], np.uint8)).log_prob[0], 'tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    number, imported = result.stdout.split()
    np.testing.assert_allclose(float(number), grey.model.log_prob(np.zeros([1, 8, 8, 1], np.uint8), 16)[0], rtol=1e-5)
    assert imported == "False"


def test_a_class_conditional_model(conditional):
    """Latents and images of labels; its log_prob is compared where OpenVINO takes the graph (`test_other_runtimes`)."""
    images = conditional.images[:5] % 200
    labels = conditional.labels[:5]
    ours, openvino = (load(conditional.folder, runtime) for runtime in ("tensorflow", "openvino"))
    assert talking.same(openvino.reconstruct(images, labels), ours.reconstruct(images, labels))
    assert np.any(ours.reconstruct(images, labels) != ours.reconstruct(images, (labels + 1) % 3))


def test_the_newest_version_of_a_folder(published, tmp_path):
    for version, folder in zip((2, 10), published.folders, strict=True):
        (tmp_path / str(version)).symlink_to(folder)
    assert talking.same(load(tmp_path).sample(published.tables[1].seeds), published.tables[1].sampled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "python -m tf_pivae.export makes one"),
        ({"runtime": "torch"}, "there are tensorflow, openvino"),
        ({"runtime": "openvino", "precision": "f16"}, "there are f32, bf16"),
        ({"precision": "bf16"}, "only OpenVINO"),
    ],
)
def test_mistakes_are_said(grey, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load(grey.folder if options else tmp_path, **options)


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_a_damaged_model_is_a_users_mistake(tmp_path, runtime):
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path, runtime)


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_damaged_variables_are_a_users_mistake(grey, tmp_path, runtime):
    """OpenVINO looks at no checksum of its own: it would compute with the damaged ones."""
    folder = tmp_path / "1"
    shutil.copytree(grey.folder, folder)
    write_model_card(folder, {})
    (data,) = folder.glob("variables/variables.data*")
    whole = data.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:1000], whole[:middle] + bytes([whole[middle] ^ 0x41]) + whole[middle + 1 :]):
        data.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot be loaded \(.* is damaged.*\): export the run again\.$"):
            load(folder, runtime)


def test_load_is_all_that_the_package_offers():
    assert tf_pivae.export.load is load
    with pytest.raises(AttributeError, match="nonsense"):
        tf_pivae.export.nonsense  # noqa: B018


def test_the_development_server_with_openvino(published, tmp_path):
    (tmp_path / "1").symlink_to(published.folders[0])
    table = published.tables[0]
    with servers.development(tmp_path, "--runtime=openvino") as server, talking.connect(server, "grpc") as client:
        assert talking.same(client.reconstruct(table.images), table.reconstructed)
        assert talking.same(client.encode(table.images)["top"], table.latents["top"])
        assert talking.same(client.decode(table.prior), table.decoded)
        with pytest.raises(ServingError, match="UNIMPLEMENTED"):
            client.sample([1])
        status, answer = talking.post(server, talking.by_rows("sample", 1))
        assert status == 501
        assert "TensorFlow can" in answer["error"]


def test_the_program_of_the_page(grey, tmp_path):
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "exports/demo").mkdir(parents=True)
    (tmp_path / "exports/demo/1").symlink_to(grey.folder)
    (tmp_path / "program.py").write_text(text)
    result = forking.run(tmp_path / "program.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    bits, shape = result.stdout.splitlines()
    assert len(bits.split()) == 3
    assert shape == "(3, 8, 8, 1)"
