"""The `prepare` command as a user runs it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def run(tmp_path, *arguments):
    environment = {**os.environ, "TF_PIVAE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "tf_pivae.prepare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_prepares_the_data_set_of_the_configuration(tmp_path, images):
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    config = tmp_path / "photos.gin"
    config.write_text(
        f"train.dataset = @image_folder\nimage_folder.path = '{images}'\nimage_folder.image_size = 16\n"
        "image_folder.test_fraction = 0.5\n"
    )
    first = run(tmp_path, f"--gin_file={config}")
    assert first.returncode == 0, first.stderr
    assert "16x16, 3 channels" in first.stdout
    assert "3 training, 3 test" in first.stdout
    assert "broken.png" in first.stderr
    assert "free" in first.stderr
    folder = first.stdout.split("where:")[1].strip()
    assert np.load(os.path.join(folder, "train_images.npy"), allow_pickle=False).shape == (3, 16, 16, 3)
    # A second run finds it; a parameter names another.
    assert run(tmp_path, f"--gin_file={config}").stdout == first.stdout
    other = run(tmp_path, f"--gin_file={config}", "--gin_param=image_folder.image_size=8")
    assert other.stdout.split("where:")[1].strip() != folder


def test_mistakes_are_one_line(tmp_path):
    config = tmp_path / "photos.gin"
    config.write_text("train.dataset = @image_folder\nimage_folder.path = 'nowhere'\nimage_folder.image_size = 16\n")
    missing = run(tmp_path, f"--gin_file={config}")
    assert missing.returncode == 2
    assert "there is no folder" in missing.stderr
    assert missing.stderr.count("error: ") == 1
    assert "Traceback" not in missing.stderr
    config.write_text("image_folder.path = 'nowhere'\n")
    unbound = run(tmp_path, f"--gin_file={config}")
    assert unbound.returncode == 2
    assert "names no data set" in unbound.stderr
