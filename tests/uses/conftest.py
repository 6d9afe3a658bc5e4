"""What the tests of uses share: the packaged model, loaded and compiled once in a process."""

import functools
from collections.abc import Iterator

import pytest
from shipped import RUN

from tf_pivae import loading
from tf_pivae.models.pivae import PiVAE

_load_with_step = functools.cache(loading.load_with_step)


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """Each function loads its model; its compilation takes longer than anything that it then does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_with_step", _load_with_step)
        yield


@pytest.fixture(scope="module")
def packaged(_loaded_once: None) -> PiVAE:
    """The packaged model."""
    return loading.load_with_step(RUN, None)[0]
