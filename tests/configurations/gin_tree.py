"""The gin files of the tree, and how each is made into a whole configuration."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIN = ROOT / "gin"

# Fragments that are added to a configuration, after these files (and with these bindings).
_HOSTS = {
    "options/": (["demo.gin"], []),
    # Tests of the whole tree take steps of two images.
    "options/gradient_accumulation.gin": (["demo.gin"], ["AccumulatingTrainer.num_parts=2"]),
    "options/five_bit.gin": (["demo.gin"], ["reduced_levels.dataset=@bundled"]),
    "presets/": (["paper/cqfg.gin"], []),
    "presets/small_gan.gin": (["paper/gan.gin"], []),
    "presets/photographs.gin": (["paper/cqfg.gin", "presets/small.gin"], []),
    "presets/tiny_gan.gin": (["paper/gan_res.gin"], []),
    "presets/small_cqg.gin": (["paper/cqg.gin"], []),
    "gan_bits_per_dim.gin": (["paper/gan.gin"], ["initial_run='RUN'"]),
}
# Bindings for the evaluate command; they name no model.
EVALUATION = ["presets/small_evaluation.gin", "presets/tiny_evaluation.gin"]


def names():
    """Every gin file, relative to gin/."""
    return sorted(path.relative_to(GIN).as_posix() for path in GIN.rglob("*.gin"))


def included():
    """Every gin file that another one includes."""
    texts = (path.read_text() for path in GIN.rglob("*.gin"))
    return {name for text in texts for name in re.findall(r'^include "(.+)"', text, flags=re.MULTILINE)}


def parts_of_others():
    """Files that are no configuration by themselves, and are tested within those that include them."""
    return [name for name in names() if name.split("/")[0] in ("models", "training", "datasets")]


def configurations():
    """Pairs (gin files, bindings) that together use every gin file but those for the evaluate command."""
    whole = []
    for name in names():
        if name in EVALUATION or name in parts_of_others():
            continue
        folder = f"{name.split('/')[0]}/" if "/" in name else name
        files, bindings = _HOSTS.get(name) or _HOSTS.get(folder) or ([], [])
        whole.append(([*files, name], bindings))
    return whole
