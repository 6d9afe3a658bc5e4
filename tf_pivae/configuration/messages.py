"""One line for what is wrong with a configuration, with the nearest right names."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import gin

from tf_pivae.configuration import registry
from tf_pivae.errors import sentence


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
        return no_parameter(parameter[1], parameter[2], list(registry.parameters(parameter[1])))
    message = re.sub(
        r"malformed node or string.*",
        "it is not a value: a number, a string, a list, @NAME or %NAME is needed.",
        message,
    )
    lines = [part.strip() for part in message.splitlines() if part.strip()] or [type(error).__name__]
    return f"the configuration cannot be read: {origin}: {sentence(' '.join(lines[:3]))}"


def unknown(name: str, names: Sequence[str] | None = None) -> str:
    """The line for a name that nothing is registered under; `names` are those there are, gin's by default."""
    hint = did_you_mean(name, registry.names() if names is None else names)
    return f"no configurable named {name!r}{hint} To use one of your own, add --import=ITS_MODULE."


def no_parameter(owner: str, parameter: str, parameters: Sequence[str]) -> str:
    """The line for a parameter that its configurable, `owner`, does not have."""
    return f"{owner} has no parameter {parameter!r}{did_you_mean(parameter, parameters)}"


def macro(name: str, used: set[str], parameters_of: Mapping[str, Sequence[str]], configured: Collection[str]) -> str:
    """The line for a macro that nothing refers to: a misspelt one, or a parameter without its owner.

    Args:
      name: the macro's.
      used: names of the macros that something refers to.
      parameters_of: for each configurable, its parameters.
      configured: names of the configurables that stand in the configuration.
    """
    owners = _owners(name, parameters_of, configured)
    if owners:
        return f"{name} is not a setting by itself: write {' or '.join(f'{owner}.{name}' for owner in owners)}."
    settings = {parameter: owner for owner in sorted(parameters_of) for parameter in parameters_of[owner]}
    matches = [
        [word] if word in used else [f"{owner}.{word}" for owner in _owners(word, parameters_of, configured)]
        for word in difflib.get_close_matches(name, {**settings, **dict.fromkeys(used)}, n=2, cutoff=0.7)
    ]
    matches = list(dict.fromkeys(word for words in matches for word in words))[:3]
    hint = f"; did you mean {' or '.join(matches)}?" if matches else did_you_mean(name, sorted(used))
    return f"nothing uses the macro {name!r}{hint}"


def configured_names() -> set[str]:
    """Names of the configurables that stand in the configuration."""
    return set(re.findall(r"\w+", text())) & set(registry.names())


def _owners(parameter: str, parameters_of: Mapping[str, Sequence[str]], configured: Collection[str]) -> list[str]:
    """Names of the configurables that have a parameter of this name and stand in the configuration; else of all."""
    owners = [name for name in sorted(parameters_of) if parameter in parameters_of[name]]
    return [name for name in owners if name in configured] or owners


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a sentence: what was meant, or what there is."""
    names = list(names)
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {' or '.join(matches)}?"
    return f"; there are {', '.join(names[:12])}." if names else "."
