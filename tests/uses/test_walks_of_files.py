"""Reconstructions of one's own files, and walks between them: those of the model's methods."""

import os

import numpy as np
import pytest
from PIL import Image

import tf_pivae
from tf_pivae.data import bundled
from tf_pivae.errors import UserError
from tf_pivae.figures import image_grid, reconstruction_grid
from tf_pivae.metrics import images_from_folder
from tf_pivae.uses import interpolate, reconstruct


@pytest.fixture(scope="module")
def images():
    return bundled(16).test.images[:6]


@pytest.fixture
def folder(tmp_path, images):
    (tmp_path / "own").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"own/{'abcdef'[i]} 1.png")
    return tmp_path / "own"


def close(actual, expected):
    """Equal but for the rounding of a level: another graph, or another batch, computes the same."""
    assert np.abs(np.asarray(actual, int) - np.asarray(expected, int)).max() <= 1


def test_reconstructions(tmp_path, folder, images, small_run, small_model):
    expected = small_model.reconstruct(images, seed=4)
    assert reconstruct(small_run, folder, tmp_path / "grid.png", seed=4) == 12
    close(Image.open(tmp_path / "grid.png"), reconstruction_grid(images, expected))
    reconstruct(small_run, folder, f"{tmp_path}/out/", seed=4)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == [f"{i:06d}_{'abcdef'[i]}_1.png" for i in range(6)]
    close(images_from_folder(tmp_path / "out"), expected)
    np.savez(tmp_path / "own.npz", images)  # Without a name, as other programs do.
    reconstruct(small_run, tmp_path / "own.npz", tmp_path / "out.npz", seed=4)
    close(np.load(tmp_path / "out.npz")["images"], expected)


def test_walks(tmp_path, folder, images, small_run, small_model):
    expected = small_model.interpolate(images[0::2], images[1::2], steps=5, seed=4).reshape(-1, *images.shape[1:])
    interpolate(small_run, folder, tmp_path / "grid.png", steps=5, seed=4)
    close(Image.open(tmp_path / "grid.png"), image_grid(expected, columns=5))
    interpolate(small_run, folder, f"{tmp_path}/out/", steps=5, seed=4)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == [f"{i:06d}_walk{i // 5}.png" for i in range(15)]
    close(images_from_folder(tmp_path / "out"), expected)


@pytest.mark.parametrize(("function", "size"), [(reconstruct, 1), (interpolate, 2)])
def test_images_have_the_noise_of_their_place(tmp_path, folder, small_run, function, size, monkeypatch):
    """In batches of two as in one of six."""
    from tf_pivae.uses import walks

    function(small_run, folder, tmp_path / "whole.npz")
    monkeypatch.setattr(walks, "_BATCH", 2)
    function(small_run, folder, tmp_path / "parts.npz")
    close(np.load(tmp_path / "parts.npz")["images"], np.load(tmp_path / "whole.npz")["images"])


@pytest.mark.parametrize("function", [reconstruct, interpolate])
def test_other_images_of_the_same_names_are_other_images(tmp_path, folder, images, small_run, function):
    function(small_run, folder, f"{tmp_path}/out/", seed=np.int64(4))
    function(small_run, folder, f"{tmp_path}/out/", seed=4)  # There already.
    Image.fromarray(images[3, ..., 0]).save(folder / "a 1.png")
    os.utime(folder / "a 1.png", ns=(0, 0))  # However coarse the disk's clock.
    with pytest.raises(UserError, match=r"was started with contents of the images = .*choose another --output"):
        function(small_run, folder, f"{tmp_path}/out/", seed=4)


def test_mistakes(tmp_path, folder, small_run):
    with pytest.raises(UserError, match="must be at least 2"):
        interpolate(small_run, folder, tmp_path / "x.png", steps=1)
    with pytest.raises(ValueError, match="`steps` must be a whole number; got '3'"):
        interpolate(small_run, folder, tmp_path / "x.png", steps="3")
    for output in (folder / "x.png", f"{folder}/out/", folder / "../own/x.npz"):
        with pytest.raises(UserError, match=r"would lie among the images of .*own: choose another folder"):
            reconstruct(small_run, folder, output)
    (folder / "c 1.png").unlink()
    with pytest.raises(UserError, match="has 5 images, but pairs are needed: give an even number"):
        interpolate(small_run, folder, tmp_path / "x.png")
    (folder / "c.png").write_bytes(b"no image")
    for output in (f"{tmp_path}/out/", tmp_path / "x.png", tmp_path / "x.npz"):
        with pytest.raises(UserError, match=r"c\.png cannot be used \(not an image\): repair or remove it"):
            reconstruct(small_run, folder, output)
    assert [path.name for path in tmp_path.iterdir()] == ["own"], "nothing is left behind"


def test_commands(tmp_path, folder, small_run, run_command):
    flags = [f"--run_dir={small_run}", f"--images={folder}"]
    for command, output, size in (("reconstruct", "reconstructions.png", (8, 2)), ("interpolate", "walks.png", (8, 3))):
        result = run_command(command, *flags, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{folder} by {small_run} at step 12: {output}\n"
        assert Image.open(tmp_path / output).size == tuple((4 * 16 + 2) * side - 2 for side in size)
    result = run_command("reconstruct", *flags, "--output=x.jpg", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: --output=x.jpg: images are written as PNG; call it x.png, x/ or x.npz.\n"


def test_a_walk_stays_in_a_class(tmp_path, conditional_run):
    model = tf_pivae.load(conditional_run)
    images = model.sample(4, labels=[0, 0, 1, 1])
    np.savez(tmp_path / "own.npz", images=images, labels=[3, 3, 0, 1])
    message = "images 2 and 3, the ends of a walk, are of the classes 0 and 1: a walk stays in one"
    with pytest.raises(UserError, match=message):
        interpolate(conditional_run, tmp_path / "own.npz", tmp_path / "x.npz")
    np.savez(tmp_path / "own.npz", images=images, labels=[3, 3, 1, 1])
    interpolate(conditional_run, tmp_path / "own.npz", tmp_path / "x.npz", steps=2)
    expected = model.interpolate(images[0::2], images[1::2], 2, 0, [3, 1])
    close(np.load(tmp_path / "x.npz")["images"], expected.reshape(images.shape))
