"""Published models: the run's own numbers from a fraction of its files; those that come with the package."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_pivae
from tf_pivae import loading
from tf_pivae.data import bundled
from tf_pivae.errors import UserError
from tf_pivae.models.pivae import PiVAE
from tf_pivae.publish.folder import publish
from tf_pivae.report.run import read_runs
from tf_pivae.runs import pretrained, records
from tf_pivae.runs.weights import restore_critic

SHIPPED = "fashion_mnist", "people"


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """A run with an evaluation of its last step, and the folder made of it."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished[0], run_dir)
    row = dict(metric="bits/dim, K=1", value=7.25, spread=0.125, protocol="32 test images", approximate=False)
    (run_dir / "evaluation.json").write_text(json.dumps({"step": 12, "rows": [row], "refused": []}))
    folder = tmp_path_factory.mktemp("published") / "tiny"
    assert publish(run_dir, folder) == 12
    return run_dir, folder


def test_the_published_model_is_the_runs(published):
    run_dir, folder = published
    images = bundled(16).test.images[:8]
    model = tf_pivae.load(run_dir)
    copy = tf_pivae.load(folder)
    np.testing.assert_array_equal(model.log_prob(images, 2), copy.log_prob(images, 2))
    np.testing.assert_array_equal(model.sample(4, seed=3), copy.sample(4, seed=3))


def test_the_critic_comes_along(published):
    critics = []
    for folder in published:
        critic = loading.recipe_of(folder).critic()
        critic.build([16, 16, 1])
        assert restore_critic(folder, critic, 12) is None
        critics.append(critic.get_weights())
    for ours, theirs in zip(*critics, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_holds_the_weights_alone(published):
    run_dir, folder = published
    names = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
    assert names == {"config.gin", "data.json", "environment.json", "evaluation.json", "checkpoints", "model_card.md"}

    def size(path):
        return sum(file.stat().st_size for file in (path / "checkpoints/00000012").iterdir())

    assert size(folder) < size(run_dir) / 3  # Generator, average and two moments of each weight, and the critic's.


def test_the_card_says_what_the_run_says(published):
    _, folder = published
    card = (folder / "model_card.md").read_text()
    model = tf_pivae.load(folder)
    weights = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert card.startswith("# tiny\n")
    assert f"**Weights**: {weights:,}" in card
    assert "16x16x1, 256 levels" in card
    assert "12 steps of 8 images by likelihood and by an adversary; the weights are their moving average" in card
    assert "| bits/dim, K=1 | 7.2500 | 0.1250 | 32 test images |" in card
    assert records.load_environments(folder)[-1]["processor"] in card


def test_an_adversary_without_a_weight_is_none(published, tmp_path):
    """For the card and for the report alike."""
    run_dir = tmp_path / "run"
    shutil.copytree(published[0], run_dir)
    assert read_runs([run_dir])[0].adversary
    config = (run_dir / "config.gin").read_text()
    (run_dir / "config.gin").write_text(re.sub(r"(?m)^adversarial_weight = .*", "adversarial_weight = 0.0", config))
    assert not read_runs([run_dir])[0].adversary
    publish(run_dir, tmp_path / "model")
    assert "images by likelihood; the weights are" in (tmp_path / "model/model_card.md").read_text()


def test_an_evaluation_of_another_step_is_not_the_models(published, tmp_path):
    run_dir, _ = published
    publish(run_dir, tmp_path / "early", step=8)
    assert "It was not evaluated." in (tmp_path / "early/model_card.md").read_text()
    assert not (tmp_path / "early/evaluation.json").exists()


@pytest.mark.parametrize("text", ['{"rows": ', "[]", "{}"])
def test_damaged_records_are_named(text, tmp_path):
    for name in ("evaluation.json", "data.json", "config.gin"):
        (tmp_path / name).write_text(text)
    for step in (None, 12):
        with pytest.raises(UserError, match=r"evaluation.json is damaged: remove it, then evaluate again\.$"):
            records.load_evaluation(tmp_path, step)
    with pytest.raises(UserError, match=r"data.json is damaged: remove it, then the command .* writes it again\.$"):
        records.load_facts(tmp_path)


def test_nothing_is_overwritten_or_left_half_written(published, tmp_path):
    run_dir, folder = published
    with pytest.raises(UserError, match="exists already"):
        publish(run_dir, folder)
    with pytest.raises(UserError, match="no run in"):
        publish(tmp_path, tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        publish(run_dir, tmp_path / "file" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("part", ["weights", "bounds"])
def test_a_model_that_has_diverged_is_not_published(published, tmp_path, monkeypatch, part):
    """Its weights are numbers, but its samples are not; or its bounds alone."""

    def diverged(*arguments):
        model, step = load(*arguments)
        for variable in model.variables if part == "weights" else ():
            variable.assign(np.full(variable.shape, 1e30, np.float32))
        return model, step

    load = loading.load_with_step
    monkeypatch.setattr(loading, "load_with_step", diverged)
    if part == "bounds":
        monkeypatch.setattr(PiVAE, "log_prob", lambda self, images, **_: np.full(len(images), np.nan))
    with pytest.raises(UserError, match=r"has diverged at step 12: publish an earlier checkpoint by --step\.$"):
        publish(published[0], tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_names_stand_for_folders_of_the_package(published, tmp_path, monkeypatch):
    _, folder = published
    monkeypatch.setattr(pretrained, "FOLDER", folder.parent)
    monkeypatch.chdir(tmp_path)
    assert pretrained.pretrained() == ["tiny"]
    assert loading.load_with_step("tiny")[1] == 12
    with pytest.raises(UserError, match=r"comes with the package.*cp -r .*tiny runs/tiny"):
        pretrained.check_own("tiny")
    with pytest.raises(UserError, match="The models that come with the package: tiny"):
        tf_pivae.load("tinny")
    # A folder of that name is meant where there is one.
    (tmp_path / "tiny").mkdir()
    assert pretrained.resolve("tiny") == Path("tiny")
    pretrained.check_own("tiny")


# Those that come with the package.


def test_shipped_models_are_listed_and_small():
    assert tf_pivae.pretrained() == list(SHIPPED)
    for name in SHIPPED:
        files = [path for path in (pretrained.FOLDER / name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 16e6


def test_shipped_model_knows_clothes():
    """Held-out images it has never seen are far more probable than the same pixels in another order."""
    model = tf_pivae.load("fashion_mnist")
    side = model.image_shape[0]
    images = bundled(side).test.images[:32]
    bits = model.bits_per_dim(images).mean()
    shuffled = np.random.default_rng(0).permuted(images.reshape(32, -1), axis=1).reshape(images.shape)
    assert bits < 5.0  # 8 is a model that knows nothing.
    assert bits + 1.0 < model.bits_per_dim(shuffled).mean()
    samples = model.sample(16, seed=0)
    assert samples.shape == (16, *model.image_shape)
    assert samples.std(axis=0).mean() > 10  # They differ.
    rebuilt = model.reconstruct(images).astype(np.float64)
    other = images[::-1].astype(np.float64)
    assert np.abs(rebuilt - images).mean() < 0.5 * np.abs(other - images).mean()


def test_shipped_model_knows_people():
    """They stand on white, differ, and are far more probable than the same pixels in another order."""
    model = tf_pivae.load("people")
    samples = model.sample(32, seed=0)
    assert samples.shape == (32, *model.image_shape)
    assert np.median(samples[:, 0]) == 255  # The uppermost row.
    assert samples.std(axis=0).mean() > 30
    shuffled = np.random.default_rng(0).permuted(samples.reshape(32, -1, 3), axis=1).reshape(samples.shape)
    assert model.bits_per_dim(samples).mean() + 1.0 < model.bits_per_dim(shuffled).mean()


@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
def test_a_model_is_float32_whatever_keras_default_is(policy, finished):
    expected = tf_pivae.load(finished[0]).sample(2)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        np.testing.assert_array_equal(tf_pivae.load(finished[0]).sample(2), expected)
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_computes_in_float32(name):
    """Though it was trained in bfloat16: the same densities on every processor."""
    assert "ConvolutionPrecision.dtype = 'bfloat16'" in (pretrained.FOLDER / name / "config.gin").read_text()
    model = tf_pivae.load(name)
    layers = [layer for part in (model.vae, model.flow) for layer in part._flatten_layers()]
    assert {layer.precision.dtype for layer in layers if hasattr(layer, "precision")} == {"float32"}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configuration_follows_the_common_knobs(name):
    """The guide's `finetune.gin` sets `num_steps` behind it."""
    config = (pretrained.FOLDER / name / "config.gin").read_text()
    for knob in ("num_steps", "batch_size", "seed"):
        assert f"train.{knob} = %{knob}\n" in config


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_card_has_the_numbers_of_its_evaluation(name):
    folder = pretrained.FOLDER / name
    card = (folder / "model_card.md").read_text()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert (folder / "checkpoints" / f"{evaluation['step']:08d}").is_dir()
    (row,) = [row for row in evaluation["rows"] if row["metric"] == "bits/dim, K=1"]
    assert f"| bits/dim, K=1 | {row['value']:.4f} |" in card
    assert f"Trained** for {evaluation['step']:,} steps" in card


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_name_no_folder_of_anyones(name):
    for path in (pretrained.FOLDER / name).glob("*.*"):
        absolute = re.findall(r"""['"](/[\w/.-]+)""", path.read_text())
        assert all(name.startswith("/usr/share/datasets/") for name in absolute), path
