"""Drawings of people for the model in colour: the Noto Emoji portraits of the npm package emoji-datasource-google.

    npm install emoji-datasource-google@16.0.0
    python -m benchmarks.drawings --package=node_modules/emoji-datasource-google --output=data/people

Copies the drawings of persons, gestures, roles and fantasy figures into OUTPUT/train and OUTPUT/test, as they are. One
drawing in ten is held out with all its skin tones: a tone of a drawing that was trained on would tell nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError
from tf_pivae.files import new_folder

_PACKAGE = flags.DEFINE_string("package", None, "Folder of the unpacked npm package.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The folder to write, which must not exist yet.", required=True)

SUBCATEGORIES = ("person", "person-fantasy", "person-gesture", "person-role")
HELD_OUT = 10  # One drawing of so many.


class Drawing(NamedTuple):
    """One drawing in all its skin tones."""

    name: str
    files: tuple[str, ...]


def main() -> None:
    output = Path(_OUTPUT.value)
    if output.exists():
        raise UserError(f"{output} exists already: remove it, or choose another --output.")
    splits = write(Path(_PACKAGE.value), output)
    counts = [f"{name} {len(of)} drawings, {sum(len(one.files) for one in of)} files" for name, of in splits.items()]
    print("; ".join(counts))


def write(package: Path, output: Path) -> dict[str, list[Drawing]]:
    """Copies the portraits of the unpacked package into the new folder `output`, which appears whole or not at all.

    Raises:
      UserError: `package` is another folder, or lacks a file; or `output` cannot be written.
    """
    try:
        splits = split(portraits(json.loads((package / "emoji.json").read_text("utf-8"))))
        pictures = {
            f"{name}/{file}": (package / "img" / "google" / "64" / file).read_bytes()
            for name, drawings in splits.items()
            for file in (file for drawing in drawings for file in drawing.files)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{package} is not the unpacked npm package emoji-datasource-google ({error}): set --package to its folder."
        ) from error
    with new_folder(output) as partial:
        for name, picture in pictures.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(picture)
    return splits


def portraits(emoji: list[dict]) -> list[Drawing]:
    """The drawings of `SUBCATEGORIES` of the package's emoji.json, by name; those without a picture are left out."""
    chosen = [entry for entry in emoji if entry["subcategory"] in SUBCATEGORIES]
    tones = {entry["short_name"]: [entry, *entry.get("skin_variations", {}).values()] for entry in chosen}
    drawings = [
        Drawing(name, tuple(sorted(Path(tone["image"]).name for tone in every if tone["has_img_google"])))
        for name, every in sorted(tones.items())
    ]
    return [drawing for drawing in drawings if drawing.files]


def split(drawings: list[Drawing]) -> dict[str, list[Drawing]]:
    """Training and test drawings, by the SHA-256 of the name."""
    order = sorted(drawings, key=lambda drawing: hashlib.sha256(drawing.name.encode()).digest())
    count = max(1, len(order) // HELD_OUT)
    return {"train": order[count:], "test": order[:count]}


if __name__ == "__main__":
    cli.run(main)
