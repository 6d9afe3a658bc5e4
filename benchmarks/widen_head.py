"""A training that goes on with a wider head: python -m benchmarks.widen_head --run_dir=RUN --output=WIDER --width=32

Writes a run that computes what RUN computes: the conditioners of its couplings have new channels, which start as a new
head's do, and through which nothing passes yet, since the weights that read them are zero (Net2Net; Chen et al. 2016).
Everything else is RUN's, the critic and the moments of both optimisers among it. Then, for instance,

  python -m tf_pivae.train --gin_file=RUN's --run_dir=WIDER --gin_param='RealNVP.width = 32' --from_here ...
"""

import ast
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
_WIDTH = flags.DEFINE_list(
    "width", None, "RealNVP.width of the new run; one number for each scale, or one.", required=True
)
_FILES = "changes.json", "data.json", "environment.json", "metrics.jsonl"
_BINDING = r"(?m)^RealNVP\.width = (.+)$"


def main() -> None:
    source = Path(_RUN_DIR.value)
    output = Path(_OUTPUT.value)
    if not _WIDTH.value or not all(width.isdecimal() for width in _WIDTH.value):
        raise UserError(f"--width is a number, or one for each scale; got {','.join(_WIDTH.value)!r}.")
    step = widen(source, output, tuple(map(int, _WIDTH.value)))
    print(f"largest difference of 16 images' log p(x): {_difference(source, output):.1e} nats")
    print(f"step {step}, with a head of width {','.join(_WIDTH.value)}: {output}")


def widen(source: Path, output: Path, widths: tuple[int, ...]) -> int:
    """Writes the run `output`, with a head of the widths (one, or one for each scale); the step of its checkpoint."""
    from tf_pivae.runs import changes
    from tf_pivae.runs.checkpoints import Checkpoints

    width = widths if len(widths) > 1 else widths[0]
    config = (source / "config.gin").read_text()
    binding = re.search(_BINDING, config)
    if binding is None or not _is_wider(widths, ast.literal_eval(binding[1])):
        raise UserError(f"the head of {source} is not narrower than {width}: choose a larger --width.")
    old = _trainer(source)
    step = Checkpoints(source / "checkpoints").restore(old.state)
    if step is None:
        raise UserError(f"{source} has no checkpoint: train it first.")
    scales = len(old.pivae.flow.scales)
    if len(widths) not in (1, scales):
        raise UserError(f"--width has {len(widths)} numbers for {scales} scales: give one, or one for each.")
    output.mkdir()
    (output / "config.gin").write_text(re.sub(_BINDING, f"RealNVP.width = {width}", config))
    for name in _FILES:
        if (source / name).exists():
            shutil.copy(source / name, output / name)
    new = _trainer(output)
    for name, variables in old.state.items():
        for variable, wider in zip(variables, new.state[name], strict=True):
            wider.assign(_widened(variable.numpy(), wider.numpy()))
    Checkpoints(output / "checkpoints").save(step, new.state)
    changes.record(output, step, changes.Changes({}, {"RealNVP.width": (binding[1], str(width))}))
    return step


def _is_wider(widths: tuple[int, ...], before: int | tuple[int, ...]) -> bool:
    """Whether no scale is narrower than before, and one is wider."""
    try:
        gain = np.subtract(widths, before)
    except ValueError:  # Not as many numbers.
        return False
    return bool(np.all(gain >= 0) and np.any(gain > 0))


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
