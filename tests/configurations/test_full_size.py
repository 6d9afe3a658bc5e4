"""Every gin file at full size: it builds, trains a step, its head inverts, it samples, and its checkpoints come back.

One process for all; files that come to the same model share the expensive part.
"""

import re
import shutil
import subprocess
import sys

import gin
import gin_tree
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.describe import architecture
from tf_pivae.noise import RowNoise
from tf_pivae.paper.numbers import row_names
from tf_pivae.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
_BATCH = 2
_built = set()
_counted = {}  # What `_counts` says of a file that has been built, by its name.


@pytest.fixture(autouse=True)
def _fresh_session():
    yield
    keras.backend.clear_session()


def _random_data(trainer, data):
    rng = np.random.default_rng(0)
    images = rng.integers(0, trainer.pivae.num_bins, (_BATCH, *data.image_shape), dtype=np.uint8)
    labels = rng.integers(0, data.num_classes, _BATCH) if trainer.pivae.num_classes else None
    return images, labels


def _identifier(configuration):
    return configuration[0][-1]


@pytest.mark.parametrize("configuration", gin_tree.configurations(), ids=_identifier)
def test_builds_trains_inverts_samples_and_is_saved(configuration, tmp_path):
    files, bindings = configuration
    loading.parse_gin(files, bindings)
    trainer, data, batch_size = architecture.configured()
    if len(files) == 1:
        _counted[files[0]] = _counts(trainer, data, batch_size)
    key = gin.operative_config_str(), data.image_shape
    if key in _built:
        return
    _built.add(key)
    images, labels = _random_data(trainer, data)
    trainer.initialize(images, labels, weights=not trainer.inference_only)
    _takes_a_step(trainer, images, labels)
    _head_inverts(trainer.pivae, images)
    _gives_bound_and_samples(trainer.pivae, images, labels)
    _is_saved(trainer, tmp_path)


def _takes_a_step(trainer, images, labels):
    parts = _trained(trainer)
    before = {name: [variable.numpy() for variable in variables] for name, variables in parts.items()}
    metrics = trainer.train_step(images if labels is None else (images, labels))
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert metrics["skipped_generator"] == 0.0
    assert int(trainer.step) == 1
    for name, variables in parts.items():
        moved = [np.any(old != new.numpy()) for old, new in zip(before[name], variables, strict=True)]
        # The head's couplings end in layers of zeros, which keep the first gradient from the rest.
        assert any(moved) if name == "head" else all(moved), name


def _trained(trainer):
    """Variables that a step moves, by part."""
    pivae = trainer.pivae
    tails = getattr(pivae.dequantization, "tails", None)
    waiting = [] if tails is None else [*(v for conv in tails.convs for v in conv.variables), tails.output_conv.v]
    inference = {id(variable) for variable in pivae.inference_variables}
    head = {id(variable) for variable in pivae.flow_variables}
    rest = [v for v in pivae.trainable_variables if id(v) not in inference | head]
    parts = {"generative": [] if trainer.inference_only else rest}
    if trainer.likelihood_weight:
        # The network of the tails ends in a layer of zeros, too: its gain and bias move first.
        parts["inference"] = [v for v in pivae.inference_variables if all(v is not other for other in waiting)]
        parts["head"] = [] if trainer.inference_only else pivae.flow_variables
    if trainer.critic is not None:
        # Kernels: while both logits lie within the hinge loss' margin, the pulls on the last bias cancel out.
        parts["critic"] = [v for v in trainer.critic.trainable_variables if len(v.shape) > 1]
    return {name: variables for name, variables in parts.items() if variables}


def _head_inverts(pivae, images):
    if pivae.flow is None:
        return
    t = pivae.preprocessing().forward(pivae.dequantize(images, RowNoise(0, _BATCH)))
    bijector = pivae.flow.bijector()
    y = bijector.forward(t)
    assert y.shape == t.shape, "the VAE models a tensor of the image's own shape"
    np.testing.assert_allclose(pivae.flow.bijector().inverse(y), t, atol=1e-4)
    forward = bijector.forward_log_det_jacobian(t, event_ndims=3).numpy()
    inverse = pivae.flow.bijector().inverse_log_det_jacobian(y, event_ndims=3).numpy()
    assert np.isfinite(forward).all()
    np.testing.assert_allclose(forward, -inverse, rtol=1e-6, atol=1e-3)


def _gives_bound_and_samples(pivae, images, labels):
    bound = pivae.bound(images, RowNoise(0, _BATCH), labels=labels)
    assert np.isfinite(bound.log_prob).all()
    samples = pivae.to_uint8(pivae.sample_continuous(RowNoise(0, _BATCH), labels=labels)).numpy()
    assert samples.shape == images.shape
    assert samples.std() > 0


def _is_saved(trainer, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, trainer.state)
    variables = [variable for group in trainer.state.values() for variable in group]
    saved = [variable.numpy() for variable in variables]
    for variable in variables:
        variable.assign(tf.zeros(variable.shape, variable.dtype))
    assert checkpoints.restore(trainer.state) == 1
    shutil.rmtree(tmp_path / "checkpoints")
    for value, restored in zip(saved, variables, strict=True):
        np.testing.assert_array_equal(value, restored, err_msg=restored.path)


def _counts(trainer, data, batch_size):
    """A row of the table: image shape, classes, `Parameters` and batch size."""
    return data.image_shape, trainer.pivae.num_classes, architecture.count_parameters(trainer), batch_size


@pytest.mark.parametrize("name", row_names())
def test_committed_table_has_the_counts_of_the_code(name):
    file = f"paper/{name}.gin"
    if file not in _counted:
        loading.parse_gin([file])
        _counted[file] = _counts(*architecture.configured())
    image_shape, num_classes, parameters, batch_size = _counted[file]
    (line,) = re.findall(rf"^\| {name} \|.*$", (gin_tree.ROOT / "docs/architectures.md").read_text(), re.MULTILINE)
    cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
    assert cells[1] == "x".join(map(str, image_shape))
    assert cells[2] == (str(num_classes) if num_classes else "-")
    assert [int(cell) for cell in cells[3:7]] == list(parameters)
    assert cells[10].endswith(f"({batch_size})")


def _peak(batch_size, *configuration):
    """Bytes of a step's tensors as estimated, and the most that a process which takes a few steps holds."""
    script = gin_tree.ROOT / "tests/configurations/peak_memory.py"
    command = [sys.executable, script, str(batch_size), *configuration]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(map(float, output.split()[-2:]))


def test_memory_estimate_against_the_process():
    """What a training of Table 1's PiVAE holds, as `--describe` says it, and what 48 images more need, on the CPU."""
    command = [sys.executable, "-m", "tf_pivae.train", "--describe", "--gin_file=paper/pivae.gin"]
    text = subprocess.run([*command, "--gin_param=batch_size=16"], check=True, capture_output=True, text=True).stdout
    described = 1e9 * float(re.search(r"^memory +about ([\d.]+) GB", text, re.MULTILINE)[1])
    estimated_16, measured_16 = _peak(16, "paper/pivae.gin")
    estimated_64, measured_64 = _peak(64, "paper/pivae.gin")
    assert described == pytest.approx(measured_16, rel=0.15)
    assert estimated_64 - estimated_16 == pytest.approx(measured_64 - measured_16, rel=0.3)
