"""What a device computes beside the processor's float32: within the error of float32, TensorFloat-32 and bfloat16."""

import functools

import devices
import gin
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import run_replicas

from tf_pivae.layers.convolution import ConvolutionPrecision
from tf_pivae.layers.convolution_ops import Convolution

pytestmark = pytest.mark.device

FORMATS = ["float32", "tensor_float_32", "bfloat16"]
# The error of a sum of products, relative to the sum of their magnitudes. Products are summed up in float32;
# TensorFloat-32 cuts or rounds two factors to 11 bits, bfloat16 rounds two factors and the sum to 8.
ERRORS = {
    "float32": 2.0**-18,
    "tensor_float_32": (1.0 + 2.0**-10) ** 2 - 1.0 + 2.0**-18,
    "bfloat16": (1.0 + 2.0**-8) ** 3 - 1.0 + 2.0**-18,
}


def _with_gradients(device, convolve, x, kernel, upstream):
    """A convolution, and its gradients by both arguments."""
    with tf.device(device), tf.GradientTape() as tape:
        x = tf.constant(x)
        kernel = tf.constant(kernel)
        tape.watch([x, kernel])
        y = convolve(x, kernel)
        gradients = tape.gradient(y, [x, kernel], upstream)
    assert all(tensor.device.endswith(device) for tensor in (y, *gradients))
    return [y.numpy(), *(gradient.numpy() for gradient in gradients)]


@pytest.mark.parametrize("dtype", FORMATS)
def test_convolutions_are_those_of_the_processor(dtype, record_property):
    rng = np.random.default_rng(0)
    shapes = ([8, 16, 16, 64], [3, 3, 64, 64], [8, 8, 8, 64])  # Images, kernel, gradient from above.
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    convolve = Convolution(2, (16, 16))
    exact = _with_gradients("CPU:0", convolve, *arrays)
    magnitudes = _with_gradients("CPU:0", convolve, *map(np.abs, arrays))
    precision = ConvolutionPrecision("bfloat16" if dtype == "bfloat16" else "float32")
    with devices.tensor_float_32(dtype == "tensor_float_32"):
        results = _with_gradients(devices.names()[-1], functools.partial(precision, convolve), *arrays)
    errors = [np.max(np.abs(r - e) / m) for r, e, m in zip(results, exact, magnitudes, strict=True)]
    record_property("largest relative error", f"{max(errors):.1e} of {ERRORS[dtype]:.1e}")
    assert max(errors) < ERRORS[dtype]
    if dtype == "bfloat16":
        assert min(errors) > ERRORS["float32"]


@pytest.fixture(autouse=True)
def _precision_of_its_own():
    yield
    gin.clear_config()


# Of the step's losses: float32 as two replicas beside one.
TOLERANCES = {"float32": 2e-4, "tensor_float_32": 5e-3, "bfloat16": 2e-2}
OPTIONS = dict(steps=1, adversarial_weight=3.0, learning_rate=1e-3)


@pytest.fixture(scope="module")
def exact(randomize):
    """The losses of a step in float32 on the processor."""
    return run_replicas(randomize, ["CPU:0"], **OPTIONS)[2][0]


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_step_is_that_of_the_processor(dtype, exact, randomize, record_property):
    """Both losses, the penalty and the gradients' norms, whose convolutions are differentiated twice."""
    with gin.unlock_config():
        gin.bind_parameter("ConvolutionPrecision.dtype", "bfloat16" if dtype == "bfloat16" else "float32")
    with devices.tensor_float_32(dtype == "tensor_float_32"):
        (losses,) = run_replicas(randomize, devices.names()[-1:], **OPTIONS)[2]
    assert losses.keys() == exact.keys()
    errors = {name: abs(losses[name][0] - v) / max(1.0, abs(v)) for name, (v,) in exact.items()}
    record_property("largest error", f"{max(errors.values()):.1e} ({max(errors, key=errors.get)})")
    assert max(errors.values()) < TOLERANCES[dtype], errors
