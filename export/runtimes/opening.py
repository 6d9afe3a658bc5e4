"""A version of an export, and what runs it: TensorFlow, or OpenVINO."""

from pathlib import Path
from typing import Protocol

from tf_pivae.errors import UserError
from tf_pivae.export.requests import Inputs, Outputs, Signature
from tf_pivae.export.versions import SAVED_MODEL, versions
from tf_pivae.system.startup import require_extra

RUNTIMES = ("tensorflow", "openvino")
PRECISIONS = ("f32", "bf16")


class Runtime(Protocol):
    """Runs the signatures of a SavedModel."""

    signatures: dict[str, Signature]

    def run(self, name: str, inputs: Inputs) -> Outputs:
        """Runs a signature.

        Raises:
          RequestError: INVALID_ARGUMENT, UNIMPLEMENTED or INTERNAL.
        """


def open_runtime(folder: str | Path, runtime: str, precision: str = "f32") -> Runtime:
    """The `Runtime` of this name for a version's folder; see `local_model.load`.

    Raises:
      UserError: no such runtime or precision, or OpenVINO is not installed.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"no runtime {runtime!r}; there are {', '.join(RUNTIMES)}.")
    if precision not in PRECISIONS:
        raise UserError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}.")
    if runtime == "openvino":
        require_extra("openvino", "openvino")
        from tf_pivae.export.runtimes.openvino_runtime import OpenVINORuntime

        return OpenVINORuntime(Path(folder), precision)
    if precision != "f32":
        raise UserError("only OpenVINO takes a precision: give runtime='openvino', or leave it out.")
    from tf_pivae.export.runtimes.tensorflow_runtime import TensorFlowRuntime

    return TensorFlowRuntime(Path(folder))


def newest(path: str | Path) -> Path:
    """A version's folder, or the newest of a folder of versions.

    Raises:
      UserError: there is none.
    """
    folder = Path(path)
    if (folder / SAVED_MODEL).is_file():
        return folder
    try:
        return folder / str(versions(folder)[-1])
    except (OSError, IndexError) as error:
        raise UserError(f"no exported model in {path}: python -m tf_pivae.export makes one.") from error
