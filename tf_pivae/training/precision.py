"""`ConvolutionPrecision.dtype = "auto"` becomes a precision before a training begins, and stays that of the run."""

import os
from pathlib import Path

import gin

from tf_pivae import configuration
from tf_pivae.errors import UserError
from tf_pivae.layers.convolution import automatic_dtype
from tf_pivae.training.workers import num_workers

_SETTING = "ConvolutionPrecision.dtype"


def settle(run_dir: str | Path) -> str | None:
    """Binds the precision that "auto" stands for, in gin's configuration, which the run's `config.gin` records.

    A run that goes on keeps what it began with, on whatever machine.

    Args:
      run_dir: folder of the run, new or to be continued.

    Returns:
      A line that says what was chosen and why; None where "auto" is not asked for.

    Raises:
      UserError: a run that began in bfloat16 goes on with several workers, of which the chief alone may know that; the
        configuration of the run cannot be read.
    """
    if _asked(configuration.Snapshot()) != "auto":
        return None
    path = Path(run_dir) / "config.gin"
    recorded = _asked(configuration.of_run(path)) if path.exists() else None
    if num_workers(os.environ.get("TF_CONFIG", "")) > 1:
        if recorded == "bfloat16":
            raise UserError(f"the run began in bfloat16: say so to every worker, --gin_param={_SETTING}='bfloat16'.")
        dtype = "float32"
        why = "processors of several workers may differ"
    elif recorded:
        dtype = recorded
        why = "as the run began"
    else:
        dtype = automatic_dtype()
        has = dtype == "bfloat16"
        why = "the processor has bfloat16" if has else "a GPU computes, or the processor has no bfloat16"
    gin.bind_parameter(_SETTING, dtype)
    return f"convolutions in {dtype}: {why} ({_SETTING})."


def _asked(settings: configuration.Snapshot) -> str | None:
    try:
        return settings.value(_SETTING)
    except KeyError:
        return None
