"""What the race's tests share: one thread of PyTorch, from one seed; images."""

import numpy as np
import pytest

from tf_pivae.data import bundled


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def images():
    return np.ascontiguousarray(bundled(28).train.images[:64])
