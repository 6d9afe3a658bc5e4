"""Reconstructions of one's own files, and walks between them: those of the model's methods."""

import numpy as np
import pytest
from PIL import Image
from shipped import HEIGHT, RUN, STEP, held_out

from tf_pivae.errors import UserError
from tf_pivae.figures import image_grid, reconstruction_grid
from tf_pivae.metrics import images_from_folder
from tf_pivae.uses import interpolate, reconstruct


@pytest.fixture(scope="module")
def images():
    return held_out()[:6]


@pytest.fixture
def folder(tmp_path, images):
    (tmp_path / "own").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"own/{'abcdef'[i]} 1.png")
    return tmp_path / "own"


def close(actual, expected):
    """Equal but for the rounding of a level: another graph, or another batch, computes the same."""
    assert np.abs(np.asarray(actual, int) - np.asarray(expected, int)).max() <= 1


def test_reconstructions(tmp_path, folder, images, packaged):
    expected = packaged.reconstruct(images, seed=4)
    assert reconstruct(RUN, folder, tmp_path / "grid.png", seed=4) == STEP
    close(Image.open(tmp_path / "grid.png"), reconstruction_grid(images, expected))
    reconstruct(RUN, folder, f"{tmp_path}/out/", seed=4)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == [f"{i:06d}_{'abcdef'[i]}_1.png" for i in range(6)]
    close(images_from_folder(tmp_path / "out"), expected)
    np.savez(tmp_path / "own.npz", images)  # Without a name, as other programs do.
    reconstruct(RUN, tmp_path / "own.npz", tmp_path / "out.npz", seed=4)
    close(np.load(tmp_path / "out.npz")["images"], expected)


def test_walks(tmp_path, folder, images, packaged):
    expected = packaged.interpolate(images[0::2], images[1::2], steps=5, seed=4).reshape(-1, *images.shape[1:])
    interpolate(RUN, folder, tmp_path / "grid.png", steps=5, seed=4)
    close(Image.open(tmp_path / "grid.png"), image_grid(expected, columns=5))
    interpolate(RUN, folder, f"{tmp_path}/out/", steps=5, seed=4)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == [f"{i:06d}_walk{i // 5}.png" for i in range(15)]
    close(images_from_folder(tmp_path / "out"), expected)


@pytest.mark.parametrize(("function", "size"), [(reconstruct, 1), (interpolate, 2)])
def test_images_have_the_noise_of_their_place(tmp_path, folder, function, size, monkeypatch):
    """In batches of two as in one of six."""
    from tf_pivae.uses import walks

    function(RUN, folder, tmp_path / "whole.npz")
    monkeypatch.setattr(walks, "_BATCH", 2)
    function(RUN, folder, tmp_path / "parts.npz")
    close(np.load(tmp_path / "parts.npz")["images"], np.load(tmp_path / "whole.npz")["images"])


def test_mistakes(tmp_path, folder):
    with pytest.raises(UserError, match="a walk has at least 2 images"):
        interpolate(RUN, folder, tmp_path / "x.png", steps=1)
    (folder / "c 1.png").unlink()
    with pytest.raises(UserError, match="has 5 images, which are taken two by two: add or remove one"):
        interpolate(RUN, folder, tmp_path / "x.png")
    (folder / "c.png").write_bytes(b"no image")
    for output in (f"{tmp_path}/out/", tmp_path / "x.png", tmp_path / "x.npz"):
        with pytest.raises(UserError, match=r"c\.png cannot be used \(not an image\): repair or remove it"):
            reconstruct(RUN, folder, output)
    assert [path.name for path in tmp_path.iterdir()] == ["own"], "nothing is left behind"


def test_commands(tmp_path, folder, run_command):
    flags = [f"--run_dir={RUN}", f"--images={folder}"]
    for command, output, size in (("reconstruct", "reconstructions.png", (8, 2)), ("interpolate", "walks.png", (8, 3))):
        result = run_command(command, *flags, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{folder} by fashion_mnist at step {STEP}: {output}\n"
        assert Image.open(tmp_path / output).size == tuple((2 * HEIGHT + 2) * side - 2 for side in size)
    result = run_command("reconstruct", *flags, "--output=x.jpg", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: --output=x.jpg: images are written as PNG; call it x.png, x/ or x.npz.\n"
