"""What a configuration builds, measured on TensorFlow's graphs of it: blocks, weights, arithmetic, memory."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import tensorflow as tf

from tf_pivae.data.specification import specification
from tf_pivae.describe.graph_cost import executed, flops, largest_kernels_bytes, peak_bytes
from tf_pivae.noise import RowNoise
from tf_pivae.system.threads import operations_at_a_time
from tf_pivae.training.building import num_elements
from tf_pivae.training.recipe import Recipe

if TYPE_CHECKING:
    from tf_pivae.data.specification import Specification
    from tf_pivae.training.trainer import Trainer

# What TensorFlow holds for an operation of a graph that it runs: optimised copies, the kernel, the executor's tables.
# Measured in steps of 1,500 to 10,000 operations, with what lies idle between tensors in its regions of memory.
_OPERATION_BYTES = 24_000
# Copies of a kernel for each of the convolutions that run at a time: their library brings it into a layout of its own.
# Measured with a model of 100 million weights, one and two operations at a time.
_KERNEL_COPIES = 2


class Block(NamedTuple):
    """A layer of the model as a whole, such as a residual block."""

    part: str  # "head", "VAE" or "critic"
    name: str
    shape: tuple  # of its output for one image
    parameters: int  # trainable weights
    flops: int  # of one image, see `graph_cost.flops`


class Parameters(NamedTuple):
    """Numbers of trainable weights."""

    inference: int  # bottom-up pass, posteriors of their own, sigma: what the GAN trains in its second stage alone
    generative: int  # the rest of the VAE
    head: int
    critic: int

    @property
    def vae(self) -> int:
        """Both passes of the VAE: the column "Generator" of Table 6."""
        return self.inference + self.generative


class Architecture(NamedTuple):
    """What a configuration builds."""

    data: Specification
    conditional: bool
    blocks: list  # of `Block`, in the order of the likelihood's computation, then the critic's
    latents: dict  # group's name -> shape for one image, the top first
    parameters: Parameters
    bound_flops: int  # of one image: one sample of the bound
    sample_flops: int  # of one image: one sample of the model
    step_flops: int  # of one training step, all of the batch
    batch_size: int
    state_bytes: int  # weights, moments, moving average
    step_bytes: int  # most that the tensors of one training step hold, see `graph_cost.peak_bytes`
    workspace_bytes: int  # of the convolutions that run at a time on this machine
    program_bytes: int | None  # what a process that trains holds beside them, on this machine; None: it does not tell

    @property
    def all_bytes(self) -> int:
        """What a process that trains holds, as far as the machine tells."""
        return self.state_bytes + self.step_bytes + self.workspace_bytes + (self.program_bytes or 0)


def configured() -> tuple[Trainer, Specification, int]:
    """Builds, at full size and without the data, the trainer that the configuration describes.

    Returns:
      The `Trainer`, the `Specification` of its data, and the batch size.

    Raises:
      UserError: see `Recipe.build`.
    """
    recipe = Recipe()
    data = specification(recipe.dataset)
    return recipe.build(data), data, recipe.batch_size


def measure(trainer: Trainer, data: Specification, batch_size: int) -> Architecture:
    """Traces the bound, the sampler, the critic and a training step.

    Args:
      trainer: `Trainer`, built.
      data: `Specification` of its images.
      batch_size: int, of the training step.
    """
    pivae = trainer.pivae
    critic = trainer.critic
    shape = tuple(pivae.image_shape)
    conditional = bool(pivae.num_classes)

    def labels(batch):
        return (tf.TensorSpec([batch], tf.int64),) if conditional else ()

    def bound(images, *labels):
        with _calls(pivae) as calls:
            pivae.bound(images, RowNoise(0, 1), False, *labels)
        return calls

    def latents(y, *labels):
        groups, _ = pivae.vae.infer(y, RowNoise(0, 1), *labels)
        return {n: tuple(group.z.shape[1:]) for n, group in zip(pivae.vae.group_names, groups, strict=True)}

    def criticise(images, *labels):
        with _calls(critic, inside=critic.trunk) as calls:
            critic(images, *labels)
        return calls

    def sample(*labels):
        return pivae.sample_continuous(RowNoise(0, 1), labels=labels[0] if labels else None)

    def step(images, *labels):
        return trainer.train_step((images, *labels) if labels else images)

    image = tf.TensorSpec([1, *shape], tf.uint8)
    real = tf.TensorSpec([1, *shape], tf.float32)
    bound_graph, calls = _traced(bound, image, *labels(1))
    blocks = _blocks(calls, _names(pivae), lambda layer: "head" if id(layer) in _names(pivae) else "VAE")
    _, groups = _traced(latents, real, *labels(1))
    if critic is not None:
        _, calls = _traced(criticise, real, *labels(1))
        blocks += _blocks(calls, {}, lambda layer: "critic")
    sample_graph, _ = _traced(sample, *labels(1))
    step_graph, _ = _traced(step, tf.TensorSpec([batch_size, *shape], tf.uint8), *labels(batch_size))
    values = [variable.value for group in trainer.state.values() for variable in group]
    state_bytes = sum(math.prod(value.shape) * value.dtype.size for value in values)
    step_operations = executed(step_graph)
    resident = _resident_bytes()
    return Architecture(
        data=data,
        conditional=conditional,
        blocks=blocks,
        latents=groups,
        parameters=count_parameters(trainer),
        bound_flops=flops(bound_graph.get_operations()),
        sample_flops=flops(sample_graph.get_operations()),
        step_flops=flops(step_operations),
        batch_size=batch_size,
        state_bytes=state_bytes,
        step_bytes=peak_bytes(step_graph),
        workspace_bytes=_KERNEL_COPIES * largest_kernels_bytes(step_operations, operations_at_a_time()),
        program_bytes=None if resident is None else resident - state_bytes + _OPERATION_BYTES * len(step_operations),
    )


def _resident_bytes() -> int | None:
    """Memory of this process now: libraries, traced graphs, variables; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def count_parameters(trainer: Trainer) -> Parameters:
    """The `Parameters` of a `Trainer`."""
    pivae = trainer.pivae
    critic = trainer.critic
    inference = num_elements(pivae.inference_variables)
    head = num_elements(pivae.flow_variables)
    generative = num_elements(pivae.trainable_variables) - inference - head
    return Parameters(inference, generative, head, 0 if critic is None else num_elements(critic.trainable_variables))


def _traced(function, *arguments):
    """The graph of a function, and what the function returned while it was traced."""
    returned = []

    def keeping(*arguments):
        returned.append(function(*arguments))
        return ()

    return tf.function(keeping, autograph=False).get_concrete_function(*arguments).graph, returned[0]


class _Call(NamedTuple):
    layer: object
    shape: tuple
    flops: int


@contextlib.contextmanager
def _calls(whole: keras.layers.Layer, inside: keras.layers.Layer | None = None) -> Iterator[list[_Call]]:
    """Records the outermost calls of the layers of `whole`; those of `inside` are looked into, not recorded."""
    calls = []
    depth = 0
    graph = tf.compat.v1.get_default_graph()

    def recording(layer):
        call = layer.call

        @functools.wraps(call)
        def recorded(*arguments, **keywords):
            nonlocal depth
            before = len(graph.get_operations())
            depth += 1
            try:
                output = call(*arguments, **keywords)
            finally:
                depth -= 1
            if not depth:
                shape = tuple(tf.nest.flatten(output)[0].shape[1:])
                calls.append(_Call(layer, shape, flops(graph.get_operations()[before:])))
            return output

        return recorded

    layers = [layer for layer in whole._flatten_layers(include_self=False) if layer is not inside]
    for layer in layers:
        layer.call = recording(layer)
    try:
        yield calls
    finally:
        for layer in layers:
            del layer.call


def _names(pivae):
    """Names of the head's networks by identity: those of different scales have one name."""
    stages = [] if pivae.flow is None else [stage for scale in pivae.flow.scales for stage in scale]
    return {id(net): f"{stage.name}/{net.name}" for stage in stages for net in [*stage.conditioners, *stage.norms]}


def _blocks(calls, names, part):
    """One `Block` for each layer that has weights, in the order of the first calls."""
    blocks = {}
    for call in calls:
        layer = call.layer
        count = num_elements(call.layer.trainable_variables)
        if not count:
            continue
        earlier = blocks.get(id(layer))
        work = call.flops + (earlier.flops if earlier else 0)
        name = names.get(id(layer), layer.name)
        blocks[id(layer)] = Block(part(layer), name, call.shape, count, work)
    return list(blocks.values())
