"""How the site reads the docstrings; mkdocs.yml names this file. Griffe reads the source, nothing of it is imported."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Puts export/ where it is installed; reads what Google's style does not know: `a, b: text`, fields."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """In a clone, tf_pivae.export is the folder export/."""
        if pkg.name == "tf_pivae":
            pkg.set_member("export", loader.load("export"))

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Describes every argument by itself."""
        if obj.docstring is not None:
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(map(_each_alone, paragraphs))

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Shows the fields of a NamedTuple or a dataclass as they stand: `log_prob: tf.Tensor  # [B], nats`."""
        members = [member for member in cls.members.values() if not member.is_alias and member.is_attribute]
        lines = [field.source.strip() for field in members if field.annotation is not None]
        fields = [re.sub(r"  # type: ignore\S*", "", line) for line in lines]
        if cls.docstring is not None and fields:
            cls.docstring.value += "\n\n```python\n" + "\n".join(fields) + "\n```"


def _each_alone(paragraph: str) -> str:
    if not paragraph.startswith("Args:"):
        return paragraph

    def split(match: re.Match[str]) -> str:
        return "\n".join(f"{match[1]}{name}:{match[3]}" for name in match[2].split(", "))

    return re.sub(r"^( +)(\*?\w+(?:, \*?\w+)+):(.*(?:\n\1 +.*)*)", split, paragraph, flags=re.MULTILINE)
