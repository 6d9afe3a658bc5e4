"""What all tests share. The processor is split in two before TensorFlow starts, for the tests on two replicas."""

# First of all: Keras reads settings at home when it is imported.
from isolation import pytest_runtest_call, pytest_runtest_setup, pytest_runtest_teardown, pytest_unconfigure  # noqa: F401

# isort: split
import ctypes
import fcntl
import gc
import itertools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import devices
import forking
import gin
import installation
import keras
import numpy as np
import pytest
import tensorflow as tf
import usage
import weights
from tensorflow.python.distribute import cross_device_utils
from tensorflow.python.framework import ops

pytest_plugins = ["usage", "renewal"]
Command = Callable[..., CompletedProcess[str]]
MadeOnce = Callable[[str, Callable[[Path], None]], Path]

# The files that take longest, which begin first: the last one to end decides how long the suite takes.
_LONGEST = ("test_full_size", "test_commands", "test_train_command", "test_evaluate_command", "test_options")
_LONGEST += ("test_killed", "test_gpu", "test_workers", "test_run", "test_bad_configurations", "test_paper_command")
_LONGEST += ("test_sweep_command", "test_class_conditional")
_MUCH = 1 << 26  # Bytes that a test may leave before its garbage is looked for.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))


def pytest_collection_finish() -> None:
    """All modules are imported: half a million objects that no later search for garbage need look at.

    Graphs are made of so many objects that the next searches come less often than Python would have them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


# Processes side by side share the cores: one thread for each, and for each command that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

devices.split()
tf.config.optimizer.set_experimental_options(forking.OPTIMIZER)


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP as a terminal's programs have it, in what the test starts, too; under `nohup` all of them ignore it."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, handler)


@pytest.fixture(scope="module", autouse=True)
def nothing_kept_for_other_files() -> Iterator[None]:
    """Which files share a process, and in what order, is the scheduler's affair."""
    yield
    gin.clear_config()
    _forget_gradients(_custom_gradients())
    keras.backend.clear_session()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # Commands keep freed memory (system/memory.py); a worker runs many files.


@pytest.fixture(autouse=True)
def nothing_kept_for_other_tests() -> Iterator[None]:
    """Models and graphs refer to themselves: garbage of one test would lie beside what the next ones make."""
    before = usage.held()
    yield
    if usage.held() > before + _MUCH:
        gc.collect()


def _custom_gradients() -> set[str]:
    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")}


def _forget_gradients(names: set[str]) -> None:
    """TensorFlow never forgets a custom gradient that a graph has seen, and with it the graph: 60 MB a train step."""
    for name in names:
        del ops.gradient_registry._registry[name]


@pytest.fixture(autouse=True)
def _no_gradients_kept() -> Iterator[None]:
    """Nor for later tests of the file; but what fixtures of its scope have made may be differentiated again."""
    before = _custom_gradients()
    yield
    _forget_gradients(_custom_gradients() - before)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Initial weights are the same in every run: Keras draws them from Python's generator."""
    random.seed(0)


@pytest.fixture(autouse=True, scope="module")
def _seed_of_module() -> None:
    """For fixtures of a module's scope, which come before those of a test's."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def graph_optimizer() -> Iterator[None]:
    """See `forking.optimized_graphs`."""
    with forking.optimized_graphs():
        yield


_first_numbers = itertools.count(1_000_000, 1_000_000)


@pytest.fixture
def two_replicas(monkeypatch: pytest.MonkeyPatch) -> tf.distribute.Strategy:
    """A strategy over both halves of the processor.

    TensorFlow numbers the collective operations of every strategy of a process alike, and refuses one whose shape is
    not that of an earlier strategy's of the same number: this one has numbers of its own.
    """
    monkeypatch.setattr(cross_device_utils, "INSTANCE_KEY_START_NUMBER", next(_first_numbers))
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def randomize() -> Callable[..., keras.layers.Layer]:
    """`weights.randomize`."""
    return weights.randomize


@pytest.fixture(scope="session")
def jacobians() -> Callable[..., np.ndarray]:
    """A function (f, x [B, ...], outputs) -> float64 [B, outputs, inputs]: the Jacobian of f for each x, by autodiff.

    One backward pass: each x is repeated once for each output, and each copy is asked for one row. f must treat the
    elements of a batch independently; its outputs are as many as its inputs unless said otherwise.
    """

    def jacobians(function: Callable, x: tf.Tensor, outputs: int | None = None) -> np.ndarray:
        x = tf.convert_to_tensor(x)
        outputs = outputs or int(np.prod(x.shape[1:]))
        copies = tf.repeat(x, outputs, 0)
        with tf.GradientTape() as tape:
            tape.watch(copies)
            y = tf.reshape(function(copies), [-1, outputs])
        rows = tape.gradient(y, copies, output_gradients=tf.tile(tf.eye(outputs), [x.shape[0], 1]))
        return tf.reshape(rows, [x.shape[0], outputs, -1]).numpy().astype(np.float64)

    return jacobians


@pytest.fixture(scope="session")
def tiny() -> str:
    """Path of the gin file of a CQFG small enough for tests."""
    return str(Path(__file__).parent / "tiny.gin")


@pytest.fixture(scope="session")
def plain() -> str:
    """Path of the gin file of a VAE that starts within seconds."""
    return str(Path(__file__).parent / "sweeps/plain.gin")


@pytest.fixture(scope="session")
def run_command() -> Command:
    """A function (command, *arguments, cwd=, env=) that runs a command as `python -m tf_pivae.COMMAND` does."""
    return forking.run


@pytest.fixture(scope="session")
def evaluate() -> Command:
    """A function (*arguments) that runs the evaluate command."""
    return lambda *arguments: forking.run("evaluate", *arguments)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A function (name, make) -> a folder of that name, which one process has filled for all, with make(folder)."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made_once(name: str, make: Callable[[Path], None]) -> Path:
        folder = base / name
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.with_suffix(".made").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                folder.with_suffix(".made").touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def finished(
    made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory, tiny: str
) -> tuple[Path, CompletedProcess[str]]:
    """An uninterrupted run of 12 steps: its folder, and what the command printed. One process trains it for all."""

    def train(folder: Path) -> None:
        result = forking.run("train", f"--gin_file={tiny}", f"--run_dir={folder / 'run'}")
        assert result.returncode == 0, result.stderr
        (folder / "printed.json").write_text(json.dumps([result.stdout, result.stderr]))

    shared = made_once("finished", train)
    run_dir = Path(shutil.copytree(shared / "run", tmp_path_factory.mktemp("runs") / "finished"))
    printed = json.loads((shared / "printed.json").read_text())
    out, err = (text.replace(str(shared / "run"), str(run_dir)) for text in printed)
    return run_dir, CompletedProcess(["train"], 0, out, err)


@pytest.fixture(scope="session")
def conditional_run(made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """The folder of a class-conditional run of 4 steps. One process trains it for all."""

    def train(folder: Path) -> None:
        parameters = ["train.class_conditional=True", "num_steps=4", "train.sample_every=4"]
        flags = [f"--gin_param={parameter}" for parameter in parameters]
        result = forking.run("train", f"--gin_file={tiny}", *flags, f"--run_dir={folder / 'run'}")
        assert result.returncode == 0, result.stderr

    shared = made_once("conditional", train)
    return Path(shutil.copytree(shared / "run", tmp_path_factory.mktemp("runs") / "conditional"))


@pytest.fixture(scope="session")
def package(made_once: MadeOnce) -> installation.Package:
    """The package as its users get it. One process builds and installs it for all."""
    return installation.built(made_once("package", installation.build))


@pytest.fixture
def finished_copy(finished: tuple[Path, CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of `finished`'s folder, for a test that has something written into it."""
    return Path(shutil.copytree(finished[0], tmp_path / "finished_copy"))
