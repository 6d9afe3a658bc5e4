"""Makes of a finished run a folder of a few MB: the weights of the model and of its critic, and a model card."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tf_pivae import loading
from tf_pivae.errors import NotFinite, UserError, nan_is_an_error
from tf_pivae.files import new_folder, read_text, write_atomically
from tf_pivae.runs import changes, hub, records
from tf_pivae.runs.checkpoints import BEST, Checkpoints
from tf_pivae.runs.pretrained import pretrained, resolve
from tf_pivae.runs.weights import digest, restore_critic
from tf_pivae.training.building import num_elements
from tf_pivae.version import __version__

if TYPE_CHECKING:
    from tf_pivae.models.critic import Critic
    from tf_pivae.models.pivae import PiVAE

_NUM_CHECKED = 8
_FRONT_MATTER = "---\nlibrary_name: tf_pivae\ntags:\n- image-generation\n- density-estimation\n---\n"  # For the hub.


def publish(
    run_dir: str | Path, output: str | Path, step: int | str | None = None, to: Literal["folder", "hub"] = "folder"
) -> int:
    """Writes a run directory in miniature, which `tf_pivae.load` and the commands that read runs take.

    It has the weights of the critic and of the model, the moving average where it was kept, but not the optimisers:
    training cannot go on from it, but `initial_run` can begin with it. A "best" model has no critic.

    Args:
      run_dir: folder of the run.
      output: the folder to write, which must not exist yet; it appears whole or not at all. With `to` "hub" the
        model's name there, OWNER/NAME.
      step: int, the checkpoint; None is the newest, "best" the one that its `train.validation` chose.
      to: "hub" uploads it to the Hugging Face hub: `tf_pivae.load("hf://OWNER/NAME")` takes it from there.

    Returns:
      int, the checkpoint's step.

    Raises:
      UserError: no run, no checkpoint, a model that has diverged, or `output` exists or cannot be written.
    """
    if to == "hub":
        hub.check_name(str(output))
        with tempfile.TemporaryDirectory() as folder:
            step = _write(run_dir, Path(folder) / "model", step, f"hf://{output}")
            card = read_text(Path(folder) / "model/model_card.md")
            write_atomically(Path(folder) / "model/README.md", _FRONT_MATTER + card)
            hub.upload(Path(folder) / "model", str(output))
        return step
    hub.check_is_folder(output)
    return _write(run_dir, Path(output), step, Path(output).name)


def _write(run_dir: str | Path, output: Path, step: int | str | None, name: str) -> int:
    """The folder of a model that is loaded by this name; returns the checkpoint's step."""
    run_dir = resolve(run_dir)
    if output.exists():
        raise UserError(f"{output} exists already: remove it, or choose another --output.")
    best = step == BEST
    model, step = loading.load_with_step(run_dir, step)
    critic = None if best else _critic(run_dir, step)
    facts = records.load_facts(run_dir)
    _check(model, step, facts["likelihood"])
    with new_folder(output) as partial:
        for file in ("config.gin", "data.json"):
            write_atomically(partial / file, read_text(run_dir / file))
        environments = records.load_environments(run_dir)
        if environments:
            write_atomically(partial / "environment.json", json.dumps(environments, indent=1) + "\n")
        if changed := changes.history(run_dir):
            write_atomically(partial / "changes.json", json.dumps(changed, indent=1) + "\n")
        group = "moving_average" if facts["moving_average"] else "pivae"
        groups = {group: model.variables} if critic is None else {group: model.variables, "critic": critic.variables}
        Checkpoints(partial / "checkpoints").save(step, groups)
        evaluation = records.load_evaluation(run_dir, step, digest(model))
        if evaluation is not None:
            write_atomically(partial / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
        write_atomically(partial / "model_card.md", model_card(name, run_dir, step, model, evaluation))
    return step


def _check(model: PiVAE, step: int, likelihood: bool) -> None:
    """Raises UserError where the model's samples, or their bounds if it has any, are NaN or infinite."""
    labels = np.arange(_NUM_CHECKED) % model.num_classes if model.num_classes else None
    try:
        with nan_is_an_error():
            images = model.sample(_NUM_CHECKED, labels=labels)
        finite = not likelihood or np.isfinite(model.log_prob(images, labels=labels)).all()
    except NotFinite:
        finite = False
    if not finite:
        raise UserError(f"the model has diverged at step {step}: publish an earlier checkpoint by --step.")


def _critic(run_dir: Path, step: int) -> Critic | None:
    """The critic of a run as it was at a step; None where it has none."""
    facts = records.load_facts(run_dir)
    critic = loading.recipe_of(run_dir).build_critic(facts["num_classes"])
    if critic is None:
        return None
    critic.build(facts["image_shape"])
    return critic if restore_critic(run_dir, critic, step) is None else None


def model_card(name: str, run_dir: str | Path, step: int, model: PiVAE, evaluation: dict | None = None) -> str:
    """What a model is, where it comes from, how good it was found to be and what it is not for, as Markdown.

    Args:
      name: str, how it is loaded.
      run_dir: folder of the run.
      step: int, the checkpoint.
      model: the `PiVAE` at this step.
      evaluation: what RUN/evaluation.json says of this step, or None.
    """
    facts = records.load_facts(run_dir)
    height, width, channels = facts["image_shape"]
    conditional = f", one of {model.num_classes} classes" if model.num_classes else ""
    weights = num_elements(model.trainable_variables)
    head = num_elements(model.flow_variables)
    recipe = loading.recipe_of(run_dir)
    start = "" if recipe.initial_run is None else f", from the weights of `{recipe.initial_run}` on,"
    by_name = hub.is_address(name) or name in pretrained()
    loads = f'`tf_pivae.load("{name}")`' if by_name else "`tf_pivae.load`, given the path of this folder,"
    average = "; the weights are their moving average" if facts["moving_average"] else ""
    return f"""\
# {name}

A partially invertible variational autoencoder (Lucas et al. 2019) of {facts["name"]}: a lower bound on the
log-probability of an image, and samples. {loads} loads it.
It was published by tf_pivae {__version__}.

## What it is

- **Images**: {height}x{width}x{channels}, {facts["num_bins"]} levels{conditional}.
- **Weights**: {weights:,}, of which {head:,} are the invertible head's.
- **Latent groups**: {", ".join(model.vae.group_names)}.
- **Trained** for {step:,} steps of {recipe.batch_size} images{start} by {_objectives(run_dir, facts)}{average}.
- **Configuration**: `config.gin` in this folder has every setting; `python -m tf_pivae.train --gin_file=config.gin
  --run_dir=RUN` trains it again.
- **Machine**: {_machine(run_dir)}.

## How good it was found to be

{_table(evaluation)}

## What to mind

- Log-probabilities are lower bounds: with more importance samples they come closer to the truth from below.
- They are of images of exactly this shape and these levels, prepared as the training images were. A high probability
  does not mean that an image resembles the data: generative models are known to give simple images of other kinds more
  than their own.
- The model knows {facts["name"]} and nothing else. It is there to try the program out and to compare with, not to
  decide anything about people or things.
"""


def _objectives(run_dir: str | Path, facts: dict[str, Any]) -> str:
    if facts["inference_only"]:
        return "likelihood, around a generator that stays as it is"
    losses = ["likelihood"] * facts["likelihood"] + ["an adversary"] * loading.has_adversary(run_dir)
    return " and by ".join(losses)


def _machine(run_dir):
    machines = [", ".join(f"{key} {value}" for key, value in start.items() if key not in ("started", "from_step"))
             for start in records.load_environments(run_dir)]  # fmt: skip
    return machines[-1] if machines else "not recorded"


def _table(evaluation):
    if evaluation is None:
        return "It was not evaluated."
    lines = ["| | | ± | |", "|---|---|---|---|"]
    for row in evaluation["rows"]:
        spread = "" if row["spread"] is None else f"{row['spread']:.4f}"
        value = f"[{row['value']:.4f}]" if row["approximate"] else f"{row['value']:.4f}"
        lines.append(f"| {row['metric'].strip()} | {value} | {spread} | {row['protocol']} |")
    return "\n".join(lines)
