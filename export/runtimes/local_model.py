"""Exported models in this process, without a server: TensorFlow runs them, or OpenVINO, which starts without it.

model = tf_pivae.export.load("exports/demo", runtime="openvino")
model.log_prob(images).bits_per_dim
"""

from pathlib import Path

import numpy as np

from tf_pivae.errors import UserError, first_line
from tf_pivae.export.client.model_client import ModelClient
from tf_pivae.export.client.retries import ServingError
from tf_pivae.export.requests import Inputs, Outputs, RequestError, Signature
from tf_pivae.export.runtimes.opening import Runtime, newest, open_runtime


class LocalModel(ModelClient):
    """The methods of the clients (`ModelClient`), of a model in this process. Safe to share between threads.

    Args:
      folder: a version's.
      runtime: what runs it.
      batch_size: rows of one run; longer calls are cut.
    """

    def __init__(self, folder: Path, runtime: Runtime, batch_size: int = 64) -> None:
        self.folder = folder
        self._runtime = runtime
        super().__init__(batch_size)

    def bits_per_dim(self, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Images uint8 [N, H, W, C] -> float32 [N]: minus the bound, in bits per dimension."""
        return self.log_prob(images, labels).bits_per_dim

    def _send(self, signature: str, inputs: Inputs) -> Outputs:
        """One run.

        Raises:
          ServingError: what the model or the runtime refuses, with its code.
        """
        try:
            return self._runtime.run(signature, inputs)
        except RequestError as error:
            raise ServingError(error.code, str(self.folder), str(error)) from error

    def close(self) -> None:
        """Nothing to do: the model goes with its last reference."""

    def _fetch_signatures(self) -> dict[str, Signature]:
        return self._runtime.signatures


def load(path: str | Path, runtime: str = "tensorflow", precision: str = "f32", batch_size: int = 64) -> LocalModel:
    """An exported model, ready to be called.

    Args:
      path: a version's folder, or a folder of versions, of which the newest is taken.
      runtime: "tensorflow" runs every signature. "openvino" (the extra `openvino`) runs `log_prob`, `reconstruct`,
        `encode` and `decode`, and not `sample` (stateless random numbers) or `image_bytes` (decodes files).
      precision: "f32", or, with OpenVINO, "bf16": where the processor has it, products are rounded to bfloat16.
      batch_size: rows of one run.

    Raises:
      UserError: no model there, or the runtime is not installed.
    """
    folder = newest(path)
    try:
        return LocalModel(folder, open_runtime(folder, runtime, precision), batch_size)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be loaded ({first_line(error)[:200]}): export the run again.") from error
