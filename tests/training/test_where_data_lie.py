"""A run that was copied to another machine: the message names a flag, and that flag says where its images lie."""

import shutil
from pathlib import Path

import forking
import numpy as np
import pytest

from tf_pivae import loading
from tf_pivae.errors import UserError


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, plain: str) -> tuple[Path, Path]:
    """A run of two steps whose images have moved: its folder, and where they lie now."""
    folder = tmp_path_factory.mktemp("copied")
    images = np.random.default_rng(0).integers(0, 256, [20, 16, 16, 1], dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    flags = ["--gin_param=train.dataset=@npz_images", f"--gin_param=npz_images.path={str(folder / 'images.npz')!r}"]
    steps = ["--gin_param=num_steps=2", "--gin_param=train.eval_examples=2"]
    result = forking.run("train", f"--gin_file={plain}", *flags, *steps, f"--run_dir={folder}/run")
    assert result.returncode == 0, result.stderr
    (folder / "moved").mkdir()
    return folder / "run", Path(shutil.move(folder / "images.npz", folder / "moved/images.npz"))


def test_the_flag_that_the_message_names(copied):
    run_dir, now = copied
    command = "evaluate", f"--run_dir={run_dir}", "--num_examples=2", "--importance_samples=1"
    failure = forking.run(*command)
    assert failure.returncode == 2
    assert failure.stderr.count("\n") == 1
    flag = "--gin_param=npz_images.path="
    assert f"{run_dir.parent}/images.npz" in failure.stderr
    assert flag in failure.stderr
    result = forking.run(*command, f"{flag}{now}")
    assert result.returncode == 0, result.stderr
    assert "bits/dim" in result.stdout


def test_in_python_and_only_places(copied):
    run_dir, now = copied
    with loading.data_at(f"npz_images.path={now}"):
        assert len(loading.load_dataset(run_dir).train) == 18
    with pytest.raises(UserError, match=r"say where: --gin_param=npz_images\.path="):
        loading.load_dataset(run_dir)
    with pytest.raises(UserError, match="it may only say where the data lie"), loading.data_at("num_steps=3"):
        pass


def test_images_of_another_shape_are_not_the_runs(copied, plain, tmp_path):
    """Neither for an evaluation nor for a training that goes on: the path alone may change."""
    run_dir, _ = copied
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros([20, 8, 8, 1], np.uint8))
    with (
        loading.data_at(f"npz_images.path={other}"),
        pytest.raises(UserError, match=r"of the shape \[8, 8, 1\], but .* was trained on \[16, 16, 1\]\.$"),
    ):
        loading.load_dataset(run_dir)
    before = (run_dir / "data.json").read_text()
    flags = ["--gin_param=train.dataset=@npz_images", f"--gin_param=npz_images.path={str(other)!r}"]
    steps = ["--gin_param=num_steps=5", "--gin_param=train.eval_examples=2", "--gin_param=train.critic=None"]
    shutil.copytree(run_dir, tmp_path / "run")
    result = forking.run("train", f"--gin_file={plain}", *flags, *steps, f"--run_dir={tmp_path}/run")
    assert result.returncode == 2, result.stdout
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "run/data.json").read_text() == before


def test_training_goes_on_with_them(copied, plain):
    run_dir, now = copied
    flags = ["--gin_param=train.dataset=@npz_images", f"--gin_param=npz_images.path={str(now)!r}"]
    steps = ["--gin_param=num_steps=3", "--gin_param=train.eval_examples=2"]
    result = forking.run("train", f"--gin_file={plain}", *flags, *steps, f"--run_dir={run_dir}")
    assert result.returncode == 0, result.stderr
    assert f"npz_images.path: '{run_dir.parent}/images.npz' -> '{now}'" in result.stdout
