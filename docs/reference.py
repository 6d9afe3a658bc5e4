"""Writes docs/api/, the reference, from the docstrings: python docs/reference.py

Reads the source; nothing of it is imported, and nothing is written here by hand.
"""

import logging
import re
import sys
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "api"

# Page -> what it is about, and the packages or modules on it. The commands are in docs/commands.md; what only they need
# (sweeps, reports, the paper's tables) is no library.
PAGES = {
    "models": ("The joint model, the VAE, the critics.", ["tf_pivae.models"]),
    "bijectors": ("What the head is made of: one bijector a module.", ["tf_pivae.bijectors"]),
    "layers": ("Convolutions with normalised or masked weights, running moments.", ["tf_pivae.layers"]),
    "training": ("Losses, Algorithm 1, the loop, run directories.", ["tf_pivae.training", "tf_pivae.dry_run"]),
    "data": ("Sources of images, batches.", ["tf_pivae.data"]),
    "metrics": ("Bits per dimension, distances, scores.", ["tf_pivae.metrics", "tf_pivae.evaluation"]),
    "export": (
        "Writing SavedModels, and the clients of what serves them.",
        [f"tf_pivae.export.{name}" for name in ("saved_model", "signatures", "client", "grpc_client", "model_client")]
        + ["tf_pivae.export.rest_client", "tf_pivae.export.requests"],
    ),
    "common": (
        "Noise, pictures, errors, gin.",
        [
            "tf_pivae.noise",
            "tf_pivae.rows",
            "tf_pivae.threads",
            "tf_pivae.figures",
            "tf_pivae.errors",
            "tf_pivae.cli",
            "tf_pivae.configurable",
        ],
    ),
}
_COMMANDS = {"convert_inception"}
_SECTIONS = {
    "parameters": "Args",
    "returns": "Returns",
    "yields": "Yields",
    "raises": "Raises",
    "attributes": "Attributes",
}


def modules():
    """Page -> list of griffe's modules, sorted by name."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # It wants a type for each argument: ours are in the text.
    package = griffe.load("tf_pivae", search_paths=[ROOT], docstring_parser="google")
    # In a clone, tf_pivae.export is the folder export/.
    export = griffe.load("export", search_paths=[ROOT], docstring_parser="google")
    found = {}
    for page, (_, names) in PAGES.items():
        found[page] = []
        for name in names:
            path = name.removeprefix("tf_pivae.")
            found[page] += _walk(export[path.removeprefix("export.")] if path.startswith("export.") else package[path])
    return found


def _walk(module):
    own = [m for m in module.members.values() if not m.is_alias and m.is_module]
    below = [m for m in own if _public(m.name) and m.name not in _COMMANDS]
    return [module, *(found for child in sorted(below, key=lambda m: m.name) for found in _walk(child))]


def _public(name):
    return not name.startswith("_")


def members(module):
    """The public functions and classes that a module defines, in the order of the source."""
    own = [m for m in module.members.values() if not m.is_alias and (m.is_function or m.is_class) and _public(m.name)]
    return sorted(own, key=lambda m: m.lineno)


def methods(cls):
    """The public methods and properties with a docstring, in the order of the source."""
    own = [m for m in cls.members.values() if not m.is_alias and _public(m.name) and m.docstring and not m.is_class]
    return sorted(own, key=lambda m: m.lineno)


def render():
    """The pages: dict of a file's name -> its text."""
    pages = {}
    index = []
    for page, found in modules().items():
        about, _ = PAGES[page]
        parts = [_module(module) for module in found if module.docstring]
        pages[f"{page}.md"] = "\n\n".join([f"# {page.capitalize()}", about, *parts]) + "\n"
        names = ", ".join(f"`{member.name}`" for module in found for member in members(module))
        index.append(f"## [{page.capitalize()}]({page}.md)\n\n{about}\n\n{names}")
    start = (
        "# Reference\n\nWritten by `python docs/reference.py` from the docstrings. `tf_pivae.load`, "
        "`tf_pivae.pretrained`, `tf_pivae.PiVAE`, `tf_pivae.UserError` and `tf_pivae.metrics` are the names at the "
        "top. Arrays are described as dtype and shape, such as uint8 [B, H, W, C]; log-probabilities are in nats, bits "
        "per dimension in bits. The commands are in [commands.md](../commands.md)."
    )
    pages["README.md"] = "\n\n".join([start, *index]) + "\n"
    return pages


def _module(module):
    name = re.sub(r"^export\b", "tf_pivae.export", module.path)
    parts = [f"## {name}", _docstring(module)]
    for member in members(module):
        parts.append(_class(member) if member.is_class else _function(member, "###"))
    return "\n\n".join(part for part in parts if part)


def _class(cls):
    fields = [member.source.strip() for member in cls.members.values() if _is_field(member)]
    parts = [f"### class `{cls.name}{_signature(cls)}`", _docstring(cls)]
    if fields:
        parts.append("```python\n" + "\n".join(fields) + "\n```")
    parts += [_function(method, "####", f"{cls.name}.") for method in methods(cls)]
    return "\n\n".join(part for part in parts if part)


def _is_field(member):
    """Of a NamedTuple or a dataclass."""
    return member.is_attribute and member.annotation is not None and "class-attribute" in member.labels


def _signature(cls):
    init = cls.members.get("__init__")
    return "" if init is None or init.is_alias else init.signature().removeprefix("__init__")


def _function(function, level, prefix=""):
    signature = function.signature() if function.is_function else function.name
    return "\n\n".join(part for part in [f"{level} `{prefix}{signature}`", _docstring(function)] if part)


def _docstring(thing):
    if not thing.docstring:
        return ""
    parts = []
    for section in thing.docstring.parse("google", returns_named_value=False, warnings=False):
        if section.kind.value == "text":
            parts.append("\n\n".join(map(_paragraph, section.value.split("\n\n"))))
        elif section.kind.value in _SECTIONS:
            lines = [_item(section.kind.value, item) for item in section.value]
            parts.append(f"**{_SECTIONS[section.kind.value]}**\n\n" + "\n".join(lines))
        else:
            raise ValueError(f"{thing.path}: a section of the kind {section.kind.value}")
    return "\n\n".join(parts)


def _item(kind, item):
    description = _escaped(" ".join(item.description.split()))
    if kind in ("parameters", "attributes"):
        return f"- `{item.name}`: {description}"
    name = str(item.annotation or "")
    return f"- {_escaped(name)}: {description}" if name else f"- {description}"


def _paragraph(text):
    """Mathematics and trees, which live by their spaces, are kept as they are."""
    aligned = any(re.search(r"\S {3,}\S", line) or line.startswith("    ") for line in text.splitlines())
    return f"```text\n{text}\n```" if aligned else _escaped(text)


def _escaped(text):
    """Angle brackets outside of code, which Markdown would take for HTML."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def main():
    OUTPUT.mkdir(exist_ok=True)
    pages = render()
    for path in OUTPUT.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (OUTPUT / name).write_text(text, "utf-8")
    print(f"{len(pages)} pages: {OUTPUT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
