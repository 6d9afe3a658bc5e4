"""The package's side of every case."""

from __future__ import annotations

import collections
import functools
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gin
import keras
import numpy as np
import tensorflow as tf

from benchmarks import cases
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.data.arrays import ImageSplit
from tf_pivae.data.batches import train_batches
from tf_pivae.describe import graph_cost
from tf_pivae.models.critic import plain_critic, residual_critic
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import Gaussian, GaussianPosterior, IAFPosterior, standard_gaussian
from tf_pivae.models.pivae import PiVAE
from tf_pivae.system import memory
from tf_pivae.system.rows import RowFunction
from tf_pivae.system.threads import thread_variables
from tf_pivae.training.trainer import Trainer

if TYPE_CHECKING:
    from tf_pivae.models.critic import Critic


def setup(system: str, threads: int, logical_cpus: int, device: str) -> None:
    """Memory and threads as the commands have them; logical devices, before TensorFlow starts them."""
    del system, device  # TensorFlow takes the GPUs that it sees.
    memory.keep_freed_memory()
    intra_op, between, _ = thread_variables(threads).values()
    tf.config.threading.set_intra_op_parallelism_threads(int(intra_op))
    tf.config.threading.set_inter_op_parallelism_threads(int(between))
    if logical_cpus > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    for gpu in tf.config.list_physical_devices("GPU"):  # Others, asleep, hold memory there, too.
        tf.config.experimental.set_memory_growth(gpu, True)


def wait() -> None:
    """Returns when the devices have done what they were asked for."""
    tf.test.experimental.sync_devices()


def device_peak() -> int:
    """The most bytes that tensors held on the first GPU since `forget`."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def forget() -> None:
    """Lets go of the last case's graphs."""
    keras.backend.clear_session()
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")


def prepare(system: str, case: dict) -> tuple[Callable[[], Any], Callable[[], int] | None]:
    """Returns a function that runs the case once and waits for it, and a function that counts its arithmetic."""
    del system
    return {
        "train": _train,
        "train_from_input": _train,
        "input": _input,
        "log_prob": _log_prob,
        "log_prob_16": _log_prob,
        "sample": _sample,
        "reconstruct": _reconstruct,
        "flow": _flow,
        "flow_inverse": _flow_inverse,
        "iaf": _iaf,
        "convolution": _convolution,
        "operation": _operation,
    }[case["task"]](case)


def profile(call: Callable[[], Any], calls: int) -> dict[str, float]:
    """TensorFlow's profiler over some calls: a dict of an operation's type -> its seconds a call, kernels alone."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(calls):
                call()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # A kernel's event is called NAME:TYPE; those of the runtime are not, or have no operation's name.
                match = re.fullmatch(r"[\w/.-]+:([A-Z_]\w+)(#.*)?", plane.event_metadata[event.metadata_id].name)
                if match:
                    seconds[match[1]] += event.duration_ps / 1e12 / calls
    return dict(seconds)


def _uncounted():
    raise ValueError("arithmetic is counted for training steps, flows and convolutions alone.")


def _arithmetic(function, *arguments):
    """A function that counts the arithmetic of a call of a `tf.function`."""
    return lambda: graph_cost.flops(graph_cost.executed(function.get_concrete_function(*arguments).graph))


def images_of(case: dict, count: int | None = None) -> np.ndarray:
    """Random images, uint8 [count, side, side, 3]."""
    shape = [count or case["batch"], case["side"], case["side"], 3]
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def model_of(case: dict) -> PiVAE:
    """The case's `PiVAE`."""
    size = cases.size(case["kind"], case["factor"], case.get("latents"))
    options = dict(widths=size.widths, top_channels=size.top, latent_channels=size.latents)
    if size.residual:
        vae = functools.partial(residual_vae, stem_width=size.stem, posterior=IAFPosterior, **options)
    else:
        vae = functools.partial(plain_vae, posterior=GaussianPosterior, **options)
    head = functools.partial(RealNVP, num_scales=case.get("scales", 1), **cases.head_options(case))
    return PiVAE((case["side"], case["side"], 3), vae=vae, flow=head)


def critic_of(case: dict) -> Critic:
    """The case's `Critic`."""
    size = cases.size(case["kind"], case["factor"])
    return residual_critic(size.stem, size.widths) if size.residual else plain_critic(size.widths)


def _train(case):
    replicas = case.get("replicas", 1)
    kind = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    strategy = tf.distribute.MirroredStrategy([f"/{kind}:{i}" for i in range(replicas)])
    with gin.unlock_config():
        gin.bind_parameter("ConvolutionPrecision.dtype", case.get("convolutions", "float32"))
    with strategy.scope():
        trainer = Trainer(model_of(case), critic_of(case))
    trainer.jit_compile = case.get("xla", False)
    step = tf.function(
        lambda batch: strategy.run(trainer.train_step, args=(batch,)), autograph=False, jit_compile=trainer.jit_compile
    )
    batches = strategy.distribute_datasets_from_function(lambda _: _batches(case, replicas))
    batches = iter(batches)
    fixed = next(batches)
    following = (lambda: next(batches)) if case["task"] == "train_from_input" else lambda: fixed

    def run():
        metrics = step(following())
        strategy.experimental_local_results(metrics["gradient_norm"])[0].numpy()

    return run, _arithmetic(step, fixed)


def _batches(case, replicas=1):
    split = ImageSplit(images_of(case, max(2 * case["batch"], 256)), None)
    return train_batches(split, case["batch"], seed=0, num_replicas=replicas)


def _input(case):
    batches = iter(_batches(case))
    return lambda: next(batches).numpy(), _uncounted


def _log_prob(case):
    model = model_of(case)
    images = images_of(case)
    samples = case.get("importance_samples", 16 if case["task"] == "log_prob_16" else 1)
    return lambda: model.log_prob(images, samples, batch_size=case["batch"]), _uncounted


def _sample(case):
    model = model_of(case)
    return lambda: model.sample(case["batch"], batch_size=case["batch"]), _uncounted


def _reconstruct(case):
    model = model_of(case)
    images = images_of(case)
    return lambda: model.reconstruct(images, batch_size=case["batch"]), _uncounted


# Parts of the model.


def _head(case):
    options = dict(cases.head_options(case), squeezed_checkerboards=case.get("squeezed", False))
    head = RealNVP((case["side"], case["side"], 3), **options)
    x = tf.constant(np.random.default_rng(0).normal(size=[case["batch"], case["side"], case["side"], 3]), tf.float32)
    head.bijector().forward(x[:1])
    return head, x


def _flow(case):
    """The gradient of the mean negative log-density under a standard normal."""
    head, x = _head(case)

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            bijector = head.bijector(training=True)
            y = bijector.forward(x)
            log_prob = tf.reduce_sum(standard_gaussian(y).log_prob(y), [1, 2, 3])
            loss = -tf.reduce_mean(log_prob + bijector.forward_log_det_jacobian(x, event_ndims=3))
        gradients = tape.gradient(loss, head.trainable_variables)
        return tf.linalg.global_norm([g for g in gradients if g is not None])

    return lambda: gradient().numpy(), _arithmetic(gradient)


def _flow_inverse(case):
    """The inverse as `PiVAE.sample` computes it: where an operation has one thread, parts of the batch side by side."""
    head, y = _head(case)
    rows = RowFunction(lambda first_row, count, y: head.bijector().inverse(y))
    whole = tf.function(lambda: head.bijector().inverse(y), autograph=False)
    return lambda: rows(case["batch"], 0, case["batch"], (y.numpy(),)), _arithmetic(whole)


def _iaf(case):
    """The gradient of the mean log q of an IAF posterior whose latents are [side, side, latents]."""
    latents = case["latents"]
    width = case["width"]
    posterior = IAFPosterior(latents, width)
    shape = [case["batch"], case["side"], case["side"]]
    epsilon, mean, scale = (tf.random.stateless_normal([*shape, latents], [0, i]) for i in range(3))
    context = tf.random.stateless_normal([*shape, width], [0, 3])

    def log_q():
        sample = posterior(Gaussian(mean, scale), context=context, epsilon=epsilon)
        return tf.reduce_mean(tf.reduce_sum(sample.log_prob - tf.square(sample.z), [1, 2, 3]))

    log_q()

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            loss = log_q()
        return tf.linalg.global_norm(tape.gradient(loss, posterior.trainable_variables))

    return lambda: gradient().numpy(), _arithmetic(gradient)


def _convolution(case):
    """3x3 convolutions of `channels` to `channels`, `repeats` one after the other; as many chains as threads."""
    channels = case["channels"]
    repeats = 8
    chains = tf.config.threading.get_inter_op_parallelism_threads()
    shape = [case["batch"], case["side"], case["side"], channels]
    inputs = [tf.random.stateless_normal(shape, [0, seed]) for seed in range(chains)]
    kernel = 0.01 * tf.random.stateless_normal([3, 3, channels, channels], [1, 0])

    @tf.function(autograph=False)
    def convolutions():
        sums = []
        for h in inputs:
            for _ in range(repeats):
                h = tf.nn.conv2d(h, kernel, 1, "SAME")
            sums.append(tf.reduce_sum(h))
        return tf.add_n(sums)

    flops = 2 * chains * repeats * case["batch"] * case["side"] ** 2 * 9 * channels**2
    return lambda: convolutions().numpy(), lambda: flops


def _operation(case):
    """`cases.REPEATS` times the same operation, each on a tensor of its own."""
    shape = [case["batch"], case["side"], case["side"], case["channels"]]
    kernel = 0.01 * tf.random.stateless_normal([3, 3, case["channels"], case["channels"]], [0, 1])
    operation = {
        "convolution": lambda x, _: tf.nn.conv2d(x, kernel, 1, "SAME"),
        "addition": lambda x, _: x + x,
        "exponential": lambda x, _: tf.exp(x),
        "logarithm": lambda x, _: tf.math.log(x),
        "tanh": lambda x, _: tf.tanh(x),
        "elu": lambda x, _: tf.nn.elu(x),
        "split": lambda x, _: tf.split(x, 4, -1),
        "normal": lambda _, seed: tf.random.stateless_normal(shape, [0, seed]),
    }[case["operation"]]
    tensors = tf.random.stateless_uniform([cases.REPEATS, *shape], [0, 0]) + 0.5

    @tf.function(autograph=False)
    def call(tensors, seed):
        return [operation(x, seed + i) for i, x in enumerate(tf.unstack(tensors))]

    seed = tf.constant(0)  # Not known to the graph: nothing is computed beforehand.
    return lambda: call(tensors, seed), _uncounted
