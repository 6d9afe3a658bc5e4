"""Which version answers: the newest in the folder, exchanged while requests run, as TensorFlow Serving does it."""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

from absl import logging

from tf_pivae.errors import UserError, first_line
from tf_pivae.export.requests import Inputs, Outputs, RequestError
from tf_pivae.export.serve.batching import Batcher
from tf_pivae.export.serve.servable import Servable
from tf_pivae.export.versions import SAVED_MODEL, versions


class Version:
    """A loaded version and a queue for each signature. A request holds on to the version that it began with."""

    def __init__(self, servable: Servable, make_batcher: Callable[[Servable, str], Batcher]) -> None:
        self.servable = servable
        self.number = servable.version
        self._batchers = {name: make_batcher(servable, name) for name in servable.signatures}

    async def run(self, signature: str, inputs: Inputs, rows: int) -> Outputs:
        """Runs a signature for `rows` rows."""
        return await self._batchers[signature].submit(inputs, rows)


class ModelManager:
    """Watches a folder of versions.

    A new version is loaded and warmed up beside the old one and takes over at once; the old one goes with its last
    request. A version that cannot be loaded is reported and left alone.

    Args:
      export_dir: the folder.
      load: function of a version's folder and number to its `Servable`.
      make_batcher: function of (`Servable`, signature name) to its queue.
      poll_seconds: how often to look.
    """

    def __init__(
        self,
        export_dir: str,
        load: Callable[[str, int], Servable],
        make_batcher: Callable[[Servable, str], Batcher],
        poll_seconds: float = 1.0,
    ) -> None:
        self._export_dir = export_dir
        self._load = load
        self._make_batcher = make_batcher
        self._poll_seconds = poll_seconds
        self._current: Version | None = None
        self._failed: dict[int, str] = {}
        self._poller: asyncio.Task | None = None

    async def start(self) -> None:
        """Loads the newest version and begins to watch.

        Raises:
          UserError: no folder, no version in it, or none that can be loaded.
        """
        try:
            await self._update()
        except OSError as error:
            raise UserError(f"cannot read {self._export_dir}: {error.strerror}.") from error
        if self._current is None:
            if (Path(self._export_dir) / SAVED_MODEL).is_file():
                folder = Path(self._export_dir).absolute().parent
                raise UserError(f"{self._export_dir} is a version: give the folder of versions, --export_dir={folder}.")
            reasons = "; ".join(f"version {version}: {reason}" for version, reason in self._failed.items())
            raise UserError(f"no model to serve in {self._export_dir}: {reasons or 'run python -m tf_pivae.export'}.")
        self._poller = asyncio.create_task(self._poll())

    def stop(self) -> None:
        """Stops watching."""
        self._poller.cancel()

    def version(self, number: int | None = None) -> Version:
        """The version that answers now.

        Args:
          number: the only version that will do, or None.

        Raises:
          RequestError: NOT_FOUND; another version answers now.
        """
        if number is not None and number != self._current.number:
            raise RequestError("NOT_FOUND", f"version {number} is not served; version {self._current.number} is.")
        return self._current

    def states(self) -> dict[int, tuple[str, str]]:
        """What is known of each version: its state as ModelService calls it, and the reason."""
        states = {version: ("END", reason) for version, reason in self._failed.items()}
        return {**states, self._current.number: ("AVAILABLE", "")}

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._update()
            except OSError as error:
                logging.log_every_n_seconds(logging.WARNING, "cannot read %s: %s", 60, self._export_dir, error)

    async def _update(self) -> None:
        """Switches to the highest version that can be loaded."""
        present = versions(self._export_dir)
        self._failed = {version: reason for version, reason in self._failed.items() if version in present}
        for version in reversed(present):
            if self._current is not None and self._current.number == version:
                return
            if version not in self._failed and await self._change_to(version):
                return

    async def _change_to(self, version: int) -> bool:
        try:
            servable = await asyncio.to_thread(self._load, f"{self._export_dir}/{version}", version)
        except Exception as error:  # Anything may be wrong with a folder that somebody made.
            self._failed[version] = f"cannot be loaded ({type(error).__name__}: {first_line(error)[:200]})"
            logging.error("version %d %s", version, self._failed[version])
            return False
        self._current = Version(servable, self._make_batcher)
        del servable
        await asyncio.to_thread(gc.collect)  # The old one's graphs refer to themselves.
        return True
