"""Training against the clock: so many seconds of it, checkpoints and all that lies between not counted."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tf_pivae.files import replacing, write_atomically

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_SECONDS = 120.0  # of training
_REPORTS = 100  # lines of `losses.jsonl`


class Trainee(Protocol):
    """What can be trained so: `benchmarks.race.contestant.TorchContestant`, whose docstrings say what is what."""

    batch_size: int
    optimizers: list[torch.optim.Optimizer]

    def train(self) -> Any: ...

    def train_step(self, images: torch.Tensor, fraction: float) -> torch.Tensor: ...

    def rate(self, fraction: float) -> float: ...

    def state(self) -> dict: ...

    def load_state(self, state: dict) -> None: ...


def train(contestant: Trainee, images: np.ndarray, folder: Path, seconds: float) -> dict:
    """Trains, or goes on from the last checkpoint, until so many seconds have been spent on steps.

    Args:
      images: uint8 [N, 28, 28, 1].
      folder: for `checkpoint.pt`, which is written every two minutes and at the end, and `losses.jsonl`.

    Returns:
      Steps, seconds, and images a second.

    Raises:
      FloatingPointError: a loss is not finite.
    """
    path = folder / CHECKPOINT
    step = 0
    spent = 0.0
    reports: list[dict] = []
    torch.manual_seed(0)
    if path.exists():
        saved = torch.load(path, weights_only=True)
        contestant.load_state(saved["contestant"])
        step = saved["step"]
        spent = saved["seconds"]
        reports = saved["reports"]
        torch.manual_seed(step)  # Not the numbers of the first steps again.
    contestant.train()
    rates = [[group.setdefault("initial_lr", group["lr"]) for group in o.param_groups] for o in contestant.optimizers]
    size = contestant.batch_size
    last_saved = spent
    batches = _batches(images, size, step)
    while spent < seconds:
        started = time.perf_counter()
        fraction = spent / seconds
        for optimizer, initial in zip(contestant.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = rate * contestant.rate(fraction)
        loss = float(contestant.train_step(next(batches), fraction))
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss of step {step} is {loss}")
        spent += time.perf_counter() - started
        step += 1
        if spent >= len(reports) * seconds / _REPORTS:
            reports.append({"seconds": round(spent, 1), "step": step, "loss": loss})
            write_atomically(folder / "losses.jsonl", "".join(json.dumps(line) + "\n" for line in reports))
        if spent - last_saved > _CHECKPOINT_SECONDS or spent >= seconds:
            state = {"contestant": contestant.state(), "step": step, "seconds": spent, "reports": reports}
            with replacing(path) as partial:
                torch.save(state, partial)
            last_saved = spent
    return {"steps": step, "seconds": spent, "images_per_second": step * size / spent}


def _batches(images: np.ndarray, size: int, step: int) -> Iterator[torch.Tensor]:
    """Batches from a step on, uint8 [size, 1, 28, 28]: a permutation for each pass over the images."""
    per_pass = len(images) // size
    while True:
        order = np.random.default_rng(step // per_pass).permutation(len(images))
        for i in range(step % per_pass, per_pass):
            batch = images[order[i * size : (i + 1) * size]]
            yield torch.from_numpy(batch).permute(0, 3, 1, 2)
            step += 1
