"""A training that goes on with a wider head: python -m benchmarks.widen_head --run_dir=RUN --output=WIDER --width=32

Writes a run that computes what RUN computes: the conditioners of its couplings have new channels, which start as a new
head's do, and through which nothing passes yet, since the weights that read them are zero (Net2Net; Chen et al. 2016).
Everything else is RUN's, the critic and the moments of both optimisers among it. Then, for instance,

  python -m tf_pivae.train --gin_file=RUN's --run_dir=WIDER --gin_param='RealNVP.width = 32' --from_here ...
"""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError

if TYPE_CHECKING:
    from tf_pivae.training.trainer import Trainer

_RUN_DIR = flags.DEFINE_string("run_dir", None, "A run, with its checkpoints.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the new run.", required=True)
_WIDTH = flags.DEFINE_integer("width", None, "RealNVP.width of the new run.", 1, required=True)
_GROWTH = flags.DEFINE_integer("width_growth", 1, "RealNVP.width_growth of the new run.", 1)
_FILES = "changes.json", "data.json", "environment.json", "metrics.jsonl"


def main() -> None:
    source = Path(_RUN_DIR.value)
    output = Path(_OUTPUT.value)
    step = widen(source, output, _WIDTH.value, _GROWTH.value)
    print(f"largest difference of 16 images' log p(x): {_difference(source, output):.1e} nats")
    print(f"step {step}, with a head of width {_WIDTH.value}: {output}")


def widen(source: Path, output: Path, width: int, width_growth: int = 1) -> int:
    """Writes the run `output`; the step of its checkpoint."""
    from tf_pivae.runs import changes
    from tf_pivae.runs.checkpoints import Checkpoints

    config = (source / "config.gin").read_text()
    widths = {"RealNVP.width": width, "RealNVP.width_growth": width_growth}
    before = {name: int(found[1]) for name in widths if (found := re.search(_binding(name), config))}
    growth = before.setdefault("RealNVP.width_growth", 1)
    if "RealNVP.width" not in before or width < before["RealNVP.width"] or width_growth < growth:
        raise UserError(f"the head of {source} is not narrower than {width}: choose a larger --width.")
    changed = {name: (str(before[name]), str(value)) for name, value in widths.items() if before[name] != value}
    if not changed:
        raise UserError(f"the head of {source} is not narrower than {width}: choose a larger --width.")
    for name, value in widths.items():
        config = re.sub(_binding(name), "", config) + f"{name} = {value}\n"
    output.mkdir()
    (output / "config.gin").write_text(config)
    for name in _FILES:
        if (source / name).exists():
            shutil.copy(source / name, output / name)
    old, new = _trainer(source), _trainer(output)
    step = Checkpoints(source / "checkpoints").restore(old.state)
    if step is None:
        raise UserError(f"{source} has no checkpoint: train it first.")
    for name, variables in old.state.items():
        for variable, wider in zip(variables, new.state[name], strict=True):
            wider.assign(_widened(variable.numpy(), wider.numpy()))
    Checkpoints(output / "checkpoints").save(step, new.state)
    changes.record(output, step, changes.Changes({}, changed))
    return step


def _binding(name: str) -> str:
    return rf"(?m)^{re.escape(name)} = (\d+)\n"


def _trainer(run_dir: Path) -> "Trainer":
    """The trainer of a run at its start, with its data-dependent initialisation."""
    from tf_pivae import loading

    recipe = loading.recipe_of(run_dir)
    data = recipe.dataset()
    trainer = recipe.build(data)
    labels = data.train.labels[: recipe.batch_size] if trainer.pivae.num_classes else None
    trainer.initialize(data.train.images[: recipe.batch_size], labels)
    return trainer


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
