"""A training by the clock: the rate, its end, and what a kill leaves."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

# isort: split
from benchmarks.race import clock  # noqa: E402
from benchmarks.race.contestant import TorchContestant, average  # noqa: E402


class _Line(TorchContestant):
    """A step takes a second of a clock that stands still otherwise."""

    batch_size = 4

    def __init__(self, now):
        super().__init__()
        self.now = now
        self.net = torch.nn.Linear(1, 1)
        self.averaged = average(self.net)
        self.optimizers = [torch.optim.Adam(self.net.parameters(), 0.1)]
        self.fractions = []
        self.rates = []
        self.firsts = []

    def train_step(self, images, fraction):
        self.now[0] += 1.0
        self.fractions.append(fraction)
        self.rates.append(self.optimizers[0].param_groups[0]["lr"])
        self.firsts.append(images[:, 0, 0, 0].tolist())
        return self.descend(self.net(images[:, :, 0, 0].float() / 256.0).square().mean(), self.net, 1.0)


@pytest.fixture
def now(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: seconds[0])
    return seconds


def test_the_rate_follows_the_clock_and_ends_with_it(now, tmp_path, images):
    model = _Line(now)
    result = clock.train(model, images, tmp_path, 200.0)
    assert result == {"steps": 200, "seconds": 200.0, "images_per_second": 4.0}
    np.testing.assert_allclose(model.fractions, np.arange(200) / 200.0)
    np.testing.assert_allclose(model.rates, [0.1 * model.rate(f) for f in model.fractions])
    assert model.rates[2] == max(model.rates)
    assert model.rates[-1] < 1e-4
    assert len((tmp_path / "losses.jsonl").read_text().splitlines()) == 101
    per_pass = len(images) // 4
    seen = sorted(itertools.chain(*model.firsts[:per_pass]))
    assert seen == sorted(images[:, 0, 0, 0].tolist())  # Each image once.


def test_a_killed_training_goes_on_from_its_checkpoint(now, tmp_path, images):
    """With the weights, the moments, the average, the time and the batches of the checkpoint."""
    model = _Line(now)
    step = model.train_step

    def killed(batch, fraction):
        if len(model.fractions) == 150:
            raise KeyboardInterrupt
        return step(batch, fraction)

    model.train_step = killed
    with pytest.raises(KeyboardInterrupt):
        clock.train(model, images, tmp_path, 200.0)
    resumed = _Line(now)
    result = clock.train(resumed, images, tmp_path, 200.0)
    assert result["steps"] == 200
    assert len(resumed.fractions) == 200 - 121  # The checkpoint is that of the first step behind 120 seconds.
    assert resumed.fractions[0] == 121 / 200
    assert resumed.firsts[: 150 - 121] == model.firsts[121:]
    assert int(resumed.averaged.n_averaged) == 200
    again = _Line(now)
    assert clock.train(again, images, tmp_path, 200.0) == result  # Nothing is left to do.
    assert not again.fractions
    again.restore(tmp_path)
    torch.testing.assert_close(again.state_dict(), resumed.state_dict())


def test_a_loss_that_is_no_number_ends_the_training(now, tmp_path, images):
    model = _Line(now)
    model.train_step = lambda batch, fraction: torch.tensor(math.nan)
    with pytest.raises(FloatingPointError, match="the loss of step 0 is nan"):
        clock.train(model, images, tmp_path, 5.0)
    assert not (tmp_path / clock.CHECKPOINT).exists()
