"""`ConvolutionPrecision.dtype = "auto"` becomes a precision before a training begins, and stays that of the run."""

import os
from pathlib import Path

import gin

from tf_pivae import configuration
from tf_pivae.layers.convolution import automatic_dtype
from tf_pivae.training.workers import num_workers

_SETTING = "ConvolutionPrecision.dtype"


def settle(run_dir: str | Path) -> str | None:
    """Binds the precision that "auto" stands for, in gin's configuration, which the run's `config.gin` records.

    A run that goes on keeps what it began with, on whatever machine. Several workers, whose processors may differ,
    compute in float32.

    Args:
      run_dir: folder of the run, new or to be continued.

    Returns:
      A line that says what was chosen and why; None where "auto" is not asked for.

    Raises:
      UserError: the configuration of the run cannot be read.
    """
    if configuration.Snapshot().value(_SETTING) != "auto":
        return None
    began = _recorded(Path(run_dir) / "config.gin")
    if num_workers(os.environ.get("TF_CONFIG", "")) > 1:
        dtype = "float32"
        why = "processors of several workers may differ"
    elif began is not None:
        dtype = began
        why = "as the run began"
    else:
        dtype = automatic_dtype()
        why = "the processor has bfloat16" if dtype == "bfloat16" else "no processor with bfloat16 computes"
    gin.bind_parameter(_SETTING, dtype)
    return f"convolutions in {dtype}: {why} ({_SETTING})."


def _recorded(path: Path) -> str | None:
    """What a run began with; None for a new one."""
    recorded = configuration.of_run(path).value(_SETTING) if path.exists() else "auto"
    return None if recorded == "auto" else recorded
