"""What images are scored with: a run, a model that comes with the package, or an export."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tf_pivae import configuration
from tf_pivae.errors import UserError
from tf_pivae.export.versions import MODEL_CARD, SAVED_MODEL
from tf_pivae.files import read_json
from tf_pivae.uses.preparation import Preparation, preparation

IMPORTANCE_SAMPLES = 16
Measured = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Density:
    """A model's density.

    Attributes:
      measure: (uint8 [B, H, W, C], int64 [B] or None) -> log_prob, and its standard error over importance samples,
        both float64 [B], nats; NaN where the error cannot be estimated.
      prepare: makes images of files.
      facts: what `RUN/data.json` says: name, image_shape, num_classes, num_bins.
      identity: what tells the model from any other, for an output that is continued.
      run_dir: the run's folder; None for an export.
    """

    measure: Callable[[np.ndarray, np.ndarray | None], Measured]
    prepare: Preparation
    facts: dict[str, Any]
    identity: dict[str, Any]
    run_dir: Path | None


def density(run_dir: str | Path, importance_samples: int | None = None, seed: int = 0, step: int | str | None = None,
            batch_size: int = 64) -> Density:  # fmt: skip
    """Opens a model. An image's `log_prob` depends on that image and on the seed alone.

    Args:
      run_dir: folder of a run, the name of a pretrained model, or an export's folder.
      importance_samples: K; None is 16. An export has its own.
      seed: of the noise. An export has its own.
      step: the run's checkpoint, "best" that of `train.validation`; None is the newest.
      batch_size: images computed at a time.

    Raises:
      UserError: no model there, or a setting that an export does not take.
    """
    from tf_pivae.runs.pretrained import resolve

    folder = resolve(run_dir)
    models = [*folder.glob(SAVED_MODEL), *folder.glob(f"*/{SAVED_MODEL}")]
    if models and not (folder / "config.gin").exists():
        if (importance_samples, seed, step) != (None, 0, None):
            raise UserError(
                f"{run_dir} is an export, where importance samples, seed and step are fixed: leave these options out."
            )
        return _exported(folder, batch_size)
    return _of_run(folder, run_dir, importance_samples or IMPORTANCE_SAMPLES, seed, step, batch_size)


def _of_run(folder, run_dir, importance_samples, seed, step, batch_size):
    from tf_pivae.loading import load_with_step
    from tf_pivae.runs.records import load_facts
    from tf_pivae.uses.claims import identity

    facts = load_facts(run_dir)
    if not facts["likelihood"]:
        raise UserError(f"{run_dir} was trained without likelihood: it has no density to score images with.")
    model, loaded = load_with_step(run_dir, step)

    def measure(images: np.ndarray, labels: np.ndarray | None) -> Measured:
        weights = model.log_weights(images, importance_samples, seed, labels, batch_size).astype(np.float64)
        return log_mean(weights)

    return Density(
        measure,
        preparation(model.image_shape, model.num_bins, configuration.of_run(folder / "config.gin")),
        facts,
        {
            "step": loaded,
            "model": identity(folder, step, loaded),
            "importance_samples": importance_samples,
            "seed": seed,
        },
        folder,
    )


def log_mean(log_weights: np.ndarray) -> Measured:
    """log of the mean of weights, and its standard error: the weights' relative one (the delta method).

    Args:
      log_weights: float64 [B, K].

    Returns:
      float64 [B] and float64 [B]; the error is NaN for K = 1. Weights of which one outweighs all others have an error
      near 1 whatever is missing beyond them: it is then too small.
    """
    count = log_weights.shape[1]
    means = np.logaddexp.reduce(log_weights, 1) - math.log(count)
    if count == 1:
        return means, np.full(len(means), np.nan)
    relative = np.exp(log_weights - means[:, None])
    return means, relative.std(1, ddof=1) / math.sqrt(count)


def _exported(folder, batch_size):
    from tf_pivae.export.runtimes.local_model import load
    from tf_pivae.loading import register

    register()  # What the card's configuration names.
    model = load(folder, batch_size=batch_size)
    path = model.folder / MODEL_CARD
    try:
        card = read_json(path)
        facts = card["data"]
        settings = configuration.of_text(card["configuration"], path)
        identity = {"step": card["step"], "exported": card["exported"], **card["export_options"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: export the run again.") from error

    def measure(images: np.ndarray, labels: np.ndarray | None) -> Measured:
        log_prob = model.log_prob(images, labels).log_prob.astype(np.float64)
        return log_prob, np.full(len(log_prob), np.nan)

    return Density(measure, preparation(facts["image_shape"], facts["num_bins"], settings), facts, identity, None)
