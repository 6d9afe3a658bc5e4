"""The `prepare` command as a user runs it."""

import fcntl
import logging
import os
import struct
import subprocess
import termios

import forking
import numpy as np
import pytest
from PIL import Image

from tf_pivae.errors import UserError


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def run(tmp_path, *arguments):
    environment = {**os.environ, "TF_PIVAE_CACHE": str(tmp_path / "cache")}
    return forking.run("prepare", *arguments, env=environment)


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
    assert all(line.startswith("photos: ") for line in first.stderr.splitlines()), first.stderr  # No prefix, no bar.
    folder = first.stdout.split("where:")[1].strip()
    assert np.load(os.path.join(folder, "train_images.npy"), allow_pickle=False).shape == (3, 16, 16, 3)
    # A second run finds it; a parameter names another.
    assert run(tmp_path, f"--gin_file={config}").stdout == first.stdout
    other = run(tmp_path, f"--gin_file={config}", "--gin_param=image_folder.image_size=8")
    assert other.stdout.split("where:")[1].strip() != folder


def test_space_is_told_before_a_progress_bar_starts(tmp_path, images):
    """On a terminal, which a pseudo-terminal is."""
    config = tmp_path / "photos.gin"
    config.write_text(
        f"train.dataset = @image_folder\nimage_folder.path = '{images}'\nimage_folder.image_size = 16\n"
        "image_folder.test_fraction = 0.5\n"
    )
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # Without a width no bar is drawn.
    environment = {**os.environ, "TF_PIVAE_CACHE": str(tmp_path / "cache")}
    streams = dict(stdout=subprocess.PIPE, stderr=follower, env=environment)
    with forking.Popen("prepare", f"--gin_file={config}", **streams) as process:
        os.close(follower)
        process.communicate(timeout=120)
    assert process.returncode == 0
    output = ""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # How a pseudo-terminal ends.
            break
        if not part:
            break
        output += part.decode()
    os.close(leader)
    needed = 6 * (16 * 16 * 3 + 8) / 1e6
    space = output.index(f"preparing {needed:.1f} MB in {tmp_path / 'cache'}")
    bar = output.index("photos train:")
    assert space < bar
    assert "MB free" in output[space:bar]
    assert "3/3" in output[bar:]


def test_a_download_is_announced_with_its_space(tmp_path, monkeypatch, caplog):
    """Through a shipped fragment, up to where the network would be needed."""
    from tf_pivae import loading
    from tf_pivae.data import tfds_source

    def unreachable(*_, **__):
        raise OSError("the network is down")

    monkeypatch.setattr(tfds_source.socket, "getaddrinfo", unreachable)
    folders = [f"tfds_images.data_dir={tmp_path / 'tfds'}", f"tfds_images.cache_dir={tmp_path / 'cache'}"]
    with caplog.at_level(logging.INFO, logger="tf_pivae.data"), pytest.raises(UserError, match="no network"):
        loading.configured_dataset(["datasets/cifar10.gin"], folders)
    (line,) = [record.getMessage() for record in caplog.records if "downloading" in record.getMessage()]
    assert f"to {tmp_path / 'tfds'}" in line
    assert "MB free" in line
    assert "Unknown" not in line


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
