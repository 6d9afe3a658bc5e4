"""The exported model gives the model's own numbers, row by row, in programs that do not know this project."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tf_pivae.export.write.warmup import write_warmup_requests
from tf_pivae.noise import SeededRowNoise

RELATIVE = 1e-5  # Float rounding, in another order.

# Loads a SavedModel where the project and what it is built with cannot be imported; answers one request a line.
STRANGER = textwrap.dedent("""
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("tf_pivae", "tensorflow_probability", "tf_keras", "gin"):
                raise ImportError(f"{name} is not here")

    sys.meta_path.insert(0, Blocker())
    import numpy as np
    import tensorflow as tf

    signatures = tf.saved_model.load(sys.argv[1]).signatures
    requests = np.load(sys.argv[2])
    outputs = {}
    for request in sorted({key.split("/")[0] for key in requests}):
        names = [key.split("/")[1] for key in requests if key.split("/")[0] == request]
        inputs = {name: tf.constant(requests[f"{request}/{name}"]) for name in names}
        result = signatures[request.split("-")[0]](**inputs)
        outputs.update({f"{request}/{name}": value.numpy() for name, value in result.items()})
    assert "tf_pivae" not in sys.modules
    np.savez(sys.argv[3], **outputs)
""")

ORDER = np.random.default_rng(1).permutation(64)
BATCHES = {"one": np.arange(1), "seven": np.arange(3, 10), "all": np.arange(64), "shuffled": ORDER}
SEEDS = np.array([*range(60), 2**31, -1, 2**62 + 5, -(2**63)], np.int64)


@pytest.fixture(scope="module")
def answers(grey, tmp_path_factory):
    """What a stranger gets for each signature and batch: dict of "SIGNATURE-BATCH/OUTPUT" -> array."""
    folder = tmp_path_factory.mktemp("stranger")
    requests = {}
    for name, rows in BATCHES.items():
        for signature in ("log_prob", "reconstruct", "encode"):
            requests[f"{signature}-{name}/images"] = grey.images[rows]
        requests[f"sample-{name}/seeds"] = SEEDS[rows]
    np.savez(folder / "requests.npz", **requests)
    (folder / "stranger.py").write_text(STRANGER)
    command = [sys.executable, "stranger.py", grey.folder, "requests.npz", "answers.npz"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


def test_log_prob_is_the_models_own_of_single_images(grey, answers):
    own = np.concatenate([grey.model.log_prob(image[None], 16) for image in grey.images])
    np.testing.assert_allclose(answers["log_prob-all/log_prob"], own, rtol=RELATIVE)
    np.testing.assert_allclose(answers["log_prob-all/bits_per_dim"], -own / (64 * np.log(2.0)), rtol=RELATIVE)
    assert np.std(own) > 1.0  # Images differ: a constant would not do.


def test_sample_is_the_models_own_for_these_seeds(grey, answers):
    own = grey.model.to_uint8(grey.model.sample_continuous(SeededRowNoise(SEEDS))).numpy().astype(int)
    assert np.abs(answers["sample-all/images"].astype(int) - own).max() <= 1
    assert len(np.unique(answers["sample-all/images"].reshape(64, -1), axis=0)) == 64


def test_reconstruct_is_the_models_own_of_single_images(grey, answers):
    own = np.concatenate([grey.model.reconstruct(image[None]) for image in grey.images]).astype(int)
    assert np.abs(answers["reconstruct-all/images"].astype(int) - own).max() <= 1


def test_encode_and_decode_are_the_models_own_of_single_images(grey, answers, graph_session):
    own = [grey.model.encode(image[None]) for image in grey.images[:8]]
    latents = {name: np.concatenate([encoded[name] for encoded in own]) for name in grey.model.latent_shapes}
    for name, z in latents.items():
        np.testing.assert_allclose(answers[f"encode-all/{name}"][:8], z, rtol=1e-4, atol=1e-5, err_msg=name)
    decoded = graph_session(grey.folder)("decode", **latents)["images"].astype(int)
    assert np.abs(decoded - grey.model.decode(latents)).max() <= 1
    assert decoded.std() > 1


@pytest.mark.parametrize("batch", ["one", "seven", "shuffled"])
def test_a_row_does_not_depend_on_its_batch_or_place(answers, batch):
    rows = BATCHES[batch]
    for key in [key for key in answers if f"-{batch}/" in key]:
        alone = answers[key]
        together = answers[key.replace(f"-{batch}/", "-all/")][rows]
        if alone.dtype == np.uint8:
            assert np.abs(alone.astype(int) - together.astype(int)).max() <= 1, key
        elif "log_prob" in key:
            np.testing.assert_allclose(alone, together, rtol=RELATIVE, err_msg=key)
        else:
            np.testing.assert_allclose(alone, together, rtol=RELATIVE, atol=RELATIVE, err_msg=key)


def test_other_rows_of_a_batch_change_nothing(grey, graph_session):
    """The contract itself: the same row, at the same place, beside entirely different rows."""
    run = graph_session(grey.folder)
    one = grey.images[:8].copy()
    other = 255 - grey.images[8:16]
    other[3] = one[3]
    for signature, inputs in (("log_prob", (one, other)), ("reconstruct", (one, other)), ("encode", (one, other))):
        results = [run(signature, images=images) for images in inputs]
        for name in results[0]:
            np.testing.assert_allclose(results[0][name][3].astype(float), results[1][name][3], rtol=1e-6, err_msg=name)
            assert not np.array_equal(results[0][name], results[1][name])


def test_decode_of_encode_is_reconstruct(grey, answers, graph_session):
    run = graph_session(grey.folder)
    latents = {name: answers[f"encode-all/{name}"] for name in grey.model.vae.group_names}
    decoded = run("decode", **latents)["images"].astype(int)
    assert np.abs(decoded - answers["reconstruct-all/images"]).max() <= 1
    assert len(latents) == 3
    moved = run("decode", **{**latents, "top": latents["top"] + 3.0})["images"]
    assert not np.array_equal(moved, decoded)


def test_class_conditional_model(conditional, graph_session):
    model = conditional.model
    images = conditional.images
    labels = conditional.labels
    run = graph_session(conditional.folder)
    own = [model.log_prob(x[None], 2, labels=y[None])[0] for x, y in zip(images, labels, strict=True)]
    np.testing.assert_allclose(run("log_prob", images=images, labels=labels)["log_prob"], own, rtol=RELATIVE)
    other = run("log_prob", images=images, labels=(labels + 1) % 3)["log_prob"]
    assert np.abs(other - own).min() > 0.0
    v = model.sample_continuous(SeededRowNoise(SEEDS), 0.7, 0.5, labels)
    sampled = run("sample", seeds=SEEDS, labels=labels)["images"].astype(int)
    assert np.abs(sampled - model.to_uint8(v).numpy()).max() <= 1
    assert sampled.max() < 200
    latents = run("encode", images=images, labels=labels)
    decoded = run("decode", labels=labels, **latents)["images"].astype(int)
    reconstructed = run("reconstruct", images=images, labels=labels)["images"]
    assert np.abs(decoded - reconstructed).max() <= 1
    own = [model.reconstruct(x[None], labels=y[None])[0] for x, y in zip(images, labels, strict=True)]
    assert np.abs(reconstructed.astype(int) - own).max() <= 1


def test_inputs_have_the_batch_first_and_the_default_is_log_prob(grey, conditional, graph_session):
    for exported in (grey, conditional):
        signatures = graph_session(exported.folder).signatures
        names = {"log_prob", "serving_default", "sample", "reconstruct", "encode", "decode", "image_bytes"}
        assert names <= set(signatures)
        for name in names:
            signature = signatures[name]
            assert ("labels" in signature.inputs) == bool(exported.model.num_classes)
            for info in [*signature.inputs.values(), *signature.outputs.values()]:
                assert info.tensor_shape.dim[0].size == -1
                assert all(size.size > 0 for size in info.tensor_shape.dim[1:])
        assert set(signatures["serving_default"].outputs) == {"log_prob", "bits_per_dim"}


def test_weights_are_stored_once_and_ready_to_use(grey):
    """At most what the model has, and without what the kernels have taken in: gains, batch normalisation."""
    reader = tf.train.load_checkpoint(f"{grey.folder}/variables/variables")
    shapes = [s for name, s in reader.get_variable_to_shape_map().items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    own = {variable.path: int(np.prod(variable.shape)) for variable in grey.model.variables}
    taken_in = ("g", "gamma", "beta", "mean", "variance")
    needed = sum(size for path, size in own.items() if path.split("/")[-1] not in taken_in)
    assert needed <= sum(int(np.prod(shape)) for shape in shapes) < sum(own.values())
    gains = sum(path.endswith("/g") for path in own)
    assert gains > 10
    assert len(shapes) <= len(own) - gains


def test_no_norm_is_left_in_the_graphs(grey):
    for name, function in grey.functions.items():
        graph = function.graph.as_graph_def()
        nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
        assert "Conv2D" in {node.op for node in nodes}
        roots = [node.name for node in nodes if node.op == "Sqrt"]
        assert [root for root in roots if "channel_normalization" not in root] == [], name


def test_warmup_requests_of_a_class_conditional_model(conditional, graph_session, tmp_path):
    """Real images and labels, in the graph's own terms; what the export command writes for any model."""
    run = graph_session(conditional.folder)
    images = conditional.images[:3]
    labels = conditional.labels[:3]
    write_warmup_requests(tmp_path, "name", conditional.functions, images, labels)
    signatures = set()
    for record in tf.data.TFRecordDataset(str(tmp_path / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        outputs = run(request.model_spec.signature_name, **inputs)
        assert len({len(array) for array in [*inputs.values(), *outputs.values()]}) == 1
        np.testing.assert_array_equal(inputs["labels"], np.resize(labels, len(inputs["labels"])))
        signatures.add(request.model_spec.signature_name)
    assert signatures == set(run.signatures) - {"__saved_model_init_op"}
