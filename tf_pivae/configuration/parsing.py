"""gin's grammar without its powers: a configuration binds values to registered names, and that is all it does.

gin's own reader imports whatever a file says, and with `from __gin__ import dynamic_registration` makes every function
of Python callable. Here gin's parser gives the statements one by one, and only bindings reach gin; `include` is for the
files that a user names, below the folders where gin files are looked up. Code comes by the flag `--import`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import gin
import gin.config
from gin import config_parser

from tf_pivae.configuration import checking, messages, registry
from tf_pivae.errors import UserError
from tf_pivae.files import read_text

LARGEST = 1 << 17  # Characters: ten times what the largest of the paper's runs has.
MAX_INCLUDES = 20  # Files within files.


def search_paths() -> list[str]:
    """Where gin files are looked up: the current folder, then the files shipped with the program."""
    package = Path(__file__).resolve().parent.parent
    # Installed as package data, or beside the package in a clone.
    shipped = [package / "gin_files", package.parent / "gin"]
    return ["", *(str(path) for path in shipped if path.is_dir())]


def shipped_files() -> list[str]:
    """Names of the gin files that come with the program, the shortest paths first."""
    names = {str(path.relative_to(root)) for root in search_paths()[1:] for path in Path(root).rglob("*.gin")}
    return sorted(names, key=lambda name: (name.count("/"), name))


def is_file(name: str) -> bool:
    """Whether there is such a gin file, in the current folder or among those shipped with the program."""
    return _find(name) is not None


def _find(name: str) -> str | None:
    packaged = str(Path(__file__).resolve().parent.parent / "pretrained")  # fashion_mnist/config.gin, to go on from.
    paths = [os.path.join(root, name) for root in (*search_paths(), packaged)]
    return next((path for path in paths if "\0" not in path and os.path.isfile(path)), None)


def path_of(name: str) -> str:
    """The path of a gin file; UserError where there is none."""
    path = _find(name)
    if path is None:
        raise UserError(f"no gin file {name!r}{messages.did_you_mean(name, shipped_files())}")
    return path


def parse(files: Sequence[str] = (), parameters: Iterable[str] = ()) -> None:
    """Reads gin files and bindings into gin's configuration, in place of what was there.

    Args:
      files: names of gin files, which may include others.
      parameters: bindings such as "num_steps=1000".

    Raises:
      UserError: an unknown file, configurable, parameter or macro, a syntax error, a statement that would run code, or
        a value that its parameter cannot have; the nearest right names included.
    """
    gin.clear_config()
    mentioned: set[str] = set()
    for name in files:
        mentioned |= _read_file(name, ())
    for parameter in parameters:
        read_parameter(parameter)
        mentioned.discard(parameter.partition("=")[0].strip())  # Such a macro has to be used by the configuration.
    checking.check(mentioned)


def read_parameter(parameter: str) -> None:
    """Binds what a --gin_param says; UserError as for `parse`."""
    read(*parameter_text(parameter))


def parameter_text(parameter: str) -> tuple[str, str]:
    """A --gin_param as gin text, and what messages call it; UserError for one that binds nothing."""
    return _binding(parameter), f"--gin_param={_short(parameter)}"


def statements(source: str, origin: str, delegate: config_parser.ParserDelegate | None = None) -> Iterator[tuple]:
    """The statements of gin text, as gin's parser gives them.

    Args:
      source: gin text.
      origin: for messages: what the text is.
      delegate: makes the values that stand for references and macros; gin's own by default.

    Raises:
      UserError: it cannot be parsed; says where.
    """
    if len(source) > LARGEST:
        raise UserError(f"{origin} has {len(source):,} characters: it is too long for a configuration.")
    line = None
    try:
        for statement in config_parser.ConfigParser(source, delegate or gin.config.ParserDelegate()):
            line = statement.location.line_num
            yield statement
    except (UserError, RecursionError):
        raise
    except Exception as error:  # Text may hold anything, and gin's parser raises what it likes.
        raise UserError(messages.explain(error, origin, line)) from error


def read(source: str, origin: str, within: tuple[str, ...] | None = None) -> set[str]:
    """Binds what gin text says.

    Args:
      source: gin text.
      origin: for messages.
      within: this file's path, after those of the files that include it; None: nothing may be included.

    Returns:
      The names of all macros and scopes that it refers to, also in what a later binding replaces.

    Raises:
      UserError: as for `parse`, without the checks of the whole.
    """
    mentioned: set[str] = set()
    try:
        for statement in statements(source, origin):
            match statement:
                case config_parser.BindingStatement(scope, selector, name, value, _):
                    macro = (f"{scope}/{selector}" if scope else selector, "gin.macro", "value")
                    gin.bind_parameter((scope, selector, name) if name else macro, value)
                    mentioned |= checking.macros(value) | checking.scopes(value)
                case config_parser.BlockDeclaration(_, selector, _):
                    if registry.find(selector) is None:
                        raise UserError(messages.unknown(selector))
                case config_parser.IncludeStatement(name, _) if within is not None:
                    mentioned |= _read_file(name, within)
                case config_parser.IncludeStatement():
                    raise UserError(f"{origin}: a file cannot be included here: give it as a --gin_file.")
                case config_parser.ImportStatement():
                    line = statement.location.line_num
                    raise UserError(
                        f"{origin}, line {line}: `{statement.format()}` would run code, which a configuration "
                        f"may: remove the line{_instead(statement.module)}."
                    )
    except RecursionError as error:
        raise UserError(f"{origin} is nested too deeply.") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(messages.explain(error, origin)) from error
    return mentioned


def _instead(module: str) -> str:
    return "" if module.startswith("__gin__") else f", and give --import={module} if you trust that module"


def _read_file(name: str, within: tuple[str, ...]) -> set[str]:
    text, within = text_of(name, within)
    return read(text, name, within)


def text_of(name: str, within: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """The text of a gin file, and its path after those of the files that include it.

    Raises:
      UserError: there is no such file, it cannot be read, or it is among those that include it.
    """
    path = os.path.realpath(path_of(name))
    if path in within or len(within) > MAX_INCLUDES:
        raise UserError(f"{name} is included by itself, or by more than {MAX_INCLUDES} files.")
    return read_text(path, 4 * LARGEST), (*within, path)


def texts(name: str, within: tuple[str, ...] = ()) -> list[str]:
    """The texts of a gin file and of the files that it includes; UserError as for `parse`."""
    text, within = text_of(name, within)
    included = [part[0] for part in statements(text, name) if isinstance(part, config_parser.IncludeStatement)]
    return [text, *(inner for other in included for inner in texts(other, within))]


def _short(parameter: str) -> str:
    """A --gin_param for a message: one line of it."""
    line = " ".join(parameter.split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def _binding(parameter: str) -> str:
    """A --gin_param as a gin statement: an unquoted word on the right is taken as a string."""
    name, separator, value = parameter.partition("=")
    if not separator or not name.strip():
        raise UserError(f"--gin_param={_short(parameter)}: expected NAME=VALUE, such as num_steps=1000.")
    value = value.strip()
    if re.fullmatch(r"[A-Za-z_./~][\w./~-]*", value) and value not in ("True", "False", "None"):
        value = repr(value)
    return f"{name.strip()} = {value}"
