"""Names, parameters and defaults of what is registered with gin, which has no public function for them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gin
import gin.config


def names() -> list[str]:
    """Names of all that is registered, without modules."""
    return sorted(selector.rsplit(".", 1)[-1] for selector in gin.config._REGISTRY._selector_map)


def find(selector: str) -> Any:
    """gin's `Configurable` of a name, with or without modules before it; None where there is none."""
    return gin.config._REGISTRY.get_match(selector)


def of(function: Callable) -> Any:
    """gin's `Configurable` of a function or class; None where it is not registered."""
    return gin.config._inverse_lookup(function)


def parameters(selector: str) -> Mapping[str, inspect.Parameter]:
    """The parameters that a configurable takes, by name."""
    configurable = find(selector)
    return {} if configurable is None else inspect.signature(configurable.wrapped).parameters


def default(setting: str) -> Any:
    """That of a setting such as "train.model"; KeyError where it has none."""
    selector, _, name = setting.rpartition(".")
    value = parameters(selector)[name].default
    if value is inspect.Parameter.empty or value is gin.REQUIRED:
        raise KeyError(setting)
    return value


def registered() -> dict[str, list[str]]:
    """All that is registered, and the names of each one's parameters."""
    return {name: list(parameters(name)) for name in names()}
