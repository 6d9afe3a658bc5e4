"""Images whose sides differ, 12x20: two steps of training, and what is done with the run, as a user does it."""

import csv
import json
from pathlib import Path

import forking
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_pivae
from tf_pivae.data import save_npz
from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.metrics import images_from_folder
from tf_pivae.metrics.inception import preprocess
from tf_pivae.models.critic import plain_critic, residual_critic
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise

SHAPE = (12, 20, 1)
SHORT = ("--gin_param=num_steps=2", "--gin_param=train.eval_examples=4", "--gin_param=train.sample_every=2")


def ramps(count: int, seed: int) -> np.ndarray:
    """uint8 [count, 12, 20, 1]: brighter to the right, each of its own slope."""
    slopes = np.random.default_rng(seed).uniform(2, 12, [count, 1, 1, 1])
    return np.broadcast_to(slopes * np.arange(20)[:, None], [count, *SHAPE]).astype(np.uint8)


def ok(*command: object) -> str:
    result = forking.run(*map(str, command))
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The flags that name the data."""
    path = tmp_path_factory.mktemp("data") / "ramps.npz"
    save_npz(path, ImageDataset("ramps", *(ImageSplit(ramps(count, seed)) for seed, count in enumerate((16, 8)))))
    return "--gin_param=train.dataset=@npz_images", f"--gin_param=npz_images.path={str(path)!r}"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny: str, source: tuple[str, str]) -> Path:
    """A run whose head has two scales."""
    path = tmp_path_factory.mktemp("runs") / "ramps"
    head = ("--gin_param=RealNVP.num_scales=2", "--gin_param=RealNVP.num_couplings=1")
    ok("train", f"--gin_file={tiny}", *source, *head, *SHORT, f"--run_dir={path}")
    return path


def test_the_run_and_its_pictures(run_dir):
    assert json.loads((run_dir / "data.json").read_text())["image_shape"] == list(SHAPE)
    assert Image.open(run_dir / "samples/000002.png").size == (6 * (3 * 20 + 2) - 2, 6 * (3 * 12 + 2) - 2)  # enlarged
    assert (run_dir / "reconstructions.png").exists()


def test_described_and_prepared(tiny, source):
    assert "12x20x1 images of ramps" in ok("train", f"--gin_file={tiny}", *source, "--describe")
    assert "12x20" in ok("prepare", f"--gin_file={tiny}", *source)


def test_a_size_that_the_strides_do_not_divide(tiny, source, tmp_path):
    widths = "--gin_param=residual_vae.widths=(8,8,8,8)"
    result = forking.run("train", f"--gin_file={tiny}", *source, widths, f"--run_dir={tmp_path}/run", *SHORT)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "images of 12x20 cannot be halved 3 times: 8 must divide both sides. Set pad_to = (16, 24)" in result.stderr
    padded = "--gin_param=npz_images.pad_to=(16, 24)"
    assert "16x24x1 images" in ok("train", f"--gin_file={tiny}", *source, widths, padded, "--describe")


def test_evaluated(run_dir, tmp_path):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    network.save(tmp_path / "net.keras")
    metrics = "--metrics=bits_per_dim,fid", "--importance_samples=2", f"--feature_network={tmp_path / 'net.keras'}"
    table = ok("evaluate", f"--run_dir={run_dir}", *metrics)
    assert "bits/dim, K=1" in table
    assert "Frechet[net]" in table


def test_files_of_samples_and_their_scores(run_dir, tmp_path):
    ok("sample", f"--run_dir={run_dir}", "--num_samples=6", f"--output={tmp_path}/samples/")
    samples = images_from_folder(tmp_path / "samples")
    model = tf_pivae.load(run_dir)
    np.testing.assert_array_equal(samples, model.sample(6, seed=0))
    assert samples.shape == (6, *SHAPE)
    Image.fromarray(samples[0, :, :, 0].T).save(tmp_path / "samples/turned.png")
    files = f"--images={tmp_path}/samples"
    few = ("--num_held_out=8", "--importance_samples=2")
    ok("score", f"--run_dir={run_dir}", files, *few, f"--output={tmp_path}/scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [model.log_prob(image[None], 2)[0] for image in samples]
    np.testing.assert_allclose([float(row["log_prob"]) for row in rows[:6]], own, rtol=1e-4)
    assert [row["problem"] for row in rows if row["problem"]] == ["20x12 becomes 20x12, not 12x20"]
    (tmp_path / "samples/turned.png").unlink()
    for command in ("reconstruct", "interpolate"):
        ok(command, f"--run_dir={run_dir}", files, f"--output={tmp_path}/{command}.npz")
        assert np.load(tmp_path / f"{command}.npz")["images"].shape[1:] == SHAPE


def test_a_page_about_it(run_dir, tmp_path):
    ok("report", f"--run_dir={run_dir}", "--num_examples=4", f"--output={tmp_path}/report.html")
    page = (tmp_path / "report.html").read_text()
    assert "12×20×1" in page or "12x20x1" in page
    assert "Fashion-MNIST" in page, "the other data set is brought to this shape"


VAES = {
    "plain": lambda image_shape, num_classes: plain_vae(image_shape, widths=(6, 8, 8), latent_channels=2),
    "residual": lambda image_shape, num_classes: residual_vae(
        image_shape, stem_width=4, widths=(6, 8, 8), latent_channels=2, posterior=IAFPosterior
    ),
}


@pytest.mark.parametrize("vae", VAES)
def test_both_vaes(vae, randomize):
    model = randomize(PiVAE(SHAPE, vae=VAES[vae]), scale=0.05)
    images = ramps(3, 0)
    assert model.reconstruct(images).shape == model.sample(3, seed=0).shape == (3, *SHAPE)
    result = model.log_prob(images)
    assert len(set(result)) == 3
    latents = [tuple(group.z.shape[1:3]) for group in model.vae.infer(tf.zeros([3, *SHAPE]), RowNoise(0, 3))[0]]
    assert latents[1:] == ([(6, 10), (12, 20)] if vae == "plain" else [(3, 5), (6, 10), (12, 20)])


@pytest.mark.parametrize("make", [plain_critic, residual_critic])
def test_both_critics(make):
    critic = make(widths=(4, 8, 8))
    critic.build(SHAPE)
    images = tf.constant(ramps(3, 0) / np.float32(255))
    np.testing.assert_allclose(critic(images)[1], critic(images[1:2])[0], atol=1e-5)


def test_inputs_of_inception():
    """Both axes are resized on their own, as the graph's bilinear operation does: pixel i looks at i * side / 299."""
    images = np.random.default_rng(0).integers(0, 256, [2, *SHAPE]).astype(np.uint8)

    def interpolated(values: np.ndarray, axis: int) -> np.ndarray:
        side = values.shape[axis]
        places = np.arange(299) * side / 299
        low = places.astype(int)
        high = np.minimum(low + 1, side - 1)
        part = places - low
        shape = [-1 if i == axis else 1 for i in range(4)]
        part = part.reshape(shape)
        return np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part

    expected = interpolated(interpolated(images.astype(np.float64), 1), 2)
    np.testing.assert_allclose(preprocess(tf.constant(images)), (expected.repeat(3, -1) - 128) / 128, atol=1e-4)
