"""What the commands share: gin files and parameters, quiet start-up, one-line errors.

Nothing here imports TensorFlow, so that `--help` answers at once.
"""

import difflib
import functools
import importlib.util
import logging
import math
import os
import re
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

from tf_pivae import children, memory, quiet, threads
from tf_pivae.errors import UserError, disk_message, missing_setting


def define_gin_flags():
    """Defines --gin_file and --gin_param; call it when a command's module is imported.

    There, `flags.adopt_module_key_flags(cli)` shows them in its --help.
    """
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "A gin configuration file; repeat to add others, later ones win. Searched in the current folder, then among "
        "the files that come with the program (demo.gin, cifar.gin, paper/..., see the folder gin/).",
    )
    flags.DEFINE_multi_string(
        "gin_param",
        [],
        "One binding that overrides the files, such as num_steps=1000 or RealNVP.num_scales=2; repeat for others.",
    )


def run(main):
    """Runs a command's `main()` under absl: a mistake becomes one line on stderr and exit status 2."""

    children.end_with_parent()

    @functools.wraps(main)
    def guarded(argv):
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}: options start with --; see --help.")
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))  # No prefixes.
        try:
            main()
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            _fail(line, getattr(error, "exit_status", UserError.exit_status))
        except KeyboardInterrupt:
            sys.exit(130)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv):
    try:
        arguments = flags.FLAGS(argv)
        for name in flags.FLAGS:
            value = flags.FLAGS[name].value
            if isinstance(value, float) and not math.isfinite(value):  # A lower bound lets nan pass.
                raise flags.Error(f"flag --{name}={value}: expected a finite number")
        return arguments
    except flags.Error as error:
        _fail(f"{_flag_message(error)} See --help.")
    except SystemExit:
        sys.exit(0)  # absl has printed the help that was asked for, and calls that a failure.


def _flag_message(error):
    """absl's message, with a missing flag asked for and without the tuples that stand in it."""
    missing = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    if missing:
        about = flags.FLAGS[missing[1]].help.splitlines()[0]  # absl adds a line to the help of a repeatable flag.
        return f"give --{missing[1]}: {about.rstrip(';')}"
    message = re.sub(r"\('([^']*)', ('[^']*')\)", r"\1 \2", str(error))
    return message if message.endswith((".", "?")) else f"{message}."


def one_line(error):
    """The line for a mistake that the user can mend, or None for any other exception."""
    first_line = (str(error).strip().splitlines() or [""])[0]  # gin adds lines on where the call was configured.
    if isinstance(error, UserError):
        return first_line
    disk = disk_message(error)
    if disk is not None:
        return disk
    if os.environ.get("TF_PIVAE_DEBUG"):
        return None
    if isinstance(error, RecursionError):
        return "the configuration leads back to itself: look for a @NAME() or %NAME in its own value."
    missing = re.match(r"Required bindings for `(\w+)` not provided in config: \['(\w+)'", first_line)
    if missing:
        return f"the configuration has no {missing[1]}.{missing[2]}: add --gin_param={missing[1]}.{missing[2]}=..."
    missing = missing_setting(error)
    if missing:
        return missing
    # gin marks what went wrong in a configured call: a value in the configuration, most of the time.
    where = re.search(r"In call to configurable '(\w+)'", str(error))
    if isinstance(error, (ValueError, TypeError)) and where:
        return f"{where[1]}: {first_line} (TF_PIVAE_DEBUG=1 shows where)"
    return None


def _fail(message, exit_status=UserError.exit_status):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_status)


def import_tensorflow_quietly():
    """Imports TensorFlow, set up for the machine's memory and cores, without its start-up messages."""
    memory.keep_freed_memory()
    threads.fit_to_cores()
    quiet.import_tensorflow()


def require_extra(extra, *modules):
    """Checks that the modules of an optional dependency can be found.

    Args:
      extra: its name in `pip install 'tf-pivae[EXTRA]'`.
      *modules: top-level modules.

    Raises:
      UserError: one of them is missing; says what to install.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed: pip install 'tf-pivae[{extra}]'.")


# gin.


def gin_search_paths():
    """Where gin files are looked up: the current folder, then the files shipped with the program."""
    here = Path(__file__).resolve().parent
    shipped = [here / "gin_files", here.parent / "gin"]  # Installed as package data, or beside the package in a clone.
    return ["", *(str(path) for path in shipped if path.is_dir())]


def parse_gin(files, parameters=(), required=True):
    """Reads gin files and bindings into gin's configuration, with nothing unknown passing unnoticed.

    Args:
      files: names of gin files.
      parameters: bindings such as "num_steps=1000".
      required: whether at least one file must be given.

    Raises:
      UserError: an unknown file, configurable, parameter or macro, or a syntax error; the nearest right names included.
    """
    if required and not files:
        raise UserError(f"give a configuration: --gin_file=NAME, one of {', '.join(_shipped_files()[:6])}, ...")
    for file in files:
        _check_file(file)
    import_tensorflow_quietly()
    import gin
    import gin.config

    import tf_pivae.configurables  # noqa: F401  registers everything that a gin file may name

    gin.clear_config()
    # Files of our folders and nothing else: gin would also look for models/residual.gin in a Python package `models`,
    # and fails where the current folder has a folder of that name.
    gin.config._FILE_READERS[:] = [(open, os.path.isfile)]
    gin.config._LOCATION_PREFIXES[:] = gin_search_paths()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # gin reports every place where it looks for a file.
    try:
        for file in files:
            gin.parse_config_file(file)
        for parameter in parameters:
            gin.parse_config(_binding(parameter))
    except UserError:
        raise
    except Exception as error:  # A file may hold anything, and gin's parser and its imports raise what they like.
        raise UserError(_explain(error)) from error
    finally:
        logging.disable(disabled)
    _check_macros()


def default_run_dir(files):
    """runs/NAME for the last gin file's name."""
    return str(Path("runs") / Path(files[-1]).stem)


def config_text():
    """The whole configuration as gin text."""
    import gin

    return gin.config_str(max_line_length=110)


def _shipped_files():
    names = set()
    for root in gin_search_paths()[1:]:
        names.update(str(path.relative_to(root)) for path in Path(root).rglob("*.gin"))
    return sorted(names, key=lambda name: (name.count("/"), name))


def is_gin_file(file):
    """Whether there is such a gin file, in the current folder or among those shipped with the program."""
    return any(os.path.isfile(os.path.join(root, file)) for root in gin_search_paths())


def _check_file(file):
    if is_gin_file(file):
        return
    raise UserError(f"no gin file {file!r}{_did_you_mean(file, _shipped_files())}")


def _binding(parameter):
    """A --gin_param as a gin statement: an unquoted word on the right is taken as a string."""
    name, separator, value = parameter.partition("=")
    if not separator or not name.strip():
        raise UserError(f"--gin_param={parameter}: expected NAME=VALUE, such as num_steps=1000.")
    value = value.strip()
    if re.fullmatch(r"[A-Za-z_./~][\w./~-]*", value) and value not in ("True", "False", "None"):
        value = repr(value)
    return f"{name.strip()} = {value}"


def _explain(error):
    """One line for an error of gin's parser, with the nearest right names."""
    text = str(error).strip()
    unknown = re.search(r"No configurable matching (?:reference )?'@?(?:[\w.]*/)?([\w.]+?)(?:\(\))?'", text)
    if unknown:
        names = _configurable_names()
        return f"no configurable named {unknown[1]!r}{_did_you_mean(unknown[1], names)}"
    parameter = re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '([\w.]+)'", text)
    if parameter:
        known = _parameters(parameter[1])
        return f"{parameter[1]} has no parameter {parameter[2]!r}{_did_you_mean(parameter[2], known)}"
    file = re.search(r"Unable to open file: (\S+)\.", text)
    if file:
        return f"no gin file {file[1]!r}{_did_you_mean(file[1], _shipped_files())}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"the configuration cannot be read: {' '.join(lines[:3])}"


def _configurable_names():
    import gin.config

    return sorted(selector.rsplit(".", 1)[-1] for selector in gin.config._REGISTRY._selector_map)


def _parameters(selector):
    import inspect

    import gin.config

    configurable = gin.config._REGISTRY.get_match(selector)
    return [] if configurable is None else list(inspect.signature(configurable.wrapped).parameters)


def _check_macros():
    """A macro that nothing refers to is a misspelt one: gin itself would take it without a word."""
    text = config_text()
    defined = re.findall(r"^(\w+) = ", text, flags=re.MULTILINE)
    used = set(re.findall(r"%(\w+)", text))
    for name in defined:
        if name not in used:
            owners = _owners(name, text)
            if owners:
                raise UserError(f"{name} is no setting by itself: write {' or '.join(f'{o}.{name}' for o in owners)}.")
            raise UserError(f"nothing uses the macro {name!r}{_did_you_mean(name, sorted(used))}")
    undefined = used - set(defined)
    if undefined:
        raise UserError(f"the macro {sorted(undefined)[0]!r} has no value: add --gin_param={sorted(undefined)[0]}=...")


def _owners(parameter, text):
    """Names of the configurables that have a parameter of this name and stand in the configuration; else of all."""
    owners = [name for name in _configurable_names() if parameter in _parameters(name)]
    return [name for name in owners if re.search(rf"\b{re.escape(name)}\b", text)] or owners


def _did_you_mean(name, known):
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(list(known)[:12])}." if known else "."
