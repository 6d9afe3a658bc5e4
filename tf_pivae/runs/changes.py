"""What may change when a run goes on, and the record of what did: `RUN/changes.json`.

Settings that no weight depends on, a larger `num_steps`, and where the images lie, may change at any time. Others, such
as a learning rate, change where the user says so: from the checkpoint on from which the run goes on.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, NamedTuple

from tf_pivae import values
from tf_pivae.configuration import checking, parsing
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, write_atomically
from tf_pivae.values import Within, is_record

PLACES = {
    "image_folder": ("path", "test_path", "cache_dir"),
    "npz_images": ("path", "cache_dir"),
    "tfds_images": ("data_dir", "cache_dir"),
    "idx_images": ("train_images", "test_images", "train_labels", "test_labels", "cache_dir"),
}  # Settings of the sources of images that say where they lie.
_CHANGE = {"from_step": Annotated[int, Within(0)], "settings": dict}
_PAIR = tuple[str | None, str | None]
_FILE = "changes.json"


class Changes(NamedTuple):
    """Settings that differ, name -> (before, now), as gin writes them; None where one has no such setting."""

    free: dict[str, tuple[str | None, str | None]]
    others: dict[str, tuple[str | None, str | None]]


class _Configuration:
    """The bindings of a configuration: name -> what gin says, with the macros behind it."""

    def __init__(self, text: str, origin: str) -> None:
        self.bindings = {}
        self.macros = {}
        for statement in parsing.statements(text, origin):
            scope, selector, name, value = statement[:4]
            selector = f"{scope}/{selector}" if scope else selector
            table = self.bindings if name else self.macros
            table[f"{selector}.{name}" if name else selector] = repr(value), checking.macros(value)

    def value_of(self, name: str) -> str | None:
        """The value of a setting; a macro's where that is all it is."""
        text = self.bindings.get(name, (None, ()))[0]
        visited = set()
        while text is not None and (macro := re.fullmatch(r"%([\w./]+)", text)) and macro[1] not in visited:
            visited.add(macro[1])
            text = self.macros.get(macro[1], (None, ()))[0]
        return text

    def macros_of(self, name: str) -> set[str]:
        """The macros that a setting depends on, through others, too."""
        closure = set()
        new = set(self.bindings.get(name, ("", ()))[1])
        while new:
            closure |= new
            new = {macro for used in new for macro in self.macros.get(used, ("", ()))[1]} - closure
        return closure


def compare(before: str, now: str, origin: str, free: Collection[str]) -> Changes:
    """What differs between two configurations of the same run.

    Args:
      before, now: operative configurations, gin text.
      origin: names the first, for messages.
      free: settings that no weight depends on.

    Raises:
      UserError: the first cannot be parsed.
    """
    old = _Configuration(before, origin)
    new = _Configuration(now, "the new configuration")
    macros = {name for name in {*old.macros, *new.macros} if old.macros.get(name) != new.macros.get(name)}
    changes = Changes({}, {})
    loggers = {name for one in (old, new) for name in re.findall(r"@([\w./]+)", one.value_of("train.loggers") or "")}
    for name in sorted({*old.bindings, *new.bindings}):
        is_same = old.bindings.get(name) == new.bindings.get(name)
        if is_same and not macros & (old.macros_of(name) | new.macros_of(name)):
            continue
        pair = old.value_of(name), new.value_of(name)
        if not is_same and {*pair} <= {None, "None"}:
            continue  # A setting that another version of the program does not have, and that is not made.
        owner = name.rpartition(".")[0]
        is_free = name in free or owner == "Validation" or owner in loggers or is_place(name)
        is_free |= name == "train.num_steps" and _is_larger(*pair)
        (changes.free if is_free else changes.others)[name] = pair
    return changes


def is_place(name: str) -> bool:
    """Whether a setting says where images lie."""
    owner, _, key = name.rpartition(".")
    return key in PLACES.get(owner.rpartition("/")[2], ())


def _is_larger(before: str | None, now: str | None) -> bool:
    return bool(before and now and before.isdecimal() and now.isdecimal() and int(now) > int(before))


def record(run_dir: str | Path, from_step: int, changes: Changes) -> None:
    """Adds an entry to `RUN/changes.json`; that of a start which came to nothing is replaced."""
    earlier = [entry for entry in history(run_dir) if entry["from_step"] < from_step]
    replaced = [entry["settings"] for entry in history(run_dir) if entry["from_step"] >= from_step]
    settings = {name: list(pair) for name, pair in (changes.free | changes.others).items()}
    for entry in reversed(replaced):  # From before all of them to now.
        settings = entry | {name: [entry.get(name, pair)[0], pair[1]] for name, pair in settings.items()}
    entries = [*earlier, {"from_step": from_step, "settings": settings}]
    write_atomically(Path(run_dir) / _FILE, json.dumps(entries, indent=1) + "\n")


def history(run_dir: str | Path) -> list[dict]:
    """What `RUN/changes.json` says: dicts of the step from which settings changed, and name -> [before, after].

    Raises:
      UserError: the file is damaged.
    """
    path = Path(run_dir) / _FILE
    if not path.exists():
        return []
    try:
        entries = read_json(path)
    except ValueError:
        entries = None
    if not isinstance(entries, list) or not all(
        is_record(entry, _CHANGE) and all(values.fits(_PAIR, pair) for pair in entry["settings"].values())
        for entry in entries
    ):
        raise UserError(f"{path} is damaged: remove it; the current settings are in config.gin.")
    return entries


def lines(changes: Changes) -> list[str]:
    """What differs, for people, one setting per line."""
    pairs = (changes.free | changes.others).items()
    return [f"  {name}: {before or 'not set'} -> {now or 'not set'}" for name, (before, now) in pairs]
