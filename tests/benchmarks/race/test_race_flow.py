"""The race's Glow: its inverse, its density by the Jacobian, its bits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")


@pytest.fixture(scope="module")
def small_flow():
    """A Glow of 4x4 images in float64, away from its initial values."""
    flow = pytest.importorskip("benchmarks.race.flow", reason="normflows (the extra `bench`)")
    torch.manual_seed(0)
    net = flow.glow(side=4, depth=2, width=8).double()
    net.log_prob(torch.rand(64, 1, 4, 4, dtype=torch.float64), None)  # Initialises its normalisation.
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def test_the_flow_is_inverted(small_flow):
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    latents, log_det = small_flow.inverse_and_log_det(x)
    back, log_det_back = small_flow.forward_and_log_det(latents)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)


def test_the_flow_s_density_is_that_of_its_jacobian(small_flow):
    """Of all 16 pixels, the logit among what is differentiated."""
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64)

    def latents(x):
        return torch.cat([z.flatten() for z in small_flow.inverse_and_log_det(x.clone())[0]])

    jacobian = torch.autograd.functional.jacobian(latents, x).reshape(16, 16)
    z = small_flow.inverse_and_log_det(x.clone())[0]
    base = sum(
        torch.distributions.Normal(q.loc, q.log_scale.exp()).log_prob(values).sum()
        for q, values in zip(small_flow.q0, z, strict=True)
    )
    expected = base + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(small_flow.log_prob(x.clone(), None)[0], expected)


def test_the_flow_s_bits_are_per_pixel_and_level(images):
    """The density of 256 levels of a uniform one is 8 bits a pixel: alpha's logit, undone, costs what it costs."""
    flow = pytest.importorskip("benchmarks.race.flow", reason="normflows (the extra `bench`)")
    glow = flow.Glow(depth=1, width=8)
    glow.averaged.module.log_prob = lambda x, y: torch.zeros(len(x))  # A density of 1 on [0, 1].
    (bound,) = glow.bounds()
    np.testing.assert_allclose(bound.bits(images[:3], 0), 8.0)


def drawing(*batches):
    """A Glow whose draws are the rows' grey values."""
    flow = pytest.importorskip("benchmarks.race.flow", reason="normflows (the extra `bench`)")
    glow = flow.Glow(depth=1, width=8)
    draws = iter(torch.tensor(batches)[:, :, None, None, None].expand(-1, -1, 1, 28, 28))
    glow.averaged.module.sample = lambda count: (next(draws), None)
    return glow


def test_samples_that_are_not_finite_are_drawn_again():
    glow = drawing([0.1, float("nan"), 0.3], [float("inf"), float("nan"), float("nan")], [0.5, 1.2, 0.7])
    samples = glow.sample(3, seed=0)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples[:, 0, 0, 0], [25, 76, 128])


def test_a_flow_without_finite_samples_says_so():
    with pytest.raises(FloatingPointError, match="of 300 samples 1 are finite"):
        drawing([0.1, float("nan"), float("nan")], *[[float("nan")] * 3] * 99).sample(3, seed=0)
