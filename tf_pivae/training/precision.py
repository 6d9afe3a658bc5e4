"""`ConvolutionPrecision.dtype = "auto"` becomes a precision before a training begins, and stays that of the run."""

import os
from pathlib import Path

import gin

from tf_pivae import configuration
from tf_pivae.errors import UserError
from tf_pivae.layers.convolution import automatic_dtype

_SETTING = "ConvolutionPrecision.dtype"


def settle(run_dir: str | Path) -> str | None:
    """Binds the precision that "auto" stands for, in gin's configuration, which the run's `config.gin` records.

    A run that goes on keeps what it began with, on whatever machine.

    Args:
      run_dir: folder of the run, new or to be continued.

    Returns:
      A line that says what was chosen and why; None where "auto" is not asked for.

    Raises:
      UserError: several workers, whose processors may differ; the configuration of the run cannot be read.
    """
    if _asked(configuration.Snapshot()) != "auto":
        return None
    if os.environ.get("TF_CONFIG"):
        raise UserError(f"{_SETTING} = 'auto' is for one machine: name float32 or bfloat16 for several workers.")
    path = Path(run_dir) / "config.gin"
    recorded = _asked(configuration.of_run(path)) if path.exists() else None
    dtype = recorded or automatic_dtype()
    gin.bind_parameter(_SETTING, dtype)
    why = "as the run began" if recorded else f"the processor has {'' if dtype == 'bfloat16' else 'no '}bfloat16"
    return f"convolutions in {dtype}: {why} ({_SETTING})."


def _asked(settings: configuration.Snapshot) -> str | None:
    try:
        return settings.value(_SETTING)
    except KeyError:
        return None
