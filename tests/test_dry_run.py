"""`train --dry_run`: everything up to the first step, and not a file."""

import fcntl
import shutil

import gin
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.train import dry_run
from tf_pivae.training.recipe import Recipe


@pytest.fixture(autouse=True)
def _gin(tiny):
    loading.parse_gin([tiny])
    yield
    gin.clear_config()  # Not for the tests of other files.


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_command_says_what_it_would_do_and_writes_nothing(tmp_path, tiny, run_command):
    result = run_command("train", f"--gin_file={tiny}", "--run_dir=run", "--dry_run", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "12 steps, 0 to 12, of 8 images on 1 replica (0.4 passes" in result.stdout
    assert "256 training and 64 test images" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_that_would_be_continued(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    shutil.rmtree(run_dir / "checkpoints/00000012")
    before = contents(tmp_path)
    text = dry_run.rehearse(Recipe(), run_dir)
    assert "4 steps, 8 to 12" in text
    assert "goes on from step 8" in text
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints/00000008/checkpoint"))
    tensors = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map()]
    num_bytes = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, np.ndarray))
    assert f"checkpoints:  {num_bytes / 1e6:.1f} MB each, 3 kept" in text
    assert contents(tmp_path) == before


def test_a_finished_run_has_nothing_to_do(finished):
    before = contents(finished[0])
    assert "none, step 12 of 12 is reached" in dry_run.rehearse(Recipe(), finished[0])
    assert contents(finished[0]) == before


def test_another_configuration_is_refused(finished, tiny, capsys):
    loading.parse_gin([tiny], ["batch_size=4"])
    with pytest.raises(UserError, match="another configuration"):
        dry_run.rehearse(Recipe(), finished[0])
    assert "+batch_size = 4" in capsys.readouterr().out


def test_a_run_that_another_process_holds(finished, tmp_path):
    (tmp_path / "lock").touch()
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            dry_run.rehearse(Recipe(), tmp_path)


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a folder that can be written"):
        dry_run.rehearse(Recipe(), tmp_path / "file" / "run")


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"checkpoints need 0\.00 GB"):
        dry_run.rehearse(Recipe(), tmp_path / "run")


def test_images_that_are_not_prepared_yet(tmp_path, tiny):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.full([16, 16, 3], i, np.uint8)).save(folder / f"{i}.png")
    cache = tmp_path / "cache"
    parameters = [f"image_folder.path='{folder}'", f"image_folder.cache_dir='{cache}'", "image_folder.image_size=16"]
    loading.parse_gin([tiny], ["train.dataset=@image_folder", *parameters])
    before = contents(tmp_path)
    text = dry_run.rehearse(Recipe(), tmp_path / "run")
    assert text.startswith("would prepare images first")
    assert "16x16x3, up to 3 training and 1 test images\n" in text
    assert contents(tmp_path) == before
    from tf_pivae.loading import configured_dataset

    configured_dataset([tiny], ["train.dataset=@image_folder", *parameters])
    assert "16x16x3, 3 training and 1 test images\n" in dry_run.rehearse(Recipe(), tmp_path / "run")
    assert Checkpoints(tmp_path / "run/checkpoints").steps() == []
    assert not (tmp_path / "run").exists()


def test_a_download_that_nobody_has_made_is_counted(tmp_path, monkeypatch):
    """The network knows better, but is not asked: the file says how many images there will be."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    loading.parse_gin(
        ["cifar.gin"], ["RealNVP.width=8", "residual_vae.widths=(8, 8, 8)", f"tfds_images.cache_dir='{tmp_path}'"]
    )
    assert "cifar10, 32x32x3, up to 50,000 training and 10,000 test images\n" in dry_run.rehearse(
        Recipe(), tmp_path / "run"
    )
