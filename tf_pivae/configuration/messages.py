"""One line for what is wrong with a configuration, with the nearest right names."""

import difflib
import inspect
import re
from collections.abc import Iterable

import gin
import gin.config


def text() -> str:
    """The whole configuration as gin text."""
    return gin.config_str(max_line_length=110)


def explain(error: Exception, origin: str, line: int | None = None) -> str:
    """The line for an exception of gin's parser, met with in `origin`, after its statement at `line`."""
    message = str(error).strip()
    name = re.search(r"No configurable matching (?:reference )?'@?(?:[\w.]*/)*([\w.]+?)(?:\(\))?'", message)
    if name:
        return unknown(name[1])
    parameter = re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '([\w.]+)'", message)
    if parameter:
        return f"{parameter[1]} has no parameter {parameter[2]!r}{did_you_mean(parameter[2], parameters(parameter[1]))}"
    message = re.sub(
        r"malformed node or string.*",
        "it is not a value: neither a number, a text, a list nor @NAME or %NAME.",
        message,
    )
    lines = [part.strip() for part in message.splitlines() if part.strip()] or [type(error).__name__]
    return f"the configuration cannot be read: {origin}: {' '.join(lines[:3])}"


def unknown(name: str) -> str:
    """The line for a name that nothing is registered under."""
    hint = did_you_mean(name, configurable_names())
    return f"no configurable named {name!r}{hint} One of your own comes with --import=ITS_MODULE."


def macro(name: str, used: set[str]) -> str:
    """The line for a macro that nothing refers to: a misspelt one, or a parameter without its owner.

    Args:
      name: the macro's.
      used: names of the macros that something refers to.
    """
    owners = _owners(name)
    if owners:
        return f"{name} is not a setting by itself: write {' or '.join(f'{owner}.{name}' for owner in owners)}."
    settings = {parameter: owner for owner in configurable_names() for parameter in parameters(owner)}
    matches = [
        [word] if word in used else [f"{owner}.{word}" for owner in _owners(word)]
        for word in difflib.get_close_matches(name, {**settings, **dict.fromkeys(used)}, n=2, cutoff=0.7)
    ]
    matches = list(dict.fromkeys(word for words in matches for word in words))[:3]
    hint = f"; did you mean {' or '.join(matches)}?" if matches else did_you_mean(name, sorted(used))
    return f"nothing uses the macro {name!r}{hint}"


def configurable_names() -> list[str]:
    """Names of all that is registered, without modules."""
    return sorted(selector.rsplit(".", 1)[-1] for selector in gin.config._REGISTRY._selector_map)


def parameters(selector: str) -> list[str]:
    """Names of the parameters that a configurable takes."""
    configurable = gin.config._REGISTRY.get_match(selector)
    return [] if configurable is None else list(inspect.signature(configurable.wrapped).parameters)


def _owners(parameter: str) -> list[str]:
    """Names of the configurables that have a parameter of this name and stand in the configuration; else of all."""
    owners = [name for name in configurable_names() if parameter in parameters(name)]
    configured = text()
    return [name for name in owners if re.search(rf"\b{re.escape(name)}\b", configured)] or owners


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a sentence: what was meant, or what there is."""
    names = list(names)
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {' or '.join(matches)}?"
    return f"; there are {', '.join(names[:12])}." if names else "."
