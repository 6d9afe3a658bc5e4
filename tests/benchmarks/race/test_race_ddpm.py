"""The race's DDPM: the terms of its bound a second way, its samples."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

# isort: split
from race_levels import LEVELS, as_tensor  # noqa: E402

from benchmarks.race import ddpm  # noqa: E402
from benchmarks.race.contestant import to_unit  # noqa: E402


@pytest.mark.parametrize("std", [0.002, 0.0064, 0.3])
def test_gaussian_bins_sum_to_one(std):
    means = torch.linspace(-1.0, 1.0, 41)
    x = to_unit(LEVELS.view(256, 1, 1, 1)).expand(256, 1, 1, 41)
    log_probs = ddpm.gaussian_bin_log_prob(x, means, torch.tensor(std))
    assert torch.isfinite(log_probs).all()
    torch.testing.assert_close(
        log_probs.double().exp().sum(0), torch.ones(1, 1, 41, dtype=torch.float64), atol=2e-5, rtol=0
    )


@pytest.fixture(scope="module")
def small_ddpm():
    torch.manual_seed(0)
    model = ddpm.DDPM(widths=(8, 8, 8), evaluations=3)
    with torch.no_grad():
        for parameter in model.averaged.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("t", [2, 3, 100, 999, 1000])
def test_a_term_is_the_divergence_from_the_posterior(small_ddpm, images, monkeypatch, t):
    """Of q(x_{t-1} | x_t, x), by Bayes' rule from the two steps of the noise, from the model's Gaussian."""
    monkeypatch.setattr("benchmarks.race.contestant.has_bfloat16", lambda: False)
    x = to_unit(as_tensor(images[:2]))
    noise = torch.randn_like(x)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    times = torch.full((2,), t)
    with torch.no_grad():
        value = small_ddpm.term(x, times)
        x_t = small_ddpm.diffuse(x, times, noise).double()
        clean = small_ddpm.denoise(x_t.float(), times).double()
    before = small_ddpm.shares[t - 1]
    now = small_ddpm.shares[t]
    ratio = now / before  # x_t | x_{t-1} ~ N(ratio^1/2 x_{t-1}, 1 - ratio); x_{t-1} | x ~ N(before^1/2 x, 1 - before)
    precision = 1.0 / (1.0 - before) + ratio / (1.0 - ratio)

    def posterior(x):
        mean = (before.sqrt() * x / (1.0 - before) + ratio.sqrt() * x_t / (1.0 - ratio)) / precision
        return torch.distributions.Normal(mean, precision**-0.5)

    expected = torch.distributions.kl_divergence(posterior(x.double()), posterior(clean)).flatten(1).sum(1)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_some_terms_of_the_bound_estimate_all(small_ddpm, images):
    """The mean over many draws of one t of each span is the sum over all t."""
    x = as_tensor(images[:1]).expand(16, -1, -1, -1)
    cheap = ddpm.DDPM(widths=(8, 8, 8))
    cheap.denoise = lambda x_t, t: x_t.clamp(-1.0, 1.0) * cheap.shares[t][:, None, None, None].sqrt().float()
    exact = cheap.nats(x[:2], ddpm.STEPS - 1).mean()
    estimates = torch.cat([cheap.nats(x, 32) for _ in range(20)])
    assert abs(estimates.mean() - exact) < 4.0 * estimates.std() / math.sqrt(len(estimates)) + 1e-3 * exact


def test_spans_have_every_time_once():
    for count in (1, 7, 32, 999):
        times = [t for first, last in ddpm.strata(count) for t in range(first, last + 1)]
        assert times == list(range(2, ddpm.STEPS + 1))


def test_the_noise_begins_as_nothing_and_ends_as_all():
    shares = ddpm.cosine_schedule()
    assert shares[0] == 1.0
    assert (shares.diff() < 0.0).all()
    assert shares[-1] < 1e-6


def test_a_perfect_denoiser_s_samples_are_its_image(small_ddpm, images, monkeypatch):
    """Whatever the number of evaluations, which is that of the calls."""
    calls = []
    target = to_unit(as_tensor(images[:1]))

    def denoise(x_t, t):
        calls.append(int(t[0]))
        return target.expand_as(x_t)

    monkeypatch.setattr(small_ddpm, "denoise", denoise)
    assert (small_ddpm.sample(2, 0) == images[:1]).all()
    assert len(calls) == 3
    assert calls[0] == ddpm.STEPS
