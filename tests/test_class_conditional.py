"""A class-conditional run by command: grids with one class a row, evaluation by class, GAN-train and GAN-test."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image

import tf_pivae
from tf_pivae import loading
from tf_pivae.data import bundled
from tf_pivae.data.arrays import ImageSplit
from tf_pivae.evaluate import measuring
from tf_pivae.uses import reconstruct, score


@pytest.fixture(scope="module")
def model(conditional_run):
    """The run's model, loaded and traced once."""
    return tf_pivae.load(conditional_run)


def _tiles(path, columns, side=16):
    """The images of a grid of enlarged 16x16 tiles, uint8 [rows, columns, side, side]."""
    picture = np.asarray(Image.open(path))[..., 0]
    scale = 64 // side
    rows = (picture.shape[0] + 2) // 66
    assert picture.shape == (rows * 66 - 2, columns * 66 - 2)
    return np.stack(
        [
            [picture[r * 66 : r * 66 + 64 : scale, c * 66 : c * 66 + 64 : scale] for c in range(columns)]
            for r in range(rows)
        ]
    )


def test_sample_draws_one_class_a_row(conditional_run, model, tmp_path, run_command):
    output = tmp_path / "grid.png"
    result = run_command("sample", f"--run_dir={conditional_run}", "--num_samples=40", f"--output={output}")
    assert result.returncode == 0, result.stderr
    tiles = _tiles(output, columns=4)
    expected = model.sample(40, seed=0, labels=np.repeat(np.arange(10), 4))
    np.testing.assert_array_equal(tiles.reshape(40, 16, 16), expected[..., 0])
    # The label matters: the same noise gives other images for other classes.
    other = model.sample(40, seed=0, labels=np.repeat(np.arange(10), 4)[::-1].copy())
    assert (expected != other).any(axis=(1, 2, 3)).all()


def test_sample_draws_the_classes_that_it_is_told(conditional_run, model, tmp_path, run_command):
    output = tmp_path / "grid.png"
    arguments = ("--num_samples=6", "--labels=7,2", "--seed=5", f"--output={output}")
    result = run_command("sample", f"--run_dir={conditional_run}", *arguments)
    assert result.returncode == 0, result.stderr
    expected = model.sample(6, seed=5, labels=np.array([7, 7, 7, 2, 2, 2]))
    np.testing.assert_array_equal(_tiles(output, columns=3).reshape(6, 16, 16), expected[..., 0])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("10", "expected numbers from 0 to 9"), ("shirt", "--labels=shirt: expected numbers, such as 0,3,7.")],
)
def test_labels_that_are_none_are_one_line(conditional_run, labels, expected, run_command):
    result = run_command("sample", f"--run_dir={conditional_run}", f"--labels={labels}")
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unconditional_model_has_no_labels(finished, run_command):
    result = run_command("sample", f"--run_dir={finished[0]}", "--labels=1")
    assert result.returncode == 2
    assert "not class-conditional" in result.stderr


def test_training_pictures_have_one_class_a_row(conditional_run, model):
    """36 samples are asked for: three whole columns of ten classes."""
    tiles = _tiles(conditional_run / "samples" / "000004.png", columns=3)
    expected = model.sample(30, labels=np.repeat(np.arange(10), 3))
    np.testing.assert_array_equal(tiles.reshape(30, 16, 16), expected[..., 0])


def test_labels_of_samples_are_the_datas_in_random_order():
    """However the data orders them, here class by class: any part of the samples has all of the classes."""
    data = ImageSplit(np.zeros([1000, 1, 1, 1], np.uint8), np.repeat(np.arange(10), [55, *[105] * 9]))
    model = types.SimpleNamespace(num_classes=10)
    labels = measuring._class_labels(model, data, 2000)
    np.testing.assert_array_equal(np.bincount(labels), 2 * np.bincount(data.labels))
    few = np.bincount(measuring._class_labels(model, data, 300), minlength=10)
    expected = 300 * np.bincount(data.labels) / 1000
    assert np.abs(few - expected).max() < 4 * np.sqrt(expected.max())
    assert min(len(set(part)) for part in np.split(labels, 20)) == 10


def test_bits_per_dim_by_class(conditional_run, model, evaluate):
    result = evaluate(f"--run_dir={conditional_run}", "--importance_samples=1")
    assert result.returncode == 0, result.stderr
    rows = json.loads((conditional_run / "evaluation.json").read_text())["rows"]
    data = bundled(image_size=16, num_examples=(256, 64))
    bits = model.bits_per_dim(data.test.images, labels=data.test.labels).astype(np.float64)
    by_class = {row["metric"]: row for row in rows if "class" in row["metric"]}
    present = np.unique(data.test.labels)
    assert list(by_class) == [f"bits/dim, K=1, class {data.class_names[label]}" for label in present]
    for label, row in zip(present, by_class.values(), strict=True):
        chosen = bits[data.test.labels == label]
        assert row["value"] == pytest.approx(chosen.mean(), rel=1e-6)
        error = chosen.std(ddof=1) / np.sqrt(len(chosen)) if len(chosen) > 1 else None
        assert row["spread"] == (None if error is None else pytest.approx(error, rel=1e-4))
        assert f"{len(chosen)} images" in row["protocol"]
        assert row["metric"] in result.stdout
    # A single image has a value, and no standard error.
    result = evaluate(f"--run_dir={conditional_run}", "--importance_samples=1", "--num_examples=1")
    assert result.returncode == 0, result.stderr
    assert json.loads((conditional_run / "evaluation.json").read_text())["rows"][0]["spread"] is None


def test_gan_train_and_gan_test(conditional_run, evaluate):
    classifier = ["depth=8", "num_steps=3", "batch_size=16"]
    bindings = [f"--gin_param=ClassifierConfig.{binding}" for binding in classifier]
    result = evaluate(f"--run_dir={conditional_run}", "--metrics=gan_train,gan_test", "--num_samples=64", *bindings)
    assert result.returncode == 0, result.stderr
    # The bits per dimension of an earlier evaluation of the same step stay beside them.
    rows = {row["metric"]: row for row in json.loads((conditional_run / "evaluation.json").read_text())["rows"]}
    rows = {name: row for name, row in rows.items() if name in result.stdout and name.endswith("%")}
    assert rows.keys() == {"GAN-train %", "GAN-test %", "real-on-real %"}
    assert all(0.0 <= row["value"] <= 100.0 for row in rows.values())
    assert "ResNet-8, 3 steps" in rows["GAN-train %"]["protocol"]


def test_a_label_out_of_range_is_found_before_the_work(conditional_run, tmp_path):
    """And leaves nothing that stands in the way of the images with right ones."""
    np.savez(tmp_path / "x.npz", images=bundled(16).test.images[:4], labels=[0, 1, 10, 2])
    for function, name in ((score, "x.csv"), (reconstruct, "x.png")):
        with pytest.raises(tf_pivae.UserError, match=r"x\.npz\[2\] has the class 10: the model's are 0 to 9\.$"):
            function(conditional_run, tmp_path / "x.npz", output=tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_data_with_other_classes_are_not_the_runs(conditional_run, monkeypatch):
    data = dataclasses.replace(loading.load_dataset(conditional_run), num_classes=11, class_names=())
    monkeypatch.setattr(loading, "_recipe", lambda *_: types.SimpleNamespace(dataset=lambda: data))
    with pytest.raises(tf_pivae.UserError, match=r"has images of the number of classes 11, but .* was trained on 10"):
        loading.load_dataset(conditional_run)


def test_classes_of_other_names_are_not_the_runs(conditional_run, tmp_path, monkeypatch):
    data = loading.load_dataset(conditional_run)
    for names, expected in (
        (("a", *data.class_names[1:]), r"has the classes .*, a, but .* was trained on .*T-shirt/top, Trouser\.$"),
        (data.class_names[::-1], r"has the classes .* was trained on .*, Trouser in another order\.$"),
    ):
        renamed = dataclasses.replace(data, class_names=names)
        monkeypatch.setattr(loading, "_recipe", lambda *_, data=renamed: types.SimpleNamespace(dataset=lambda: data))
        with pytest.raises(tf_pivae.UserError, match=expected):
            loading.load_dataset(conditional_run)
    # A run of before has no names.
    run_dir = tmp_path / "run"
    shutil.copytree(conditional_run, run_dir)
    facts = json.loads((run_dir / "data.json").read_text())
    assert facts.pop("class_names") == list(data.class_names)
    (run_dir / "data.json").write_text(json.dumps(facts))
    loading.load_dataset(run_dir)
    (run_dir / "data.json").write_text(json.dumps({**facts, "class_names": [1]}))
    with pytest.raises(tf_pivae.UserError, match=r"data\.json is damaged"):
        loading.load_dataset(run_dir)
