"""Which setting a swept name means: a macro, a full binding, or a parameter that only one part in use has."""

import difflib
import inspect

import gin.config

from tf_pivae.configuration import registry
from tf_pivae.errors import UserError

_ROOT = "tf_pivae.training.recipe.train"
_MACRO = "gin.macro"


def resolve(name: str) -> str:
    """The gin name that `name` stands for in the configuration parsed now.

    Args:
      name: a macro in use ("adversarial_weight"), a full binding ("Trainer.learning_rate"), or the bare name of a
        parameter ("learning_rate").

    Returns:
      str, a macro or a full binding. A full binding is taken as it is: gin checks it when it is parsed.

    Raises:
      UserError: nothing in use, or more than one part in use, has such a parameter.
    """
    if "." in name:
        return name
    used, macros = reach()
    if name in macros:
        return name
    bindings = sorted(
        f"{selector.rsplit('.', 1)[-1]}.{name}" for selector in used if name in _free_parameters(selector)
    )
    if len(bindings) == 1:
        return bindings[0]
    if bindings:
        raise UserError(f"{name!r} could be {' or '.join(bindings)}: sweep one of these.")
    names = sorted(macros | {parameter for selector in used for parameter in _free_parameters(selector)})
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(matches)}?" if matches else f"macros: {', '.join(sorted(macros)) or 'none'}."
    raise UserError(f"there is no setting {name!r} to sweep; {hint}")


def in_use(name: str) -> bool:
    """Whether training reads the setting `name`, a macro or a full binding, in the configuration parsed now."""
    used, macros = reach()
    if "." not in name:
        return name in macros
    selector = name.rsplit("/", 1)[-1].rpartition(".")[0]
    configurable = registry.find(selector)
    return configurable is not None and configurable.selector in used


def reach() -> tuple[set[str], set[str]]:
    """What `train` refers to, directly or not: the selectors of configurables, and the names of macros; two sets."""
    bindings = {}
    for (scope, selector), values in gin.config._CONFIG.items():
        key = (_MACRO, scope) if selector == _MACRO else (selector, "")
        bindings.setdefault(key, {}).update(values)
    visited = set()
    waiting = [(_ROOT, "")]
    while waiting:
        key = waiting.pop()
        if key in visited:
            continue
        visited.add(key)
        bound = bindings.get(key, {})
        for reference in gin.config.iterate_references(bound):
            scope, selector = reference.config_key
            waiting.append((selector, scope if selector == _MACRO else ""))
        if key[0] != _MACRO:
            waiting += [(selector, "") for selector in _defaults(key[0], bound)]
    macros = {scope for selector, scope in visited if selector == _MACRO}
    return {selector for selector, _ in visited if selector != _MACRO}, macros


def _defaults(selector, bound):
    """Configurables that stand as default values of parameters which nothing binds."""
    for name, parameter in registry.parameters(selector).items():
        default = parameter.default
        if name not in bound and (inspect.isfunction(default) or inspect.isclass(default)):
            configurable = registry.of(default)
            if configurable is not None:
                yield configurable.selector


def _free_parameters(selector):
    """Parameters that a configuration may set; an argument without a default is handed over by the program."""
    denied = registry.find(selector).denylist or ()
    return [
        name
        for name, parameter in registry.parameters(selector).items()
        if parameter.default is not inspect.Parameter.empty and name not in denied and name != "name"
    ]
