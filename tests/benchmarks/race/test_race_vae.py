"""The race's hierarchical VAE: its likelihood and its bound a second way."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

# isort: split
from race_levels import LEVELS, as_tensor  # noqa: E402

from benchmarks.race import vae  # noqa: E402
from benchmarks.race.contestant import to_levels, to_unit  # noqa: E402


def test_levels_there_and_back():
    torch.testing.assert_close(to_levels(to_unit(LEVELS.view(256, 1, 1, 1))), LEVELS.view(256, 1, 1, 1))


@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -3.0, 0.0, 2.0])
def test_discretized_logistics_sum_to_one(log_scale):
    """Over all levels, wherever the means are."""
    means = torch.linspace(-1.3, 1.3, 40)
    parameters = torch.cat([torch.randn(2, 40), means.flip(0)[None], means[None], torch.full((2, 40), log_scale)])
    x = to_unit(LEVELS.view(256, 1, 1, 1)).expand(256, 1, 1, 40)
    log_probs = vae.mixture_log_prob(parameters[None, :, None].expand(256, -1, -1, -1), x)
    torch.testing.assert_close(
        log_probs.double().exp().sum(0), torch.ones(1, 40, dtype=torch.float64), atol=2e-5, rtol=0
    )


def test_a_discretized_logistic_is_a_difference_of_distribution_functions():
    stats = pytest.importorskip("scipy.stats")
    parameters = torch.tensor([0.0, 0.1, math.log(0.2)]).view(1, 3, 1, 1).expand(256, -1, -1, -1)
    log_probs = vae.mixture_log_prob(parameters, to_unit(LEVELS.view(256, 1, 1, 1))).flatten()
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0] = -np.inf
    edges[-1] = np.inf
    expected = np.diff(stats.logistic(0.1, 0.2).cdf(edges))
    np.testing.assert_allclose(log_probs.exp().numpy(), expected, rtol=2e-4)


def test_samples_of_a_mixture_are_as_frequent_as_it_says():
    parameters = torch.tensor([0.5, -0.5, -0.99, 0.4, math.log(0.01), math.log(0.05)]).view(1, 6, 1, 1)
    drawn = vae.mixture_sample(parameters.expand(1, -1, 200, 200)).flatten().long()
    counts = torch.bincount(drawn, minlength=256)
    x = to_unit(LEVELS.view(256, 1, 1, 1))
    expected = len(drawn) * vae.mixture_log_prob(parameters.expand(256, -1, -1, -1), x).flatten().exp()
    usual = expected > 5.0
    assert ((counts - expected).square() / expected)[usual].sum() < 2.0 * usual.sum()
    assert counts[~usual].sum() < 0.02 * len(drawn)


@pytest.fixture(scope="module")
def small_vae():
    """Away from its initial values, without bfloat16."""
    torch.manual_seed(0)
    model = vae.VAE(widths=(4, 6, 8), groups=(1, 1, 2), latents=(1, 1, 2))
    with torch.no_grad():
        for parameter in model.averaged.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_one_importance_sample_is_the_elbo(small_vae, images, monkeypatch):
    """The mean over draws of log w is the bound with each KL in closed form."""
    monkeypatch.setattr("benchmarks.race.contestant.has_bfloat16", lambda: False)
    x = as_tensor(images[:1]).expand(400, -1, -1, -1)
    with torch.no_grad():
        log_likelihood, kl = small_vae.elbo(x, small_vae.averaged.module)
        differences = small_vae.nats(x, 1) - (kl - log_likelihood)
        assert kl.mean() > 1.0
        assert abs(differences.mean()) < 4.0 * differences.std() / math.sqrt(len(x))
        assert small_vae.nats(x[:100], 8).mean() < small_vae.nats(x[:100], 1).mean()


def test_importance_sampling_finds_the_probability(monkeypatch):
    """Of a model whose image does not depend on the latents, any number of samples does, up to the posterior's cost."""
    monkeypatch.setattr("benchmarks.race.contestant.has_bfloat16", lambda: False)
    model = vae.VAE(widths=(4, 4, 4), groups=(1, 1, 1), latents=(1, 1, 1))
    net = model.averaged.module
    with torch.no_grad():
        for blocks in net.down:
            for group in blocks:
                group.decode.weight.zero_()
                group.posterior[-1].weight.zero_()
                group.prior[-1].weight.zero_()
    x = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        parameters, _ = net(None, 3)
        expected = -vae.mixture_log_prob(parameters, to_unit(x)).flatten(1).sum(1)
        biases = [group.prior[-1].bias.copy_(group.posterior[-1].bias) for blocks in net.down for group in blocks]
        assert len(biases) == 3
        torch.testing.assert_close(model.nats(x, 5), expected, rtol=1e-6, atol=0.0)
