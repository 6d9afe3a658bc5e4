"""`assets.extra/model_card.json`: what an exported model is, where it comes from and how good it was found to be."""

import datetime
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from tensorflow.types.experimental import ConcreteFunction

from tf_pivae.export.versions import MODEL_CARD
from tf_pivae.export.write.signatures import Options
from tf_pivae.files import file_sha256
from tf_pivae.runs import records
from tf_pivae.version import __version__

_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


def model_card(
    run_dir: str | Path,
    checkpoint: tuple[int, str],
    options: Options,
    functions: dict[str, ConcreteFunction],
    check: dict[str, Any],
) -> dict[str, Any]:
    """A dictionary that JSON can hold.

    Args:
      run_dir: folder of the run.
      checkpoint: the exported one's step, and the `runs.weights.digest` of its model.
      options: the export's `Options`.
      functions: what `signatures` returned.
      check: dict, how the export compared with the model.
    """
    evaluation = (records.load_evaluation(run_dir, *checkpoint) or {}).get("rows", [])
    facts = records.load_facts(run_dir)
    return {
        "format": 1,
        "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "run": Path(run_dir).resolve().name,
        "step": checkpoint[0],
        "data": {key: facts[key] for key in ("name", "image_shape", "num_classes", "num_bins")},
        "trained_by": {key: facts[key] for key in ("likelihood", "inference_only", "moving_average")},
        "bits_per_dim": _first(evaluation, "bits/dim"),
        "fid": _first(evaluation, "FID"),
        "evaluation": evaluation,
        "export_options": options._asdict(),
        "check": check,
        "signatures": {name: _describe(function) for name, function in functions.items()},
        "configuration": (Path(run_dir) / "config.gin").read_text(),
        "versions": {
            "tf-pivae": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def write_model_card(folder: str | Path, card: dict[str, Any]) -> None:
    """Writes the card with the SHA-256 of every other file of the version."""
    folder = Path(folder)
    path = folder / MODEL_CARD
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != path)
    sums = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**card, "sha256": sums}, indent=1, allow_nan=False) + "\n")


def _first(rows, prefix):
    """The last, tightest of the rows of a metric, or None: not measured."""
    matches = [row for row in rows if row["metric"].startswith(prefix)]
    return matches[-1] if matches else None


def _describe(function):
    specs = {"inputs": function.structured_input_signature[1], "outputs": function.structured_outputs}
    return {side: {key: _type(tensor) for key, tensor in tensors.items()} for side, tensors in specs.items()}


def _type(tensor):
    """Such as "uint8 [N, 32, 32, 3]"."""
    return f"{tensor.dtype.name} [{', '.join(['N', *map(str, tensor.shape[1:])])}]"
