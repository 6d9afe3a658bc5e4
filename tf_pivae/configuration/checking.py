"""Compares a configuration with the annotations of what it configures, before anything is built or read."""

from typing import Any

import gin.config

from tf_pivae import values
from tf_pivae.configurable import impossible
from tf_pivae.configuration import messages, registry
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.errors import UserError

_MACRO = "gin.macro"
_SINGLETON = "gin.singleton"
_DEEPEST = 30  # Lists within lists, macros that stand for macros.


def macros(value: Any) -> set[str]:
    """Names of the macros that a value refers to."""
    return {"/".join(reference.scopes) for reference in _references(value) if _refers_to(reference, _MACRO)}


def scopes(value: Any) -> set[str]:
    """Names of the scopes that a value refers to."""
    return {name for reference in _references(value) for scope in reference.scopes for name in scope.split("/")}


def check(mentioned: set[str]) -> None:
    """Checks the configuration that gin holds.

    Args:
      mentioned: names of macros and scopes that were referred to as it was read: where the parameter was bound anew
        later, such a one is unused, which is then no mistake.

    Raises:
      UserError: a value that its parameter cannot have, a macro without a value or without a use, a scope without a
        use, or a reference that would open data as the configuration is read.
    """
    for reference in _references(gin.config._CONFIG):
        _check_call(reference)
    used = macros(gin.config._CONFIG)
    defined = {scope for scope, selector in gin.config._CONFIG if selector == _MACRO}
    for name in sorted(defined - used - mentioned):
        raise UserError(messages.macro(name, used, registry.registered(), messages.configured_names()))
    for name in sorted(used - defined):
        raise UserError(f"the macro {name!r} has no value: add --gin_param={name}=...")
    resolved: dict[str, Any] = {}
    mentioned = mentioned | scopes(gin.config._CONFIG)
    for (scope, selector), bindings in gin.config._CONFIG.items():
        if selector != _MACRO and scope and not set(scope.split("/")) <= mentioned:
            name = selector.rsplit(".", 1)[-1]
            raise UserError(
                f"nothing uses the scope of {scope}/{name}: refer to it, as @{scope}/{name}, or leave it out."
            )
        wrapped = registry.find(selector).wrapped
        for parameter, bound in bindings.items():
            hint = values.hints(wrapped).get(parameter)
            name = f"{selector.rsplit('.', 1)[-1]}.{parameter}"
            if hint is not None and not values.fits(hint, _resolved(bound, name, resolved)):
                raise UserError(impossible(*_as_written(name, bound), hint))


def _as_written(name: str, bound: Any) -> tuple[str, Any]:
    """A setting and its value, or the macro that stands for the value."""
    while isinstance(bound, gin.config.ConfigurableReference) and _refers_to(bound, _MACRO):
        name = "/".join(bound.scopes)
        bound = gin.config._CONFIG[name, _MACRO]["value"]
    return name, bound


def _refers_to(reference: Any, selector: str) -> bool:
    return reference.configurable.selector == selector


def _check_call(reference: Any) -> None:
    """Refuses `@NAME()` where reading a configuration would do more than build a part."""
    if _refers_to(reference, _MACRO) and not reference.scopes:
        raise UserError(f"{reference} is not a value: a macro is written %NAME.")
    result = values.makes(reference.configurable.wrapped)
    if _refers_to(reference, _SINGLETON) or (
        reference.evaluate and result is not None and issubclass(result, ImageDataset)
    ):
        raise UserError(f"{reference}: write @{reference.selector} without (): the program calls it.")


def _references(value: Any, depth: int = 0) -> list:
    """All references within a value."""
    if isinstance(value, gin.config.ConfigurableReference):
        return [value]
    if depth > _DEEPEST:
        raise UserError("the configuration is nested too deeply.")
    parts = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (tuple, list)):
        parts = value
    return [reference for part in parts for reference in _references(part, depth + 1)]


def _resolved(value: Any, name: str, resolved: dict, depth: int = 0) -> Any:
    """A bound value with functions for references, a `values.Result` for what is to be called, and macros resolved.

    Args:
      value: what is bound.
      name: to what, for messages.
      resolved: macros' values, by name: a macro of macros of macros is not written out.
      depth: of the value in another.
    """
    if depth > _DEEPEST:
        raise UserError(f"the configuration refers to itself: look for a %NAME in the value of {name}.")
    if isinstance(value, gin.config.ConfigurableReference):
        if _refers_to(value, _MACRO):
            key = "/".join(value.scopes)
            if key not in resolved:
                resolved[key] = _resolved(gin.config._CONFIG[key, _MACRO]["value"], name, resolved, depth + 1)
            return resolved[key]
        wrapped = value.configurable.wrapped
        return values.Result(values.makes(wrapped)) if value.evaluate else wrapped
    if isinstance(value, (tuple, list)):
        return tuple(_resolved(part, name, resolved, depth + 1) for part in value)
    return value
