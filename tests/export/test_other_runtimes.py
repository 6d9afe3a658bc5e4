"""The same numbers from programs that are not this one: plain TensorFlow, the C API, and OpenVINO."""

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import openvino
import pytest
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import affine, logit
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
from tf_pivae.models.dequantization import EdgeBins, NormalEdgeBins, UniformDequantization
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE

RELATIVE = 1e-4
PROGRAM = Path(__file__).with_name("run_signature.c")


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    """The C program, built against the headers and libraries of the TensorFlow package."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: `cc` is not on the PATH")
    program = tmp_path_factory.mktemp("c") / "run_signature"
    package = Path(tf.__file__).parent
    libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    command = [compiler, "-O1", "-Wall", "-Werror", str(PROGRAM), "-o", str(program), f"-I{package / 'include'}"]
    subprocess.run([*command, f"-L{package}", f"-Wl,-rpath,{package}", *libraries], check=True)
    return program


class Kind(NamedTuple):
    """A kind of model: its VAE, the scales of its head (0: no head), its classes, its dequantisation."""

    vae: Callable
    num_scales: int
    num_classes: int
    dequantization: type

    def build(self):
        """The model, for images of 8x8."""
        head = functools.partial(RealNVP, num_scales=self.num_scales, num_couplings=1, num_blocks=1, width=4)
        return PiVAE(
            (8, 8, 1),
            vae=self.vae,
            flow=head if self.num_scales else None,
            preprocessing=logit if self.num_scales else affine,
            num_classes=self.num_classes,
            dequantization=self.dequantization,
        )


def _plain(**options):
    return plain_vae(**options, widths=(8, 8), top_channels=3, latent_channels=2)


def _residual(**options):
    sizes = dict(stem_width=4, widths=(8, 8), top_channels=2, latent_channels=2)
    return residual_vae(**options, **sizes, posterior=IAFPosterior)


KINDS = {
    "plain": Kind(_plain, 1, 0, UniformDequantization),
    "plain_without_head": Kind(_plain, 0, 0, EdgeBins),
    "plain_two_scales": Kind(_plain, 2, 0, EdgeBins),
    "plain_three_scales": Kind(_plain, 3, 0, NormalEdgeBins),
    "plain_conditional": Kind(_plain, 1, 3, EdgeBins),
    "residual_two_scales": Kind(_residual, 2, 0, UniformDequantization),
    "residual_three_scales_conditional": Kind(_residual, 3, 3, EdgeBins),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_gives_its_own_numbers(name, randomize, c_program, graph_session, tmp_path):
    """OpenVINO, the C API and TensorFlow, beside the model's own method for one image at a time."""
    kind = KINDS[name]
    levels = np.random.default_rng(0).integers(-64, 320, [3, 8, 8, 1])
    images = levels.clip(0, 255).astype(np.uint8)  # Some pixels at either end.
    keras.utils.set_random_seed(0)
    model = randomize(kind.build(), scale=0.05)
    folder = str(tmp_path / "1")
    write_saved_model(model, folder, Options(importance_samples=2))
    inputs = {"images": images, **({"labels": np.full(3, 1)} if kind.num_classes else {})}
    label = np.array([1]) if kind.num_classes else None
    own = [model.log_prob(image[None], 2, labels=label)[0] for image in images]
    session = graph_session(folder)
    np.testing.assert_allclose(session("serving_default", **inputs)["log_prob"], own, rtol=RELATIVE)
    np.testing.assert_allclose(_openvino(folder)(**inputs)["log_prob"], own, rtol=RELATIVE)
    _assert_c_program_gives(own, c_program, folder, session, images, tmp_path)


def _assert_c_program_gives(own, program, folder, session, images, tmp_path):
    result = _run(program, folder, session.signatures["serving_default"], images, tmp_path)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose([float(line) for line in result.stdout.split()], own, rtol=RELATIVE)


def _openvino(folder):
    """The signature `serving_default` in OpenVINO, a function of named inputs."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def outputs(**inputs):
        return {next(iter(port.get_names())): value for port, value in compiled(inputs).items()}

    return outputs


def _run(program, folder, signature, images, tmp_path, shape=None):
    """Runs the C program; images of a conditional model are of class 1."""
    (tmp_path / "images.raw").write_bytes(images.tobytes())
    names = [signature.inputs["images"].name, signature.outputs["log_prob"].name]
    labels = [signature.inputs["labels"].name, 1] if "labels" in signature.inputs else []
    command = [program, folder, *names, tmp_path / "images.raw", *(shape or images.shape), *labels]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def grey_session(grey, graph_session):
    return graph_session(grey.folder)


def test_c_program_gets_the_reason_of_an_error(c_program, grey, grey_session, tmp_path):
    signature = grey_session.signatures["serving_default"]
    result = _run(c_program, grey.folder, signature, grey.images[:2], tmp_path, shape=(2, 4, 16, 1))
    assert result.returncode == 1
    assert "error 3: " in result.stderr  # TF_INVALID_ARGUMENT
    assert "[?,8,8,1]" in result.stderr


def test_batches_of_any_size(grey, c_program, grey_session, tmp_path):
    """And a head of one scale behind a residual VAE, which is none of `KINDS`."""
    own = np.concatenate([grey.model.log_prob(image[None], 16) for image in grey.images[:20]])
    compiled = _openvino(grey.folder)
    for batch in (1, 7, 20):
        outputs = compiled(images=grey.images[:batch])
        np.testing.assert_allclose(outputs["log_prob"], own[:batch], rtol=RELATIVE)
        np.testing.assert_allclose(outputs["bits_per_dim"], -own[:batch] / (64 * np.log(2.0)), rtol=RELATIVE)
    _assert_c_program_gives(own[:7], c_program, grey.folder, grey_session, grey.images[:7], tmp_path)
