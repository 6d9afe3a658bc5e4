"""What the tests of uses share: the packaged model and a small one, loaded and compiled once in a process."""

import functools
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import forking
import pytest
from shipped import RUN

from tf_pivae import loading
from tf_pivae.models.pivae import PiVAE

_load_with_step = functools.cache(loading.load_with_step)


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """Each function loads its model; its compilation takes longer than anything that it then does."""
    with forking.optimized_graphs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_with_step", _load_with_step)
        yield


@pytest.fixture(scope="module")
def packaged(_loaded_once: None) -> PiVAE:
    """The packaged model."""
    return loading.load_with_step(RUN, None)[0]


@pytest.fixture(scope="module")
def small_run(finished: tuple[Path, CompletedProcess[str]]) -> str:
    """The folder of a run of 12 steps, for tests to which it is all the same whose samples they see."""
    return str(finished[0])


@pytest.fixture(scope="module")
def small_model(_loaded_once: None, small_run: str) -> PiVAE:
    """Its model, of images of 16x16x1."""
    return loading.load_with_step(small_run, None)[0]
