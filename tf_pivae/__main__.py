"""The commands of tf_pivae: `tf-pivae NAME ...` is `python -m tf_pivae.NAME ...`; nothing here imports TensorFlow."""

import ast
import difflib
import importlib.util
import runpy
import sys
from pathlib import Path

from tf_pivae.errors import UNREAD, UserError
from tf_pivae.version import __version__

# Name -> what it does, as in docs/commands.md.
COMMANDS = {
    "train": "trains, or continues a run; `--dry_run` and `--describe` only look",
    "sample": "draws samples: a grid, a folder of PNGs, or an array",
    "score": "how probable images of your own are, and how unusual",
    "reconstruct": "encodes and decodes images of your own",
    "interpolate": "walks between images of your own, through the latents",
    "evaluate": "bits per dimension, FID, KID, IS, precision, recall, density, coverage, GAN-train, GAN-test",
    "report": "shows runs on one page",
    "prepare": "downloads and prepares a data set",
    "sweep": "trains many times with different settings",
    "paper": "trains and evaluates a table of the paper",
    "describe": "lists what the paper's rows build",
    "export": "writes a SavedModel",
    "export.serve": "serves a SavedModel",
    "publish": "makes a small folder of a run, to be shared; `--to=hub` uploads it",
    "runs": "lists runs: state, step, bits per dimension, FID, size, age; `--delete=RUN` deletes one",
    "metrics.convert_inception": "writes the FID network's weights as a file that is read fast",
    "cluster": "prints a worker's TF_CONFIG",
}


def main() -> None:
    """Runs the command that the first argument names; without one, lists them. An unknown one is exit status 2."""
    program = "python -m tf_pivae" if Path(sys.argv[0]).name == "__main__.py" else "tf-pivae"
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        _print(usage(program))
    elif name == "--version":
        _print(__version__)
    elif name in COMMANDS:
        _run(program, name, arguments)
    else:
        matches = [command for command in COMMANDS if name in command.split(".")]
        matches += difflib.get_close_matches(name, COMMANDS)
        hint = f"did you mean {matches[0]}?" if matches else f"{program} --help lists them."
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(UserError.exit_status)


def usage(program: str) -> str:
    """What --help prints; `program` is what the user typed to get here."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {does.replace('`', '')}" for name, does in COMMANDS.items()]
    end = f"{program} COMMAND --help lists a command's flags; {program} --version prints the package's version."
    return "\n".join([f"Usage: {program} COMMAND [--flag=value ...]", "", *lines, "", end])


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = None  # Python would try once more at the end.
        sys.exit(UNREAD)


def _run(program: str, name: str, arguments: list[str]) -> None:
    """Runs a command's module as the program that it is by itself; its help speaks of what the user typed."""
    file = importlib.util.find_spec(f"tf_pivae.{name}").origin.replace("__init__", "__main__")
    help_text = ast.get_docstring(ast.parse(Path(file).read_text("utf-8")))
    sys.modules["__main__"].__doc__ = help_text.replace(f"python -m tf_pivae.{name}", f"{program} {name}")
    sys.argv = [f"{program} {name}", *arguments]
    runpy.run_module(f"tf_pivae.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
