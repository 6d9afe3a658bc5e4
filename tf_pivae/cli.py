"""What the commands share: gin files and parameters, quiet start-up, one-line errors.

Nothing here imports TensorFlow, so that `--help` answers at once.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from tf_pivae.arguments import LARGEST_FLOAT, SEEDS
from tf_pivae.errors import (
    UNREAD,
    UserError,
    configured_name,
    disk_message,
    first_line,
    has_no_reader,
    missing_setting,
    printable,
    sentence,
)
from tf_pivae.system import children
from tf_pivae.system.startup import import_tensorflow_quietly

flags.disclaim_key_flags()  # What is defined here belongs to the command that asks for it, and stands in its --help.


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of a function's parameters by name, for the flags of the command that calls it."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def define_gin_flags() -> None:
    """Defines --gin_file and --gin_param; call it when a command's module is imported."""
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
    define_import_flag()


def define_import_flag() -> None:
    """Defines --import; call it, like `define_gin_flags` which calls it too, when a command's module is imported."""
    flags.DEFINE_multi_string(
        "import",
        [],
        "A Python module of your own that registers extensions, such as my_package.critics; it is run. Repeatable.",
    )


class _StepParser(flags.ArgumentParser):
    """A checkpoint's step, or the word for the one that a validation chose."""

    syntactic_help = "a step, or best"

    def parse(self, argument: Any) -> int | str:
        text = str(argument)
        if text == "best":
            return text
        if not text.isdecimal():
            raise ValueError(f"expected a step such as 1000, or best; got {text}.")
        return int(text)


def define_step_flag(purpose: str) -> flags.FlagHolder:
    """Defines --step, whose value is an int, "best" or None, for a command that does `purpose` with a checkpoint."""
    about = (
        f"The checkpoint to {purpose}: a step, or best for the one that train.validation chose; the newest by default."
    )
    return flags.DEFINE(_StepParser(), "step", None, about)


def define_data_flag() -> flags.FlagHolder:
    """Defines --gin_param of a command that reads the data of a run: where they lie, for `loading.data_at`."""
    about = "Where a copied run's data lie on this machine, as image_folder.path=FOLDER; repeat for more."
    return flags.DEFINE_multi_string("gin_param", [], about)


def _imports() -> list[str]:
    return flags.FLAGS["import"].value if "import" in flags.FLAGS else []


def import_flags() -> list[str]:
    """The --import flags that this command was given, for a command that it starts."""
    return [f"--import={name}" for name in _imports()]


def _import_extensions() -> None:
    """Imports the modules that --import names. Nothing else that a command reads can have one imported."""
    for name in _imports():
        import_tensorflow_quietly()
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"--import={name}: there is no module {error.name!r} in the current folder, on PYTHONPATH or installed."
            ) from error
        except Exception as error:  # Whatever the user's module raises.
            if os.environ.get("TF_PIVAE_DEBUG"):
                raise
            raise UserError(
                f"--import={name}: {type(error).__name__}: {first_line(error)} (TF_PIVAE_DEBUG=1 shows where)."
            ) from error


def define_own_images_flags(images: str, function: Callable[..., Any]) -> tuple[flags.FlagHolder, ...]:
    """The flags of a command that does something with the user's images: run_dir, images, output, seed, step, label.

    Args:
      images: the help of --images.
      function: what the command calls, with the defaults of `output` and `seed`.
    """
    values = defaults(function)
    define_import_flag()
    return (
        flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True),
        flags.DEFINE_string("images", None, images, required=True),
        flags.DEFINE_string("output", values["output"], "NAME.png, FOLDER/ or NAME.npz."),
        flags.DEFINE_integer("seed", values["seed"], "Seed of the noise.", *SEEDS),
        define_step_flag("use"),
        flags.DEFINE_integer("label", None, "Class of the images, for a class-conditional model.", lower_bound=0),
    )


def run(main: Callable[[], None]) -> None:
    """Runs a command's `main()` under absl: a mistake becomes one line on stderr and exit status 2."""

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # Closed, as by `>&-`: what is opened next would take its place.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  open until the end
    children.end_with_parent()
    gc.set_threshold(50_000, 20, 20)  # Imports make half a million objects that stay: looked through less often,
    atexit.register(gc.freeze)  # and not once more at the end, which takes a second after TensorFlow.

    @functools.wraps(main)
    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}: options start with --; see --help.")
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))  # No prefixes.
        try:
            _import_extensions()
            main()
            sys.stdout.flush()
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            _fail(line, getattr(error, "exit_status", UserError.exit_status))
        except KeyboardInterrupt:
            sys.exit(130)

    status = None
    try:
        try:
            app.run(guarded, flags_parser=_parse_flags)
        except SystemExit as end:
            status = end.code
            sys.stdout.flush()
            raise
    except OSError as error:
        if not has_no_reader(error):
            raise
        sys.stdout = None  # Python would complain of it once more at the end, and end with a status of its own.
        sys.exit(status or UNREAD)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        arguments = flags.FLAGS(argv)
        for name in flags.FLAGS:
            value = flags.FLAGS[name].value
            if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT:  # NaN passes a lower bound.
                raise flags.Error(f"flag --{name}={value}: expected a finite number")
            if value == "" and flags.FLAGS[name].default != "":  # As by a shell's variable that is not set.
                raise flags.Error(f"flag --{name}=: expected a value")
        return arguments
    except flags.Error as error:
        _fail(f"{_flag_message(error)} See --help.")
    except SystemExit:
        sys.exit(0)  # absl has printed the help that was asked for, and calls that a failure.


def _flag_message(error: flags.Error) -> str:
    """absl's message, with a missing flag asked for and without the tuples that stand in it."""
    missing = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    if missing:
        about = flags.FLAGS[missing[1]].help.splitlines()[0]  # absl adds a line to the help of a repeatable flag.
        return f"give --{missing[1]}: {about.rstrip(';')}"
    message = re.sub(r"\('([^']*)', ('[^']*')\)", r"\1 \2", str(error))
    return sentence(message)


def one_line(error: BaseException) -> str | None:
    """The line for a mistake that the user can correct, or None for any other exception."""
    line = first_line(error)  # gin adds lines on where the call was configured.
    if isinstance(error, UserError):
        return line
    disk = disk_message(error)
    if disk is not None:
        return disk
    if os.environ.get("TF_PIVAE_DEBUG"):
        return None
    if isinstance(error, RecursionError):
        return "the configuration refers to itself: look for a @NAME() or %NAME in its own value."
    missing = missing_setting(error)
    if missing:
        return missing
    name = configured_name(error)  # A value in the configuration, most of the time.
    if isinstance(error, (ValueError, TypeError)) and name:
        return f"{name}: {line} (TF_PIVAE_DEBUG=1 shows where)."
    return None


def _fail(message: str, exit_status: int = UserError.exit_status) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {printable(message)}", file=sys.stderr)  # It may quote an untrusted file.
    sys.exit(exit_status)
