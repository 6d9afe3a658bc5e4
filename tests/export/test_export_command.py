"""`python -m tf_pivae.export` on a trained run: versions, warm-up requests, the model card, mistakes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import tf_pivae


@pytest.fixture(scope="module")
def exported(finished, run_command, tmp_path_factory):
    """Two versions of a run: with what is written beside it before the second, and other options."""
    run_dir = tmp_path_factory.mktemp("run") / "evaluated"
    shutil.copytree(finished[0], run_dir)
    export_dir = tmp_path_factory.mktemp("exports") / "tiny"
    command = "export", f"--run_dir={run_dir}", f"--export_dir={export_dir}"
    assert "step 12" in _succeed(run_command(*command))
    rows = [
        {"metric": "bits/dim, K=1", "value": 5.5, "spread": 0.1, "protocol": "", "approximate": False},
        {"metric": "bits/dim, K=4", "value": 5.25, "spread": 0.1, "protocol": "", "approximate": False},
        {"metric": "FID", "value": 123.0, "spread": None, "protocol": "", "approximate": False},
    ]
    (run_dir / "evaluation.json").write_text(json.dumps({"step": 8, "rows": rows, "refused": []}))
    options = "--importance_samples=3", "--temperature=0.5", "--sample_noise=0", "--step=8"
    assert f"{export_dir}/2" in _succeed(run_command(*command, *options))
    return run_dir, export_dir


def _succeed(result):
    assert result.returncode == 0, result.stderr
    return result.stdout


def _card(export_dir, version):
    return json.loads((export_dir / str(version) / "assets.extra/model_card.json").read_text())


def test_moving_average_weights_of_the_step(exported):
    run_dir, export_dir = exported
    assert sorted(path.name for path in export_dir.iterdir()) == ["1", "2"]
    images = np.random.default_rng(0).integers(0, 256, [3, 16, 16, 1], dtype=np.uint8)
    for version, step, samples in ((1, None, 16), (2, 8, 3)):
        signatures = tf.saved_model.load(str(export_dir / str(version))).signatures
        result = signatures["serving_default"](images=images)["log_prob"].numpy()
        averaged, last = (_own(run_dir, images, samples, step, moving) for moving in (True, False))
        np.testing.assert_allclose(result, averaged, rtol=1e-5)
        assert np.abs(result / last - 1.0).max() > 1e-4


def _own(run_dir, images, samples, step, moving_average):
    from tf_pivae import loading

    model = loading.load(run_dir, step, moving_average)
    return np.concatenate([model.log_prob(image[None], samples) for image in images])


def test_warmup_requests_are_real_ones_for_every_signature(exported):
    run_dir, export_dir = exported
    folder = export_dir / "1"
    signatures = tf.saved_model.load(str(folder)).signatures
    sizes = {}
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        outputs = signatures[name](**inputs)
        rows = {len(tensor) for tensor in [*inputs.values(), *outputs.values()]}
        assert len(rows) == 1
        sizes.setdefault(name, []).append(rows.pop())
        if "images" in inputs:
            assert len(np.unique(inputs["images"])) > 1
            assert tf_pivae.load(run_dir).image_shape == inputs["images"].shape[1:]
    assert sizes == {name: [1] for name in signatures}  # TensorFlow Serving's max_batch_size may be as small.


def test_model_card(exported):
    run_dir, export_dir = exported
    first = _card(export_dir, 1)
    second = _card(export_dir, 2)
    assert (first["step"], second["step"]) == (12, 8)
    assert first["bits_per_dim"] is None
    assert first["fid"] is None
    assert second["bits_per_dim"]["value"] == 5.25
    assert second["fid"]["value"] == 123.0
    assert second["export_options"] == {"importance_samples": 3, "temperature": 0.5, "sample_noise": 0.0}
    assert first["data"]["image_shape"] == [16, 16, 1]
    assert first["configuration"] == (run_dir / "config.gin").read_text()
    assert first["versions"]["tensorflow"] == tf.__version__
    assert first["signatures"]["log_prob"]["inputs"] == {"images": "uint8 [N, 16, 16, 1]"}
    assert 0.0 < first["check"]["bits_per_dim"] < 12.0
    assert first["check"]["largest_relative_difference"] < 1e-5


def test_checksums_cover_every_file(exported):
    folder = exported[1] / "1"
    sums = _card(exported[1], 1)["sha256"]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "model_card.json"]
    assert {"saved_model.pb", "variables/variables.index"} <= set(sums)
    results = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert results == sums


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run_dir=nowhere"], "no run in nowhere"),
        (["--step=5"], "no checkpoint of step 5"),
        (["--importance_samples=0"], "importance_samples"),
        (["--temperature=-1"], "temperature"),
        (["--temperature=1e38"], "8 of 8 images have pixels that are NaN: the weights have diverged, or `temperature`"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(exported, run_command, tmp_path, arguments, message):
    arguments = [f"--run_dir={exported[0]}", *arguments, f"--export_dir={tmp_path / 'exports'}"]
    result = run_command("export", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path(tmp_path / "exports").exists() or not list((tmp_path / "exports").iterdir())


def test_a_model_that_differs_when_read_back_is_not_published(exported, tmp_path, monkeypatch):
    """The check before publication, with a model whose own numbers are off."""
    from tf_pivae.export.write.saved_model import PARTS, export_run
    from tf_pivae.models.pivae import PiVAE

    true_log_prob = PiVAE.log_prob
    monkeypatch.setattr(PiVAE, "log_prob", lambda self, *args, **kwargs: 1.001 * true_log_prob(self, *args, **kwargs))
    announced = []
    with pytest.raises(tf_pivae.UserError, match="differs"):
        export_run(exported[0], tmp_path, progress=announced.append)
    assert list(tmp_path.iterdir()) == []
    assert len(announced) == PARTS  # It went through all of them before it was refused.


def test_without_its_data_a_model_is_compared_on_its_own_samples(exported, tmp_path, monkeypatch):
    from tf_pivae import loading
    from tf_pivae.export.write.saved_model import export_run

    def missing(run_dir):
        raise tf_pivae.UserError(f"the data of {run_dir} are elsewhere")

    monkeypatch.setattr(loading, "load_dataset", missing)
    version, _ = export_run(exported[0], tmp_path)
    (request, *_) = tf.data.TFRecordDataset(str(tmp_path / f"{version}/assets.extra/tf_serving_warmup_requests"))
    log = prediction_log_pb2.PredictionLog.FromString(request.numpy())
    assert log.predict_log.request.model_spec.signature_name
    samples = loading.load(exported[0]).sample(8)
    result = tf.saved_model.load(str(tmp_path / str(version))).signatures["log_prob"](images=tf.constant(samples))
    np.testing.assert_allclose(result["log_prob"], _own(exported[0], samples, 16, None, True), rtol=1e-5)
