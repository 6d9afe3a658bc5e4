"""`ConvolutionPrecision.dtype = "auto"`: the processor decides for a new run, its config.gin for one that goes on."""

import gin
import pytest

from tf_pivae import configuration, loading
from tf_pivae.errors import UserError
from tf_pivae.layers import convolution
from tf_pivae.training import precision

AUTO = "ConvolutionPrecision.dtype='auto'"


def settled(run_dir, *bindings):
    """What is said, and the precision afterwards."""
    with configuration.preserved():
        loading.parse_gin(["demo.gin"], bindings)
        said = precision.settle(run_dir)
        return said, convolution.ConvolutionPrecision().dtype, gin.config_str()


@pytest.mark.parametrize(("has", "dtype", "why"), [(True, "bfloat16", "has bf"), (False, "float32", "has no bf")])
def test_a_new_run_goes_by_the_processor(tmp_path, monkeypatch, has, dtype, why):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: has)
    said, made, written = settled(tmp_path, AUTO)
    assert made == dtype
    assert said.startswith(f"convolutions in {dtype}: the processor {why}")
    assert f"ConvolutionPrecision.dtype = '{dtype}'" in written
    assert "auto" not in written


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_run_that_goes_on_keeps_its_precision(tmp_path, monkeypatch, began):
    (tmp_path / "config.gin").write_text(f"ConvolutionPrecision.dtype = '{began}'\n")
    for has in (True, False):
        monkeypatch.setattr(convolution, "has_bfloat16", lambda has=has: has)
        said, made, _ = settled(tmp_path, AUTO)
        assert made == began
        assert "as the run began" in said


def test_nothing_is_settled_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "has_bfloat16", lambda: True)
    assert settled(tmp_path)[:2] == (None, "float32")
    assert settled(tmp_path, "ConvolutionPrecision.dtype='bfloat16'")[:2] == (None, "bfloat16")


def test_several_workers_name_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(UserError, match="is for one machine"):
        settled(tmp_path, AUTO)
