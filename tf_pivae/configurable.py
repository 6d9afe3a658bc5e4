"""gin and Keras layers together; what a setting and a network's sizes may be.

`configurable` makes a function or a class a name of gin files. The annotations of its parameters say what they may be:
`tf_pivae.configuration` compares a configuration with them before anything is built, and so does a call.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import gin

from tf_pivae import values
from tf_pivae.arguments import LARGEST_FLOAT
from tf_pivae.values import Long, Within

MAX_WIDTH = 1 << 12  # Channels of a layer: eight times the widest of the paper.
MAX_DEPTH = 1 << 10  # Layers, blocks, scales in a row.
MOST_ROWS = 1 << 16  # Images of a batch.

Count = Annotated[int, Within(1, 10**12)]  # steps, examples
Batch = Annotated[int, Within(1, MOST_ROWS)]  # images
Index = Annotated[int, Within(0, 2**63 - 1)]  # 0 may stand for none; seeds
Width = Annotated[int, Within(1, MAX_WIDTH)]
Widths = Annotated[tuple[Width, ...], Long(1, MAX_DEPTH)]
Depth = Annotated[int, Within(1, MAX_DEPTH)]
Initializer = Literal["glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "orthogonal", "zeros"]
Positive = Annotated[float, Within(0, LARGEST_FLOAT, above=True)]
NonNegative = Annotated[float, Within(0, LARGEST_FLOAT)]
Fraction = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, below=True)]  # of a running average


def configurable(target: Any = None, name: str | None = None, **options: Any) -> Any:
    """`gin.configurable`, with or without options, of a function or a class whose annotated settings are checked.

    Its name in gin files is `name`, or else its own.

    A setting is a parameter with a default. Keras reads the argument names of a layer's `__init__` without looking
    through wrappers; these therefore have the signature of what they wrap.
    """
    if target is None:
        return functools.partial(configurable, name=name, **options)
    name = name or target.__name__
    if not inspect.isclass(target):
        target = _checked(target, name)
    elif "__init__" in target.__dict__:
        target.__init__ = _checked(target.__init__, name)  # type: ignore[method-assign]
    return gin.configurable(name, **options)(target)


def _checked(function: Callable, owner: str) -> Callable:
    """`function`, which raises ValueError for a setting that is not what its annotation says."""
    signature = inspect.signature(function)
    settings = [name for name, p in signature.parameters.items() if p.default is not p.empty]

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        try:
            bound = signature.bind_partial(*arguments, **keywords).arguments
        except TypeError:
            bound = {}  # The call itself says what is wrong.
        hints = values.hints(function)
        for name in settings:
            if name in bound and name in hints and not values.fits(hints[name], bound[name]):
                raise ValueError(impossible(f"{owner}.{name}", bound[name], hints[name]))
        return function(*arguments, **keywords)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def impossible(name: str, value: Any, hint: Any) -> str:
    """The message for a setting whose value does not fit its annotation."""
    return f"{name} = {values.brief(value)} is not possible: it takes {values.words(hint)}."
