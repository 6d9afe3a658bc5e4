"""Wrong names in a configuration, found without importing what it configures, which takes TensorFlow and seconds.

The program's own names are read from its sources. Only what is certainly wrong is refused, by the line that reading the
configuration would give; everything else is for `parsing`.
"""

import ast
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from tf_pivae.configuration import messages, parsing, registry
from tf_pivae.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent
_ParameterNames = dict[str, list[str] | None]  # name -> its parameters, None where the source does not list them


def refuse_wrong_names(files: Sequence[str], parameters: Iterable[str]) -> None:
    """Checks names of configurables, parameters and macros of a configuration, see `parsing.parse`.

    Raises:
      UserError: an unknown file, configurable or parameter, a macro without a use, a syntax error.
    """
    reader = _Reader()
    try:
        for name in files:
            reader.read_file(name, ())
        for parameter in parameters:
            reader.read(*parsing.parameter_text(parameter))
    except RecursionError:
        return  # `parsing` says where.
    for name in sorted(reader.defined - reader.used):
        parameters_of = {owner: names or [] for owner, names in reader.parameters_of.items()}
        raise UserError(messages.macro(name, reader.used, parameters_of, reader.configured))


class _Reader(config_parser.ParserDelegate):
    """Reads gin text without binding anything; references become None."""

    def __init__(self) -> None:
        self.parameters_of: _ParameterNames = {**_keras_names(), **_names(), **registry.registered()}
        self.defined: set[str] = set()  # macros
        self.used: set[str] = set()
        self.configured: set[str] = set()  # names of configurables

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> None:
        """gin's parser has read @NAME or @NAME()."""
        *scopes, selector = scoped_configurable_name.split("/")
        self._check(selector)
        if selector in ("macro", "gin.macro"):
            self.used.add("/".join(scopes))

    def macro(self, scoped_macro_name: str) -> None:
        """gin's parser has read %NAME."""
        self.used.add(scoped_macro_name)

    def read_file(self, name: str, within: tuple[str, ...]) -> None:
        text, within = parsing.text_of(name, within)
        self.read(text, name, within)

    def read(self, source: str, where: str, within: tuple[str, ...] | None = None) -> None:
        for statement in parsing.statements(source, where, self):
            match statement:
                case config_parser.BindingStatement(_, selector, name) if name:
                    self._check(selector, name)
                case config_parser.BindingStatement(scope, selector, _):
                    self.defined.add(f"{scope}/{selector}" if scope else selector)
                case config_parser.BlockDeclaration(_, selector, _):
                    self._check(selector)
                case config_parser.IncludeStatement(name, _) if within is not None:
                    self.read_file(name, within)

    def _check(self, selector: str, parameter: str | None = None) -> None:
        name = selector.rsplit(".", 1)[-1]
        if name not in self.parameters_of:
            raise UserError(messages.unknown(selector, sorted(self.parameters_of)))
        names = self.parameters_of[name]
        if parameter is not None and names is not None and parameter not in names:
            raise UserError(messages.no_parameter(selector, parameter, names))
        self.configured.add(name)


def _names() -> _ParameterNames:
    """What the package's sources register."""
    parameters_of: _ParameterNames = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        if "configurable" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    call = decorator if isinstance(decorator, ast.Call) else None
                    function = call.func if call else decorator
                    if ast.unparse(function) in ("configurable", "gin.configurable"):
                        keywords = {keyword.arg: keyword.value for keyword in call.keywords} if call else {}
                        name = ast.literal_eval(keywords["name"]) if "name" in keywords else node.name
                        parameters_of[name] = _parameters(node)
    return parameters_of


def _parameters(node: Any) -> list[str] | None:
    """Those of a function, or of a class that has an `__init__`; None where it takes others, too."""
    if isinstance(node, ast.ClassDef):
        makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        names = _parameters(makers[0]) if makers else None
        return names and names[1:]  # without self
    arguments = node.args
    if arguments.vararg or arguments.kwarg:
        return None
    return [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _keras_names() -> _ParameterNames:
    """Keras' optimisers and schedules, and some names beside them."""
    package = importlib.util.find_spec("keras")
    folders = package.submodule_search_locations if package and package.submodule_search_locations else []
    sources = [path.read_text("utf-8") for folder in folders for path in Path(folder, "src/optimizers").rglob("*.py")]
    return {name: None for source in sources for name in re.findall(r"^class (\w+)", source, re.MULTILINE)}
