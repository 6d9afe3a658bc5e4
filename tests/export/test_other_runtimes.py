"""The same numbers from programs that are not Python's TensorFlow: the C API, and OpenVINO."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino
import pytest
import tensorflow as tf

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


def test_c_program_gives_the_models_own_numbers(c_program, grey, graph_session, tmp_path):
    signature = graph_session(grey.folder).signatures["serving_default"]
    (tmp_path / "images.raw").write_bytes(grey.images[:7].tobytes())
    names = [signature.inputs["images"].name, signature.outputs["log_prob"].name]
    sizes = [7, *grey.model.image_shape]
    command = [c_program, grey.folder, *names, tmp_path / "images.raw", *sizes]
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, timeout=120)
    own = [grey.model.log_prob(image[None], 16)[0] for image in grey.images[:7]]
    np.testing.assert_allclose([float(line) for line in output.stdout.split()], own, rtol=RELATIVE)


def test_c_program_gets_the_reason_of_an_error(c_program, grey, graph_session, tmp_path):
    signature = graph_session(grey.folder).signatures["serving_default"]
    (tmp_path / "images.raw").write_bytes(grey.images[:2].tobytes())
    names = [signature.inputs["images"].name, signature.outputs["log_prob"].name]
    command = [c_program, grey.folder, *names, tmp_path / "images.raw", 2, 4, 16, 1]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "error 3: " in result.stderr  # TF_INVALID_ARGUMENT
    assert "[?,8,8,1]" in result.stderr


def test_openvino_gives_the_models_own_numbers(grey):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(grey.folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 7, 64):
        images = grey.images[:batch]
        outputs = {next(iter(port.get_names())): value for port, value in compiled({"images": images}).items()}
        own = np.concatenate([grey.model.log_prob(image[None], 16) for image in images])
        np.testing.assert_allclose(outputs["log_prob"], own, rtol=RELATIVE)
        np.testing.assert_allclose(outputs["bits_per_dim"], -own / (64 * np.log(2.0)), rtol=RELATIVE)
