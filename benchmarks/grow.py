"""A training that goes on with a larger model:

  python -m benchmarks.grow --run_dir=RUN --output=LARGER --gin_param='RealNVP.width = 32'

Writes a run that computes what RUN computes, with other settings that make its layers wider. New channels start as a
new model's do, and nothing passes through them yet, since the weights that read them are zero (Net2Net; Chen et al.
2016). Everything else is RUN's, the critic and the moments of both optimisers among it. Then, for instance,

  python -m tf_pivae.train --gin_file=LARGER/config.gin --run_dir=LARGER --from_here ...
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError

if TYPE_CHECKING:
    from tf_pivae.training.trainer import Trainer

_RUN_DIR = flags.DEFINE_string("run_dir", None, "A run, with its checkpoints.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the new run.", required=True)
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", None, "NAME=VALUE, a setting of the new run.", required=True)
_FILES = "changes.json", "data.json", "environment.json", "metrics.jsonl"


def main() -> None:
    source = Path(_RUN_DIR.value)
    output = Path(_OUTPUT.value)
    step = grow(source, output, _GIN_PARAM.value)
    print(f"largest difference of 16 images' log p(x): {_difference(source, output):.1e} nats")
    print(f"step {step}, with {', '.join(_GIN_PARAM.value)}: {output}")


def grow(source: Path, output: Path, settings: Sequence[str]) -> int:
    """Writes the run `output`, RUN with other settings, bindings of gin; returns the step of its checkpoint.

    Raises:
      UserError: no checkpoint, or a model that has not all that RUN's has; nothing is left of `output` then.
    """
    from tf_pivae.runs import changes
    from tf_pivae.runs.checkpoints import Checkpoints
    from tf_pivae.training.recipe import FREE_SETTINGS

    old = _trainer(source)
    step = Checkpoints(source / "checkpoints").restore(old.state)
    if step is None:
        raise UserError(f"{source} has no checkpoint: train it first.")
    output.mkdir()
    try:
        config = (source / "config.gin").read_text()
        larger = "\n".join([config, *settings, ""])
        (output / "config.gin").write_text(larger)
        for name in _FILES:
            if (source / name).exists():
                shutil.copy(source / name, output / name)
        new = _trainer(output)
        for name, variables in old.state.items():
            _take_over(variables, new.state[name])
        Checkpoints(output / "checkpoints").save(step, new.state)
        changes.record(output, step, changes.compare(config, larger, str(source / "config.gin"), FREE_SETTINGS))
    except BaseException:
        shutil.rmtree(output)
        raise
    return step


def _trainer(run_dir: Path) -> "Trainer":
    """The trainer of a run at its start, with its data-dependent initialisation."""
    from tf_pivae import loading

    recipe = loading.recipe_of(run_dir)
    data = recipe.dataset()
    trainer = recipe.build(data)
    labels = data.train.labels[: recipe.batch_size] if trainer.pivae.num_classes else None
    trainer.initialize(data.train.images[: recipe.batch_size], labels)
    return trainer


def _take_over(old: Sequence[keras.Variable], new: Sequence[keras.Variable]) -> None:
    """Sets the variables that both have to the old values; what is new in them leads nowhere yet.

    Both are in one order, in which several have the same name: those of the scales of a head.
    """
    candidates = iter(new)
    for variable in old:
        target = next((candidate for candidate in candidates if candidate.path == variable.path), None)
        if target is None or np.any(np.less(target.shape, variable.shape)):
            there = "has none" if target is None else f"has {list(target.shape)}"
            raise UserError(f"{variable.path} is {list(variable.shape)}, the new model {there}: choose other settings.")
        target.assign(_widened(variable.numpy(), target.numpy()))


def _widened(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """`old`'s values, then `new`'s; where they would lead from a new channel to an old one, zeros."""
    if old.shape == new.shape:
        return old
    value = new.copy()
    if old.ndim == 4:
        value[:, :, old.shape[2] :, : old.shape[3]] = 0.0
    value[tuple(slice(0, size) for size in old.shape)] = old
    return value


def _difference(source: Path, output: Path) -> float:
    from tf_pivae import loading

    images = loading.load_dataset(source).test.images[:16]
    densities = [loading.load(folder).log_prob(images, num_importance_samples=1) for folder in (source, output)]
    return float(np.abs(densities[0] - densities[1]).max())


if __name__ == "__main__":
    cli.run(main)
