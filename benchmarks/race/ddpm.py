"""A small DDPM (Ho et al. 2020): cosine schedule (Nichol and Dhariwal 2021), sampled by DDIM (Song et al. 2021)."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.race.contestant import SIDE, TorchContestant, average, mixed_precision, to_levels, to_unit
from benchmarks.race.measuring import Bound

STEPS = 1000  # T
_HALF_BIN = 1.0 / 255.0


class Block(nn.Module):
    """A residual block that is told the time."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(time, 2 * outputs)
        self.norm = nn.GroupNorm(8, outputs)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        nn.init.zeros_(self.second[1].weight)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.second(self.norm(self.first(x)) * (1.0 + scale) + shift)


class Attention(nn.Module):
    """Self-attention over the pixels of a small image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.inputs = nn.Conv2d(width, 3 * width, 1)
        self.output = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.inputs(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        y = F.scaled_dot_product_attention(query, key, value).squeeze(1).transpose(1, 2)
        return x + self.output(y.reshape(x.shape))


class UNet(nn.Module):
    """(x [B, 1, 28, 28], t [B]) -> the noise in x."""

    def __init__(self, widths: tuple) -> None:
        super().__init__()
        first, middle, last = widths
        time = 4 * first
        self.register_buffer("frequencies", torch.exp(torch.linspace(0.0, -math.log(10000.0), first // 2)))
        self.time = nn.Sequential(nn.Linear(first, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.enter = nn.Conv2d(1, first, 3, padding=1)
        self.down = nn.ModuleList([Block(first, first, time), Block(first, middle, time), Block(middle, last, time)])
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for width in (first, middle))
        self.middle = nn.ModuleList([Block(last, last, time), Attention(last), Block(last, last, time)])
        self.up = nn.ModuleList(
            [Block(2 * last, middle, time), Block(2 * middle, first, time), Block(2 * first, first, time)]
        )
        self.leave = nn.Sequential(nn.GroupNorm(8, first), nn.SiLU(), nn.Conv2d(first, 1, 3, padding=1))
        nn.init.zeros_(self.leave[-1].weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.enter(x)
        skips = []
        for i, block in enumerate(self.down):
            h = block(h, time)
            skips.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        before, attention, after = self.middle
        h = after(attention(before(h, time)), time)
        for i, block in enumerate(self.up):
            if i:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = block(torch.cat([h, skips.pop()], 1), time)
        return self.leave(h)


def cosine_schedule() -> Tensor:
    """alpha-bar, the share of the image's variance in x_t: float64 [T + 1], for t = 0, where it is 1, to T."""
    t = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    shares = torch.cos((t + 0.008) / 1.008 * math.pi / 2.0) ** 2
    step_shares = (shares[1:] / shares[:-1]).clamp(min=1e-3)  # 1 - beta
    return torch.cat([torch.ones(1, dtype=torch.float64), step_shares.cumprod(0)])


def strata(count: int) -> list[tuple[int, int]]:
    """Cuts the times 2 to T into `count` spans (first, last), narrow where t is small and terms are large."""
    edges = sorted({2 + math.ceil((STEPS - 1) * (i / count) ** 2) for i in range(count + 1)})
    return [(first, after - 1) for first, after in itertools.pairwise(edges)]


def gaussian_bin_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log P of levels `x` (those of `to_unit`) under a Gaussian; the bins at the ends reach to infinity. nats."""
    upper = torch.special.log_ndtr((x - mean + _HALF_BIN) / std)
    lower = torch.special.log_ndtr((mean - x + _HALF_BIN) / std)
    # Phi(a) - Phi(b) = Phi(a) + Phi(-b) - 1, of bins above the mean as of their mirror images below it.
    inner = (x - mean).abs()
    near = torch.special.log_ndtr((_HALF_BIN - inner) / std)
    far = torch.special.log_ndtr((-_HALF_BIN - inner) / std)
    middle = near + torch.log(-torch.expm1(far - near))
    return torch.where(x < -0.999, upper, torch.where(x > 0.999, lower, middle))


class DDPM(TorchContestant):
    """Its bound: the terms of equation (5) of Ho et al., with the posterior's variances and a discretised decoder."""

    tuned = "Adam, 1e-3; loss of the noise alone; average 0.999; bfloat16"

    def __init__(self, widths: tuple = (32, 64, 96), evaluations: int = 50) -> None:
        super().__init__()
        self.evaluations = evaluations
        self.title = f"DDPM, {evaluations} evaluations a sample"
        self.net = UNet(widths).to(memory_format=torch.channels_last)
        self.averaged = average(self.net)
        self.shares = cosine_schedule()
        self.optimizers = [torch.optim.Adam(self.net.parameters(), 1e-3)]

    def train_step(self, images: Tensor, fraction: float) -> Tensor:
        x = to_unit(images)
        t = 1 + ((torch.rand(1) + torch.arange(len(x)) / len(x)) % 1.0 * STEPS).long()
        noise = torch.randn_like(x)
        with mixed_precision():
            predicted = self.net(self.diffuse(x, t, noise), t)
        return self.descend(F.mse_loss(predicted.float(), noise), self.net, clip=1.0)

    def diffuse(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of images [B, 1, H, W]."""
        share = self.shares[t][:, None, None, None]
        return share.sqrt().float() * x + (1.0 - share).sqrt().float() * noise

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The images that the averaged net sees in x_t, in [-1, 1]."""
        share = self.shares[t][:, None, None, None]
        with mixed_precision():
            noise = self.averaged(x_t, t).float()
        return ((x_t - (1.0 - share).sqrt().float() * noise) / share.sqrt().float()).clamp(-1.0, 1.0)

    def draw(self, count: int) -> Tensor:
        x = torch.randn(count, 1, SIDE, SIDE)
        times = torch.linspace(STEPS, 0, self.evaluations + 1).round().long()
        for now, then in itertools.pairwise(times):
            clean = self.denoise(x, now.expand(count))
            noise = (x - self.shares[now].sqrt().float() * clean) / (1.0 - self.shares[now]).sqrt().float()
            x = self.diffuse(clean, then.expand(count), noise)
        return to_levels(x)

    def nats(self, images: Tensor, terms: int = 32) -> Tensor:
        """The bound, [B], its terms from t = 2 on estimated by one t of each of so many spans; all for T - 1."""
        x = to_unit(images)
        last = self.shares[-1]
        prior = 0.5 * (last * x.double().square() - last - torch.log1p(-last)).flatten(1).sum(1)
        total = prior + self.term(x, torch.ones(len(x), dtype=torch.long))
        for first, final in strata(terms) if terms < STEPS - 1 else [(t, t) for t in range(2, STEPS + 1)]:
            t = torch.randint(first, final + 1, [len(x)])
            total = total + (final + 1 - first) * self.term(x, t)
        return total

    def term(self, x: Tensor, t: Tensor) -> Tensor:
        """For t = 1 (all of them, or none), -log P(x | x_1); else the KL of q(x_{t-1} | x_t, x) from the model's."""
        clean = self.denoise(self.diffuse(x, t, torch.randn_like(x)), t)
        if t[0] == 1:
            return -gaussian_bin_log_prob(x, clean, (1.0 - self.shares[1]).sqrt().float()).flatten(1).sum(1)
        before = self.shares[t - 1]
        now = self.shares[t]
        falls = before / (1.0 - before) - now / (1.0 - now)  # Of the ratio of signal to noise.
        return 0.5 * falls * (x - clean).double().square().flatten(1).sum(1)

    def bounds(self) -> list[Bound]:
        return [Bound(f"{STEPS} evaluations", self.bits(self.nats), self.bits(self.nats, terms=STEPS - 1))]
