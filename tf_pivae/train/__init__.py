"""Training: the command, and `tf_pivae.train(...)`: this package can be called."""

import functools
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_pivae.training.loop import Outcome

Callback = Callable[[int, dict[str, float]], bool | None]


def train(
    run_dir: str | Path,
    gin_file: str | Sequence[str],
    gin_param: Sequence[str] = (),
    from_here: bool = False,
    callback: Callback | None = None,
) -> "Outcome":
    """Trains a model in a run directory, or continues it, as the command does.

    gin's own configuration is afterwards what it was before.

    Args:
      run_dir: folder of the run.
      gin_file: names of gin files, or one.
      gin_param: bindings such as "num_steps=1000".
      from_here: a run that goes on takes other settings, whatever they are, from its last checkpoint on; without it,
        those that no weight depends on and a larger `num_steps`.
      callback: None, or a function of (step, metrics), a dict of floats, called every `train.log_every` steps; where it
        returns True, the training stops, saved: the same call again goes on.

    Returns:
      `Outcome`: the last step, the signal that stopped it or None, bits per dimension and their standard error.

    Raises:
      UserError: data, configuration, disk.
    """
    from tf_pivae import configuration, loading

    with configuration.preserved():
        loading.parse_gin([gin_file] if isinstance(gin_file, str) else gin_file, gin_param)
        from tf_pivae.training import loop, precision
        from tf_pivae.training.recipe import Recipe
        from tf_pivae.training.recorder import Recorder

        line = precision.settle(run_dir)
        if line:
            print(line, flush=True)
        recorder = functools.partial(Recorder, from_here=from_here, callback=callback)
        return loop.train(Recipe(), run_dir, recorder=recorder)


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **keywords: Any) -> "Outcome":
        return train(*arguments, **keywords)


_Callable.__call__.__doc__ = train.__doc__
sys.modules[__name__].__class__ = _Callable
