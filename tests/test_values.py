"""What the annotation of a parameter admits, and that every setting of the program has one."""

import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import gin
import gin.config
import numpy as np
import pytest

from tf_pivae import values
from tf_pivae.configurable import (
    MAX_DEPTH,
    MAX_WIDTH,
    Count,
    Decay,
    NonNegative,
    Positive,
    Widths,
    configurable,
)
from tf_pivae.values import Result, Within, fits


class Made:
    """What a function is to return."""


def makes_it() -> Made:
    return Made()


def makes_a_number() -> int:
    return 1


def makes_whatever():
    return None


_NO_NUMBERS = (True, "1", None, (1,), math.nan, math.inf, {}, 1j)


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (bool, (True, False), (0, 1, "no", None, "True")),
        (str, ("", "x"), (1, None, b"x", {"class_name": "x"})),
        (int, (0, -3, np.int64(4), 10**30), (*_NO_NUMBERS, 2.0)),
        (float, (0, 1.5, np.float32(2), -1), _NO_NUMBERS),
        (Count, (1, 10**6), (*_NO_NUMBERS, 0, -1, 2.0, 10**30)),
        (NonNegative, (0, 0.5, 3), (*_NO_NUMBERS, -1, -1e-9)),
        (Positive, (1e-9, 3), (*_NO_NUMBERS, 0, 0.0, -1)),
        (Decay, (0, 0.0, 0.999), (*_NO_NUMBERS, 1, 1.0, 2.0, -0.1)),
        (Widths, ((1, MAX_WIDTH), [4]), ((), (4, 0), [MAX_WIDTH + 1], (4,) * (MAX_DEPTH + 1), 4, "44", [4, [4]], None)),
        (tuple[int, int], ((1, 2), [3, 4]), ((1,), (1, 2, 3), ("1", 2))),
        (int | None, (None, 3), (False, 2.5)),
        (Literal["act", "none"], ("act",), ("batch", None, 0)),
        (Annotated[int, Within(2, 256)], (2, 256), (1, 257)),
        (
            Callable[..., Made],
            (Made, makes_it, makes_whatever, lambda: 3, Result(None)),
            (makes_a_number, 3, int, Made()),
        ),
        (Callable[[], Callable], (makes_whatever, type(makes_it)), (makes_it, Made)),
        (Made, (Made(), Result(Made), Result(None)), (Result(int), makes_it, 3)),
        (Any, (None, 3, Made), ()),
    ],
)
def test_what_fits(hint, good, bad):
    for value in good:
        assert fits(hint, value), value
    for value in bad:
        assert not fits(hint, value), value
    assert values.words(hint)


def test_words_say_the_range():
    assert values.words(Count) == "a whole number from 1 to 1000000000000"
    assert values.words(Decay) == "a number from 0 to below 1"
    assert values.words(Positive) == "a number above 0"
    assert values.words(Callable[..., Made] | None) == "a function, as @NAME, that returns a Made or None"
    assert values.words(Widths) == "a list of 1 to 1024 elements, each a whole number from 1 to 4096"


@configurable(module="test_values")
class Thing:
    """One to configure."""

    def __init__(self, given: int, size: Count = 3, name="thing"):
        self.given = given
        self.size = size
        self.name = name


def test_a_call_is_checked_and_its_signature_kept():
    assert list(inspect.signature(Thing.__init__).parameters) == ["self", "given", "size", "name"]
    assert (Thing("what the program hands over", 4).given, Thing(1).size) == ("what the program hands over", 3)
    for arguments, keywords in (((1, 0), {}), ((1,), {"size": True})):
        with pytest.raises(ValueError, match=r"^Thing.size = .* is not possible: it takes a whole number from 1 to"):
            Thing(*arguments, **keywords)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'given'"):
        Thing()
    with gin.unlock_config():
        gin.bind_parameter("Thing.size", -1)
        with pytest.raises(ValueError, match=r"^Thing.size = -1"):
            Thing(1)
        gin.clear_config()


def test_every_setting_says_what_it_may_be():
    """A parameter without an annotation would take anything from a run of somebody else's."""
    bare = []
    for selector in gin.config._REGISTRY._selector_map:
        wrapped = gin.config._REGISTRY[selector].wrapped
        if not selector.startswith("tf_pivae.") and "tf_pivae" not in getattr(wrapped, "__module__", ""):
            continue
        hints = values.hints(wrapped)
        for name, parameter in inspect.signature(wrapped).parameters.items():
            if parameter.default is not parameter.empty and name not in hints and name != "name":
                bare.append(f"{selector}.{name}")
    assert not [name for name in bare if ".data." not in name]
