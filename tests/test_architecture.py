"""What --describe says: arithmetic and memory of graphs against other counts, blocks against the whole model."""

import os
import re
import socket

import gin
import pytest
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.describe import architecture, architecture_text
from tf_pivae.describe.graph_cost import executed, flops, largest_kernels_bytes, peak_bytes
from tf_pivae.models.critic import plain_critic


def _graph(function, *shapes):
    specifications = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*specifications).graph


def _profiled(graph):
    """TensorFlow's own count, of the same kinds of operations."""
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    total = 0
    for kind in ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul"):
        options = builder(builder.float_operation()).with_accounted_types([f"^{kind}$"]).with_empty_output().build()
        total += tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops
    return total


def test_flops_are_those_of_tensorflows_profiler():
    """Forward and backward, a transposed convolution and a matrix product among them."""
    kernel = tf.Variable(tf.ones([3, 3, 2, 5]))
    transposed = tf.Variable(tf.ones([4, 4, 3, 5]))
    dense = tf.Variable(tf.ones([3 * 64, 7]))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            h = tf.nn.conv2d(x, kernel, 2, "SAME")
            h = tf.nn.conv2d_transpose(h, transposed, [4, 8, 8, 3], 2, "SAME")
            y = tf.matmul(tf.reshape(h, [4, -1]), dense)
        return tape.gradient(y, [x, kernel, transposed, dense])

    graph = _graph(step, [4, 8, 8, 2])
    assert {"Conv2DBackpropFilter", "Conv2DBackpropInput"} <= {o.type for o in graph.get_operations()}
    assert flops(graph.get_operations()) == _profiled(graph) > 0
    sizes = [4 * 4 * 4 * 3 * 5] * 3 + [4 * 3 * 3 * 2 * 5] * 3  # Of each kernel: forward, to its input, to itself.
    for count in (0, 1, 4, 9):
        assert largest_kernels_bytes(graph.get_operations(), count) == sum(sizes[:count])


def test_what_leads_nowhere_is_not_executed():
    variable = tf.Variable(tf.ones([2, 3]))
    other = tf.Variable(tf.ones([3, 4]))

    def step(x):
        tf.matmul(tf.ones([7, 7]), tf.ones([7, 7]))  # for nothing
        other.assign(other * 2.0)
        return tf.matmul(x, variable)

    graph = _graph(step, [5, 2])
    assert flops(graph.get_operations()) == 2 * (7**3 + 5 * 2 * 3)
    assert flops(executed(graph)) == 2 * 5 * 2 * 3
    assert "AssignVariableOp" in {operation.type for operation in executed(graph)}


def test_a_loop_counts_every_turn_and_holds_one():
    def loop(x):
        def turn(i, total):
            return i + 1, total + tf.reduce_sum(tf.matmul(tf.exp(x) * tf.cast(i, tf.float32), x))

        return tf.while_loop(lambda i, _: i < 5, turn, (0, 0.0), parallel_iterations=1, maximum_iterations=5)

    graph = _graph(loop, [100, 100])
    assert flops(executed(graph)) == 5 * 2 * 100**3
    assert 2 * 40_000 <= peak_bytes(graph) <= 3 * 40_000 + 100


def test_flops_of_the_critic_by_hand():
    critic = plain_critic(widths=(64, 128, 256, 512))
    graph = _graph(critic, [1, 32, 32, 3])
    convolutions = [  # side of the result, kernel, channels in and out
        (32, 3, 3, 64),
        (16, 4, 64, 64),
        (16, 3, 64, 128),
        (8, 4, 128, 128),
        (8, 3, 128, 256),
        (4, 4, 256, 256),
        (4, 3, 256, 512),
    ]
    expected = sum(2 * side**2 * kernel**2 * a * b for side, kernel, a, b in convolutions) + 2 * 4 * 4 * 512
    assert flops(graph.get_operations()) == expected


def test_peak_bytes_of_a_chain():
    """Two tensors of 1000 floats live at a time; a view is free."""

    def chain(x):
        for _ in range(5):
            x = tf.reshape(tf.exp(x), [10, 100])
        return x

    assert peak_bytes(_graph(chain, [10, 100])) == 2 * 4000


def test_peak_bytes_of_what_a_gradient_needs():
    """exp's gradient needs every result: n of them live, and towards the end a gradient and the next one."""
    count = 6

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(count):
                y = tf.exp(y)
        return tape.gradient(y, x)

    peak = peak_bytes(_graph(gradient, [1000]))
    assert count * 4000 <= peak <= (count + 3) * 4000


@pytest.fixture(scope="module", params=["demo.gin", "paper/gan_conditional.gin"])
def measured(request):
    loading.parse_gin([request.param, *(["presets/tiny_gan.gin"] if "gan" in request.param else [])])
    trainer, data, batch_size = architecture.configured()
    yield trainer, architecture.measure(trainer, data, batch_size)
    gin.clear_config()


def test_blocks_add_up_to_the_model(measured):
    trainer, result = measured
    parts = {part: sum(b.parameters for b in result.blocks if b.part == part) for part in ("head", "VAE", "critic")}
    parameters = result.parameters
    assert parts["head"] == parameters.head
    assert parts["VAE"] == parameters.vae - 1  # log sigma belongs to no block
    assert parts["critic"] == parameters.critic
    total = sum(variable.value.shape.num_elements() for variable in trainer.pivae.trainable_variables)
    assert parameters.vae + parameters.head == total
    assert sum(b.flops for b in result.blocks if b.part != "critic") == result.bound_flops


def test_latents_and_shapes(measured):
    trainer, result = measured
    height, width, channels = result.data.image_shape
    assert list(result.latents) == trainer.pivae.vae.group_names
    assert result.latents["top"] == tuple(trainer.pivae.vae.top.latent_shape)
    shapes = {block.name: block.shape for block in result.blocks if block.part == "VAE"}
    assert shapes["output"] == (height, width, channels)
    assert shapes["bottom_up_1"][:2] == (height // 2, width // 2)
    assert result.step_flops > result.batch_size * result.sample_flops
    assert result.state_bytes == sum(v.numpy().nbytes for group in trainer.state.values() for v in group)


def test_text_has_every_block_and_latent(measured):
    _, result = measured
    text = architecture_text.describe(result, "NAME")
    for block in result.blocks:
        assert f"{block.name} " in text
        assert f"{block.parameters:,}" in text
    for name, shape in result.latents.items():
        assert f"{name} " in text
        assert "x".join(map(str, shape)) in text


def test_memory_is_the_sum_of_its_parts(measured):
    """What libraries and graphs take is that of this process, where the system tells it."""
    _, result = measured
    pattern = (
        r"^memory   about ([\d.]+) GB: ([\d.]+) GB of weights, .* ([\d.]+) GB of tensors [^,]*, ([\d.]+) GB of the conv"
        r"[^,]*(?:, ([\d.]+) GB of)?"
    )

    def numbers(architecture):
        line = re.search(pattern, architecture_text.describe(architecture, "NAME"), re.MULTILINE)
        return [float(number or 0.0) for number in line.groups()]

    total, *parts, program = numbers(result._replace(workspace_bytes=2 * 10**9))
    assert total == pytest.approx(sum(parts) + program, abs=0.026)
    assert parts[-1] == 2.0
    assert program > 0.3  # TensorFlow alone.
    total, *parts, program = numbers(result._replace(program_bytes=None))
    assert total == pytest.approx(sum(parts), abs=0.021)
    assert program == 0.0


def test_convolutions_have_room_for_their_kernels(measured, monkeypatch):
    """For as many as run at a time."""
    trainer, result = measured
    workspace = {}
    for count in (1, 3):
        monkeypatch.setattr(architecture, "operations_at_a_time", lambda count=count: count)
        workspace[count] = architecture.measure(trainer, result.data, result.batch_size).workspace_bytes
    # Forward, to the input and to the kernel: of one kernel.
    assert workspace[3] == 3 * workspace[1] > 0


def test_needs_neither_network_nor_data(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    loading.parse_gin(["paper/lsun_bedroom64.gin"])
    trainer, data, batch_size = architecture.configured()
    assert data == ("lsun-bedroom", (64, 64, 3), 0, 3_033_042, 300)
    assert batch_size == 32
    assert trainer.pivae.image_shape == (64, 64, 3)


def test_train_describes_and_leaves_nothing_behind(tmp_path, run_command):
    environment = dict(os.environ, TFDS_DATA_DIR=str(tmp_path / "tfds"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    result = run_command("train", "--gin_file=paper/gan.gin", "--describe", cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert "paper/gan.gin: 32x32x3 images of cifar10, unconditional" in result.stdout
    assert not list(tmp_path.iterdir())


def test_train_describes_in_the_precision_of_a_training(tmp_path, run_command):
    settings = ["--gin_file=paper/gan.gin", "--gin_param=ConvolutionPrecision.dtype='auto'", "--describe"]
    result = run_command("train", *settings, cwd=tmp_path, env=dict(os.environ, TFDS_DATA_DIR=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    assert re.match(r"convolutions in (bfloat16|float32): .*\.\npaper/gan\.gin: ", result.stdout)
    assert not list(tmp_path.iterdir())
