"""What a sweep tries: axes parsed from `--sweep=NAME=VALUES`, their product, or random draws from them."""

from __future__ import annotations

import ast
import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from tf_pivae.errors import UserError

MAX_TRIALS = 10_000  # Each is a process and a folder: a larger number is a mistake.
_DIGITS = 4  # Significant digits of a number drawn from a range: what a table shows is what was run.
_ALL_DIGITS = 17  # Those of a double.
_RANGES = ("log", "uniform", "int")
_CONSTANTS = ("True", "False", "None")
_OPENING = "([{"
_CLOSING = ")]}"


class Choices(NamedTuple):
    """A list of values, as gin text."""

    values: tuple[str, ...]

    def draw(self, u: float) -> str:
        """The value at `u` in [0, 1)."""
        return self.values[int(u * len(self.values))]


class Range(NamedTuple):
    """log(a,b), uniform(a,b) or int(a,b): both ends are possible."""

    kind: str
    low: float
    high: float

    def draw(self, u: float) -> str:
        """The value at `u` in [0, 1), as gin text; "log" is uniform in the logarithm."""
        if self.kind == "int":
            return str(int(self.low) + int(u * (int(self.high) - int(self.low) + 1)))
        if self.kind == "log":
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        # In a narrow range the first digits are the same: those do not count.
        common = math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low))
        digits = min(_DIGITS + max(0, math.floor(common)), _ALL_DIGITS)
        return repr(min(max(float(f"{value:.{digits}g}"), self.low), self.high))


class Axis(NamedTuple):
    """One `--sweep`: the name of a setting and where its values come from."""

    name: str
    domain: Choices | Range


def parse_axis(text: str) -> Axis:
    """Parses "NAME=VALUE,VALUE,..." or "NAME=log(a,b)" (uniform, int).

    Commas inside brackets and quotes do not separate: "residual_vae.widths=(8,16),(16,32)" has two values.

    Raises:
      UserError: no name, an empty list or value, a value given twice, an impossible range.
    """
    name, separator, values = text.partition("=")
    name = name.strip()
    values = values.strip()
    if not separator or not re.fullmatch(r"[\w./]+", name):
        raise UserError(f"--sweep={text}: expected NAME=VALUE,VALUE,... such as seed=0,1,2.")
    call = re.fullmatch(r"(\w+)\((.*)\)", values)
    if call:
        return Axis(name, _parse_range(text, *call.groups()))
    choices = tuple(canonical(value) for value in _split(values))
    if not all(choices):
        raise UserError(f"--sweep={text}: {'an empty value' if values else 'no values'}; give {name}=VALUE,VALUE,...")
    for choice in choices:
        if re.match(rf"({'|'.join(_RANGES)})\(", choice):
            raise UserError(f"--sweep={text}: a range cannot stand in a list; give {name}={choice} alone.")
        if choices.count(choice) > 1:
            raise UserError(f"--sweep={text}: {choice} comes twice.")
    return Axis(name, Choices(choices))


def canonical(value: str) -> str:
    """One spelling for values that gin reads alike: 1e-3 and 0.001, 'batch' and batch, (8,16) and (8, 16)."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value  # A reference, a macro or a bare word; gin decides about anything else.
    is_word = isinstance(literal, str) and re.fullmatch(r"[A-Za-z]\w*", literal) and literal not in _CONSTANTS
    return literal if is_word else repr(literal)


def _parse_range(text, kind, arguments):
    if kind not in _RANGES:
        raise UserError(f"--sweep={text}: no range {kind!r}; there are log(a,b), uniform(a,b) and int(a,b).")
    try:
        low, high = (int(a) if kind == "int" else float(a) for a in arguments.split(","))
    except ValueError:
        kinds = "whole numbers" if kind == "int" else "numbers"
        raise UserError(f"--sweep={text}: {kind}(a,b) takes two {kinds}.") from None
    if not (math.isfinite(low) and math.isfinite(high - low) and low < high):
        raise UserError(f"--sweep={text}: the range must run from a smaller number to a larger one.")
    if kind == "log" and low <= 0:
        raise UserError(f"--sweep={text}: a logarithmic range must start above 0.")
    return Range(kind, low, high)


def _split(text):
    """Splits at the commas outside of brackets and quotes."""
    parts = [""]
    depth = 0
    quote = None
    for character in text:
        if quote:
            quote = None if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and not quote and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def check_axes(axes: Sequence[Axis]) -> None:
    """Raises UserError unless there are axes, each of a name of its own."""
    if not axes:
        raise UserError("nothing to sweep: give --sweep=NAME=VALUE,VALUE,... such as --sweep=seed=0,1,2.")
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is swept twice: give all of its values in one --sweep.")


def grid(axes: Sequence[Axis]) -> list[tuple[tuple[str, str], ...]]:
    """The product of all lists: a list of settings, each a tuple of (name, gin text) sorted by name.

    Raises:
      UserError: a range among the axes, or more than `MAX_TRIALS`.
    """
    for axis in axes:
        if isinstance(axis.domain, Range):
            raise UserError(f"{axis.name} is a range, but a grid needs a list of values; or use --mode=random.")
    _check_number(math.prod(len(axis.domain.values) for axis in axes))  # type: ignore
    axes = sorted(axes)
    return [
        tuple(zip((axis.name for axis in axes), values, strict=True))
        for values in itertools.product(*(axis.domain.values for axis in axes))  # type: ignore[union-attr]
    ]


def random(axes: Sequence[Axis], num_trials: int, seed: int) -> list[tuple[tuple[str, str], ...]]:
    """Independent draws: a list of settings as `grid` gives them, without repetitions.

    A draw is a function of (seed, number of the trial, name): a sweep with more trials begins with those of a smaller
    one, and the order of the axes does not matter.

    Raises:
      UserError: a `num_trials` that is not a number from 1 to `MAX_TRIALS`.
    """
    if not num_trials or num_trials < 1:
        raise UserError("--mode=random needs --num_trials=N, at least 1.")
    _check_number(num_trials)
    draws = [
        tuple((axis.name, axis.domain.draw(_uniform(seed, i, axis.name))) for axis in sorted(axes))
        for i in range(num_trials)
    ]
    return list(dict.fromkeys(draws))


def _check_number(count):
    if count > MAX_TRIALS:
        raise UserError(f"that makes {count} trials, more than {MAX_TRIALS}: sweep fewer values, or draw at random.")


def _uniform(seed, trial, name):
    """A float in [0, 1) made of the 53 bits that a double holds."""
    digest = hashlib.sha256(f"{seed}/{trial}/{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53
