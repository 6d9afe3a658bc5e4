"""`ConvolutionPrecision.dtype = "auto"`: the processor decides for a new run, its config.gin for one that goes on."""

from pathlib import Path

import gin
import pytest
import tensorflow as tf

from tf_pivae import configuration, loading
from tf_pivae.layers import convolution
from tf_pivae.training import precision

PAPER = Path(__file__).resolve().parents[2] / "gin/paper"
AUTO = "ConvolutionPrecision.dtype='auto'"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])


def settled(run_dir, *bindings, files=("demo.gin",)):
    """The line that is printed, and the precision afterwards."""
    with configuration.preserved():
        loading.parse_gin(files, bindings)
        line = precision.settle(run_dir)
        return line, convolution.ConvolutionPrecision().dtype, gin.config_str()


@pytest.mark.parametrize(
    ("has", "dtype", "why"),
    [(True, "bfloat16", "the processor has bf"), (False, "float32", "no processor with bf")],
)
def test_a_new_run_goes_by_the_processor(tmp_path, monkeypatch, has, dtype, why):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: has)
    line, made, written = settled(tmp_path, AUTO)
    assert made == dtype
    assert line.startswith(f"convolutions in {dtype}: {why}")
    assert f"ConvolutionPrecision.dtype = '{dtype}'" in written
    assert "auto" not in written


def test_on_a_gpu_the_processor_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert settled(tmp_path)[1] == "float32"


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_run_that_goes_on_keeps_its_precision(tmp_path, monkeypatch, began):
    (tmp_path / "config.gin").write_text(f"ConvolutionPrecision.dtype = '{began}'\n")
    for has in (True, False):
        monkeypatch.setattr(convolution, "has_bfloat16", lambda has=has: has)
        line, made, _ = settled(tmp_path, AUTO)
        assert made == began
        assert "as the run began" in line


@pytest.mark.parametrize("began", ["", "ConvolutionPrecision.dtype = 'float32'\n"])
def test_a_run_without_the_setting_began_in_float32(tmp_path, monkeypatch, began):
    (tmp_path / "config.gin").write_text(f"train.num_steps = 7\n{began}")
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    assert settled(tmp_path)[1] == "float32"


def test_nothing_is_settled_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    assert settled(tmp_path, files=["cifar.gin"])[:2] == (None, "float32")
    assert settled(tmp_path, files=["demo.gin", "options/float32.gin"])[:2] == (None, "float32")
    assert settled(tmp_path, "ConvolutionPrecision.dtype='bfloat16'")[:2] == (None, "bfloat16")


def test_several_workers_compute_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    line, made, _ = settled(tmp_path)
    assert made == "float32"
    assert "several workers" in line
    (tmp_path / "config.gin").write_text("ConvolutionPrecision.dtype = 'bfloat16'\n")
    assert settled(tmp_path)[1] == "float32"  # Which the chief refuses, where all notice.


@pytest.mark.parametrize("name", ["demo.gin", "fashion_mnist.gin"])
def test_the_processor_decides_by_default(tmp_path, monkeypatch, name):
    for has, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(convolution, "has_bfloat16", lambda has=has: has)
        assert settled(tmp_path, files=[name])[1] == dtype


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.gin")), ids=lambda path: path.stem)
def test_rows_of_the_paper_are_float32(tmp_path, monkeypatch, path):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    assert settled(tmp_path, files=[str(path)])[:2] == (None, "float32")
