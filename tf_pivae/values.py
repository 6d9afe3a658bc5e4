"""What a parameter may be, said by its annotation: whether a value fits, and in words what would.

It understands bool, int and float (a bool is neither, a float is finite and may be an int), str, None, unions,
`Literal`, `tuple` and `list` (one stands for the other), `Callable[..., R]` and classes; `Annotated` adds a `Within` or
a `Long`. Anything else fits everything.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from tf_pivae.arguments import LARGEST_FLOAT

LONGEST = 1 << 10  # Elements of a list.


class Long(NamedTuple):
    """A range of lengths, for `Annotated[tuple[int, ...], Long(1, 8)]`."""

    low: int
    high: int = LONGEST

    def __contains__(self, value: Any) -> bool:
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"of {self.low} to {self.high} elements"


class Within(NamedTuple):
    """A range of numbers, for `Annotated[int, Within(1, 8)]`."""

    low: float
    high: float = math.inf
    above: bool = False  # without `low` itself
    below: bool = False  # without `high` itself

    def __contains__(self, value: Any) -> bool:
        return (self.low < value or (value == self.low and not self.above)) and (
            value < self.high or (value == self.high and not self.below)
        )

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'from'} {self.low:g}"
        if self.high in (math.inf, LARGEST_FLOAT):
            return low
        return f"{low} {'to below' if self.below else 'to'} {self.high if self.high % 1 else int(self.high)}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a function will return, in place of a value that is not there yet."""

    kind: type | None  # None: unknown, which fits everything


def fits(hint: Any, value: Any) -> bool:
    """Whether `value`, or a `Result`, is what the annotation `hint` says."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if isinstance(value, Result) and value.kind is None:
        return True
    if origin is typing.Annotated:
        if not fits(arguments[0], value):
            return False
        return isinstance(value, Result) or all(value in extra for extra in _ranges(arguments))
    if origin in (typing.Union, types.UnionType):
        return any(fits(argument, value) for argument in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    if origin in (tuple, list):
        return isinstance(value, (tuple, list)) and _elements_fit(origin, arguments, value)
    if origin is collections.abc.Callable:
        return _calls_fit(arguments, value)
    if hint is None or hint is type(None):
        return value is None
    if hint is Any or not inspect.isclass(hint) or origin is not None:
        return True
    if isinstance(value, Result):
        return issubclass(value.kind, hint)
    if hint in (int, float):
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and (hint is int or _is_finite(value))
    return isinstance(value, hint)


def is_record(record: Any, kinds: dict[str, Any]) -> bool:
    """Whether a dict has values of these kinds under these names."""
    return isinstance(record, dict) and all(k in record and fits(kind, record[k]) for k, kind in kinds.items())


def _is_finite(value: Any) -> bool:
    return bool(abs(value) <= sys.float_info.max)  # Whole numbers may be too large for a float.


def _ranges(arguments: tuple) -> list:
    return [extra for extra in arguments[1:] if isinstance(extra, (Long, Within))]


def _elements_fit(origin: type, arguments: tuple, value: tuple | list) -> bool:
    if origin is list or arguments[-1] is Ellipsis:
        return len(value) <= LONGEST and all(fits(arguments[0], element) for element in value)
    return len(value) == len(arguments) and all(map(fits, arguments, value))


def _calls_fit(arguments: tuple, value: Any) -> bool:
    """Whether a value can be called and, as far as is known, returns the last of a Callable's arguments."""
    result = arguments[-1] if arguments else Any
    if isinstance(value, Result):
        return any("__call__" in base.__dict__ for base in value.kind.__mro__)
    kind = makes(value)
    return callable(value) and (kind is None or fits(result, Result(kind)))


def makes(function: Any) -> type | None:
    """The class of what a function returns, or a class itself; None where it is not known."""
    if inspect.isclass(function):
        return function
    kind = hints(function).get("return") if inspect.isroutine(function) else None
    return kind if inspect.isclass(kind) and kind is not Any and typing.get_origin(kind) is None else None


@functools.cache
def hints(function: Callable) -> dict[str, Any]:
    """Parameter -> annotation of a function, of a class's `__init__` and, where it hands others on, of its bases'."""
    if not inspect.isclass(function):
        return _hints(function)
    merged = {}
    for base in function.__mro__:
        initializer = base.__dict__.get("__init__")
        if initializer is None:
            continue
        merged = {**_hints(initializer), **merged}
        kinds = [parameter.kind for parameter in inspect.signature(initializer).parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return merged


def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # Names that only a type checker imports.
        return {}


def words(hint: Any) -> str:
    """What an annotation admits, such as "a whole number from 1 to 8"."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is typing.Annotated:
        text = words(arguments[0])
        ranges = _ranges(arguments)
        if any(isinstance(extra, Long) for extra in ranges):
            return text.replace("a list,", f"a list {ranges[0]},")
        return " ".join([text, *map(str, ranges)])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(argument) for argument in arguments)
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin in (tuple, list):
        kinds = dict.fromkeys(words(argument) for argument in arguments if argument is not Ellipsis)
        return f"({', '.join(words(a) for a in arguments)})" if len(kinds) > 1 else f"a list, each {next(iter(kinds))}"
    if origin is collections.abc.Callable:
        result = arguments[-1] if arguments else Any
        of_what = f", that returns {words(result)}" if inspect.isclass(result) else ""
        return f"a function, as @NAME{of_what}"
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a string", type(None): "None"}
    name = getattr(hint, "__name__", "value")
    return names.get(hint) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def brief(value: Any) -> str:
    """A value for a message: short, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
