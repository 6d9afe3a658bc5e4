"""Which version answers: the newest in the folder, exchanged while requests run, as TensorFlow Serving does it."""

import asyncio
import contextlib

from absl import logging

from tf_pivae.errors import UserError
from tf_pivae.export.requests import RequestError
from tf_pivae.export.servable import Servable
from tf_pivae.export.versions import versions


class Active:
    """A loaded version with its queues, and the number of requests that still need it."""

    def __init__(self, servable, make_runner):
        self.servable = servable
        self.version = servable.version
        self._runners = {name: make_runner(servable, name) for name in servable.signatures}
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextlib.contextmanager
    def in_use(self):
        """Keeps the version from being let go meanwhile."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def run(self, signature, inputs, rows):
        """Runs a signature for `rows` rows: dict of arrays -> dict of arrays."""
        return await self._runners[signature].submit(inputs, rows)

    async def retire(self):
        """Waits for the last request and lets go."""
        await self._unused.wait()
        for runner in self._runners.values():
            runner.close()


class ModelManager:
    """Watches a folder of versions.

    A new version is loaded and warmed up beside the old one and takes over at once; the old one finishes what it has.
    A version that cannot be loaded is reported and left alone.

    Args:
      export_dir: the folder.
      make_runner: function of (`Servable`, signature name) to a `Batcher` or `Unbatched`.
      poll_seconds: how often to look.
    """

    def __init__(self, export_dir, make_runner, poll_seconds=1.0):
        self._export_dir = export_dir
        self._make_runner = make_runner
        self._poll_seconds = poll_seconds
        self._active = None
        self._failed = {}
        self._loading = None
        self._retiring = {}
        self._poller = None

    async def start(self):
        """Loads the newest version and begins to watch.

        Raises:
          UserError: no folder, no version in it, or none that can be loaded.
        """
        try:
            await self._update()
        except OSError as error:
            raise UserError(f"cannot read {self._export_dir}: {error.strerror}.") from error
        if self._active is None:
            reasons = "; ".join(f"version {version}: {reason}" for version, reason in self._failed.items())
            raise UserError(f"no model to serve in {self._export_dir}: {reasons or 'run python -m tf_pivae.export'}.")
        self._poller = asyncio.create_task(self._poll())

    async def stop(self):
        """Stops watching, and waits for the requests that run."""
        self._poller.cancel()
        await asyncio.gather(self._active.retire(), *self._retiring.values())

    @property
    def version(self):
        """The version that answers now."""
        return self._active.version

    @contextlib.contextmanager
    def lease(self, version=None):
        """The `Active` version, held until the context ends.

        Args:
          version: int, the only version that will do; None is whatever answers now.

        Raises:
          RequestError: NOT_FOUND; another version answers now.
        """
        if version is not None and version != self._active.version:
            raise RequestError("NOT_FOUND", f"version {version} is not served; version {self._active.version} is.")
        with self._active.in_use() as active:
            yield active

    def states(self):
        """What is known of each version: dict of int -> (state, reason), the states of ModelService."""
        states = {version: ("END", reason) for version, reason in self._failed.items()}
        states.update({version: ("UNLOADING", "") for version in self._retiring})
        if self._loading is not None:
            states[self._loading] = ("LOADING", "")
        states[self._active.version] = ("AVAILABLE", "")
        return states

    async def _poll(self):
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._update()
            except OSError as error:
                logging.warning("cannot read %s: %s", self._export_dir, error)

    async def _update(self):
        """Goes over to the highest version that can be loaded."""
        present = versions(self._export_dir)
        self._failed = {version: reason for version, reason in self._failed.items() if version in present}
        for version in reversed(present):
            if version in self._failed:
                continue
            if self._active is not None and self._active.version == version:
                return
            if await self._load(version):
                return

    async def _load(self, version):
        self._loading = version
        try:
            servable = await asyncio.to_thread(Servable, f"{self._export_dir}/{version}", version)
        except Exception as error:  # Anything may be wrong with a folder that somebody made.
            self._failed[version] = f"cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
            logging.error("version %d %s", version, self._failed[version])
            return False
        finally:
            self._loading = None
        before, self._active = self._active, Active(servable, self._make_runner)
        if before is not None:
            task = asyncio.create_task(before.retire())
            self._retiring[before.version] = task
            task.add_done_callback(lambda _: self._retiring.pop(before.version, None))
        return True
