"""What a training adds up has one order, so that it is bitwise the same whichever operation is done with first.

TensorFlow's sum of three and more (AddN), which is where gradients meet, begins with the first summand whose memory it
may take over, and that is one which nobody else is still reading.
"""

from collections.abc import Iterator
from pathlib import Path

import gin
import pytest
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.training.recipe import Recipe

TESTS = Path(__file__).resolve().parents[1]
OPTIONS = TESTS.parent / "gin/options"
PLAIN = ("PiVAE.vae=@plain_vae", "plain_vae.widths=(8, 8)", "plain_vae.top_channels=4", "plain_vae.latent_channels=2")
# Operations whose result may lie in the memory of their first input.
_SAME_MEMORY = {
    "Identity",
    "Reshape",
    "Squeeze",
    "ExpandDims",
    "StopGradient",
    "PreventGradient",
    "Slice",
    "StridedSlice",
}


def _is_zero(tensor: tf.Tensor) -> bool:
    op = tensor.op
    value = tf.get_static_value(op.inputs[1] if op.type == "Fill" else tensor)
    return op.type == "ZerosLike" or (value is not None and not value.any())


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in _SAME_MEMORY:
        tensor = tensor.op.inputs[0]
    return tensor


def _readers(tensor: tf.Tensor) -> int:
    """How many operations read the memory of a tensor."""
    count = 0
    for op in tensor.consumers():
        count += _readers(op.outputs[0]) if op.type in _SAME_MEMORY else 1
    return count


def _graphs(graph: tf.Graph) -> Iterator[tf.Graph]:
    """A graph and those of its branches."""
    yield graph
    for function in graph._functions.values():
        yield from _graphs(function.graph)


def without_order(graph: tf.Graph) -> list[str]:
    """The names of sums of three and more, zeros aside, whose first summand others read, too."""
    sums = [op for part in _graphs(graph) for op in part.get_operations() if op.type == "AddN"]
    return [
        op.name
        for op in sums
        if sum(not _is_zero(_origin(x)) for x in op.inputs) > 2 and _readers(_origin(op.inputs[0])) > 1
    ]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    loading.register()
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    ("files", "bindings"),
    [
        ([TESTS / "sweeps/plain.gin"], []),
        ([TESTS / "tiny.gin"], []),
        (
            [TESTS / "tiny.gin", OPTIONS / "edge_bins.gin", OPTIONS / "gradient_balance.gin"],
            [
                *PLAIN,
                "plain_vae.stem=@ResidualInput",
                "RealNVP.num_scales=2",
                "train.class_conditional=True",
                "PiVAE.dequantization=@NormalEdgeBins",
            ],
        ),
        ([TESTS / "tiny.gin", OPTIONS / "gradient_accumulation.gin", OPTIONS / "rematerialization.gin"], []),
    ],
    ids=["VAE", "residual nets, IAF", "plain nets, two scales, labels", "in parts, rematerialised"],
)
def test_of_a_training_step(files: list[Path], bindings: list[str]) -> None:
    loading.parse_gin([str(file) for file in files], bindings)
    recipe = Recipe()
    data = recipe.dataset()
    trainer = recipe.build(data)
    specification = tf.TensorSpec([recipe.batch_size, *data.image_shape], tf.uint8)
    if recipe.class_conditional:
        specification = (specification, tf.TensorSpec([recipe.batch_size], tf.int64))
    step = tf.function(trainer.train_step, autograph=False)
    assert without_order(step.get_concrete_function(specification).graph) == []


def test_what_has_no_order_is_found() -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        a = x * 2.0
        return tf.raw_ops.AddN(inputs=[tf.reshape(a, [4]), x + 1.0, tf.exp(x)]) + tf.exp(a)

    specification = tf.TensorSpec([4])
    assert len(without_order(tf.function(step).get_concrete_function(specification).graph)) == 1
