"""The configuration of a run, kept apart from gin's global one, which the program goes on using."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gin
import gin.config

from tf_pivae.configuration import checking, parsing, registry
from tf_pivae.errors import UserError
from tf_pivae.files import read_text

T = TypeVar("T")


class Snapshot:
    """The configuration that gin holds when this is made."""

    def __init__(self) -> None:
        self._bindings = {key: dict(bound) for key, bound in gin.config._CONFIG.items()}
        self._operative = {key: dict(used) for key, used in gin.config._OPERATIVE_CONFIG.items()}
        self._singletons = dict(gin.config._SINGLETONS)
        self._imports = set(gin.config._IMPORTS)

    def _restore(self) -> None:
        gin.clear_config()
        gin.config._CONFIG.update({key: dict(bound) for key, bound in self._bindings.items()})
        gin.config._OPERATIVE_CONFIG.update({key: dict(used) for key, used in self._operative.items()})
        gin.config._SINGLETONS.update(self._singletons)
        gin.config._IMPORTS.update(self._imports)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, this is gin's configuration."""
        with preserved():
            self._restore()
            yield

    def value(self, binding: str) -> Any:
        """What a setting such as "train.model" is: what is bound to it, or else its default.

        A function works with this configuration, whenever called.

        Nothing else of the configuration is looked at or called.

        Raises:
          KeyError: it is neither bound nor has a default.
        """
        with self.active():
            try:
                value = copy.deepcopy(gin.query_parameter(binding))  # gin resolves references in copies.
            except ValueError:
                value = registry.default(binding)
        return self._configured(value) if callable(value) else value

    def build(self, kind: Callable[[], T]) -> T:
        """What `kind()`, a dataclass, is in this configuration; its functions work with it, whenever called."""
        with self.active():
            whole: Any = kind()
            parts = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
            functions = {name: self._configured(part) for name, part in parts.items() if callable(part)}
            return dataclasses.replace(whole, **functions)

    def bound(self, parameters: Iterable[str]) -> "Snapshot":
        """This configuration with other bindings, such as "image_folder.path=FOLDER", in it."""
        with self.active():
            for parameter in parameters:
                parsing.read_parameter(parameter)
            checking.check(set())
            return Snapshot()

    def function_name(self, binding: str) -> str | None:
        """The name of the function that a binding such as "train.dataset" refers to; None where it refers to none."""
        with self.active():
            try:
                reference = gin.query_parameter(binding)
            except ValueError:
                return None
        return reference.configurable.name if isinstance(reference, gin.config.ConfigurableReference) else None

    def _configured(self, function: Callable) -> Callable:
        def build(*arguments: Any, **keywords: Any) -> Any:
            with self.active():
                return function(*arguments, **keywords)

        return build


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restores gin's configuration on leaving, so that a library call does not disturb the caller's."""
    before = Snapshot()
    try:
        yield
    finally:
        before._restore()


def of_run(path: str | Path) -> Snapshot:
    """The configuration of a run, of whoever made it: values of registered names, and nothing else.

    Args:
      path: of its `config.gin`.

    Raises:
      UserError: it cannot be read, or would run code or include a file; names the file.
    """
    return of_text(read_text(path), path)


def of_text(source: str, path: str | Path) -> Snapshot:
    """The configuration that stands in a text, as `of_run`; `path` is for messages.

    Raises:
      UserError: it would run code or include a file.
    """
    with preserved():
        gin.clear_config()
        try:
            checking.check(parsing.read(source, str(path)))
        except UserError as error:
            message = str(error)
            raise UserError(message if str(path) in message else f"{path}: {message}") from error
        return Snapshot()
