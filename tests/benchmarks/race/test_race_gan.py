"""The race's GAN: norms of its critic, who moves in which step."""

import pytest

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

# isort: split
from race_levels import as_tensor  # noqa: E402

from benchmarks.race import gan  # noqa: E402


def test_the_critic_s_layers_have_norm_one():
    torch.manual_seed(0)
    critic = gan.critic(4)
    for _ in range(30):
        critic(torch.randn(2, 1, 28, 28))
    kernels = [layer.weight.detach().flatten(1) for layer in critic if hasattr(layer, "weight")]
    norms = [float(torch.linalg.matrix_norm(kernel, 2)) for kernel in kernels]
    assert norms == pytest.approx(6 * [1.0], abs=2e-4)


def test_a_step_of_the_generator_leaves_the_critic_alone(images, monkeypatch):
    model = gan.GAN(8, 4)
    for optimizer, moved, left in ((0, model.generator, model.critic), (1, model.critic, model.generator)):
        for group in model.optimizers[optimizer].param_groups:
            group["lr"] = 1e-3
        for group in model.optimizers[1 - optimizer].param_groups:
            group["lr"] = 0.0
        before = [[p.clone() for p in net.parameters()] for net in (moved, left)]
        model.train_step(as_tensor(images), 0.5)
        assert any((a != b).any() for a, b in zip(before[0], moved.parameters(), strict=True))
        assert all((a == b).all() for a, b in zip(before[1], left.parameters(), strict=True))
