"""Gin files with one mistake each, made from the shipped ones by a seeded generator."""

import random
import re
import shutil
from pathlib import Path

GIN = Path(__file__).resolve().parent.parent / "gin"
ENTRIES = ("demo.gin", "cifar.gin", "gan_bits_per_dim.gin")
# Networks small enough to be built a hundred times; the data that needs no network.
_SMALL = (
    (r"(\w+)\.widths = .*", r"\1.widths = (4, 4)"),
    (r"(\w+)\.(stem_width|width|top_channels|latent_channels) = .*", r"\1.\2 = 2"),
    (r"RealNVP\.num_(couplings|blocks) = .*", r"RealNVP.num_\1 = 1"),
    (r"train\.dataset = @tfds_images", "train.dataset = @bundled\nbundled.image_size = 16"),
    (r"tfds_images\.name = .*", "bundled.num_examples = (16, 8)"),
)
_VALUES = (
    *("None", "True", "-1", "0", "1", "3.7", "-0.5", "1e308", "-1e308", "1000000000", "10" * 20, "10**9"),
    *("''", "'many'", "'4'", "()", "(4,)", "(4, 0)", "(4, -4)", "(4, 'x')", "(4, 1000000000)", "[4, [4]]", "{'a': 1}"),
    *("(None, None)", "1 2", "%", "@", "@()", "%nowhere", "@nowhere", "%seed", "%num_steps", "@a/bundled", "@bundled"),
    *("@bundled()", "@Trainer", "@Trainer()", "@residual_vae", "@RealNVP", "@logit", "@affine()", "@plain_critic"),
    *("@IAFPosterior", "@GaussianPosterior()", "@train", "@train()", "@image_folder", "__import__('os')"),
    *("{" * 300, "(" * 300 + ")" * 300),
)
_INCLUDES = ("models/nowhere.gin", "models", ".", "", "../demo.gin", "demo.gin", "/", "models/flow.gin", "\\0")
_LETTERS = "abcdefghijklmnopqrstuvwxyz_ABC019.=@%()[]{}'\",#\\/ \t:+-*é\x00"


def write(folder, seed):
    """Writes the shipped gin files, shrunk, with one mutation.

    Args:
      folder: an empty `Path`.
      seed: int, decides the mutation.

    Returns:
      The `Path` of the entry file, and a description of the mutation.
    """
    rng = random.Random(seed)
    shutil.copytree(GIN, folder, dirs_exist_ok=True)
    for path in folder.rglob("*.gin"):
        text = path.read_text()
        for pattern, replacement in _SMALL:
            text = re.sub(pattern, replacement, text)
        path.write_text(text)
    entry = folder / ENTRIES[0 if rng.random() < 0.5 else 1]
    target = rng.choice(_included(folder, entry))
    lines = target.read_text().splitlines()
    i = rng.choice([i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")])
    kind = rng.choice(_MUTATIONS)
    mutated = kind(lines[i], rng)
    target.write_text("\n".join([*lines[:i], mutated, *lines[i + 1 :]]) + "\n")
    return entry, f"seed {seed}: {target.relative_to(folder)}: {lines[i]!r} -> {mutated!r}"


def _included(folder, entry):
    """The files that an entry file consists of."""
    results = [entry]
    for path in results:
        names = re.findall(r'^include "(.+)"', path.read_text(), flags=re.MULTILINE)
        results += [folder / name for name in names if folder / name not in results]
    return results


def _delete_character(line, rng):
    i = rng.randrange(len(line))
    return line[:i] + line[i + 1 :]


def _replace_character(line, rng):
    i = rng.randrange(len(line))
    return line[:i] + rng.choice(_LETTERS) + line[i + 1 :]


def _insert_character(line, rng):
    i = rng.randrange(len(line) + 1)
    return line[:i] + rng.choice(_LETTERS) + line[i:]


def _swap_letters(line, rng):
    i = rng.randrange(len(line) - 1)
    return line[:i] + line[i + 1] + line[i] + line[i + 2 :]


def _cut(line, rng):
    return line[: rng.randrange(len(line))]


def _delete_line(line, rng):
    return ""


def _other_value(line, rng):
    if line.startswith("include"):
        return f'include "{rng.choice(_INCLUDES)}"'
    return line.split("=")[0] + "= " + rng.choice(_VALUES)


def _other_name(line, rng):
    names = ("Trainer.nothing", "nothing.seed", "RealNVP.image_shape", "train.run_dir", "macro", "gin.macro", "a/b/c.d")
    return f"{rng.choice(names)} ={line.partition('=')[2] or ' 1'}"


# A value that is wrong is the most frequent mistake.
_MUTATIONS = (
    _delete_character, _replace_character, _insert_character, _swap_letters, _cut, _delete_line, _other_name,
    _other_value, _other_value, _other_value, _other_value,
)  # fmt: skip
