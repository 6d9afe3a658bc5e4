"""What is drawn from a model: a published one whose data lie elsewhere, and neighbours of known images."""

import dataclasses
import io
import json
import re
import shutil

import forking
import numpy as np
import pytest
from PIL import Image
from shipped import DIMENSIONS, RUN

import tf_pivae
from tf_pivae import figures
from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.data.bundled import bundled
from tf_pivae.report import drawn, views
from tf_pivae.report.run import read_runs
from tf_pivae.runs.pretrained import resolve


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of the model that comes with the package, on a machine without its data: its `Run` and its `Views`.

    Its evaluation says that the second group is empty.
    """
    folder = tmp_path_factory.mktemp("published") / "copy"
    shutil.copytree(resolve(RUN), folder)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    [row for row in evaluation["rows"] if "kl/" in row["metric"]][1]["value"] = 0.0005
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    config = folder / "config.gin"
    config.write_text(re.sub(r"'/[^']*/", "'/nowhere/", config.read_text()))
    (run,) = read_runs([folder])
    with forking.optimized_graphs():
        return run, views.gather(run, num_examples=8, seed=0)


@pytest.fixture(scope="module")
def model(published):
    run, _ = published
    return tf_pivae.load(str(run.path))


@pytest.fixture(scope="module")
def without_data(published):
    """The views where nobody has the images: what the evaluation said is what there is."""
    run, _ = published
    facts = {**run.facts, "name": "something else"}
    with forking.optimized_graphs():
        return views.gather(dataclasses.replace(run, facts=facts), num_examples=8, seed=0)


def _pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.usefixtures("graph_optimizer")
def test_a_published_model_is_shown_as_what_it_is(published, model):
    run, actual = published
    assert (run.metrics, list(run.path.glob("*.png"))) == ([], [])
    assert run.state(actual.step) == f"finished, {run.num_steps:,} steps"
    step, png = actual.samples
    assert step == actual.step == run.num_steps
    expected = figures.image_grid(model.sample(36), 6)
    np.testing.assert_array_equal(_pixels(png), np.asarray(expected))
    assert len(actual.reconstructions) == 2
    assert "among 8,000 training images" in actual.neighbours[0].caption, "those that come with the package"


@pytest.mark.usefixtures("graph_optimizer")
def test_latent_groups_without_information_are_apart(published, without_data, model):
    """Those that the published evaluation finds empty, less than a bit of an image; their rows are as elsewhere."""
    run, _ = published
    kl = {row["metric"].strip(): DIMENSIONS * row["value"] for row in run.evaluation["rows"] if "kl/" in row["metric"]}
    unused = [name.removeprefix("kl/") for name in kl if kl[name] < 1.0]
    assert 0 < len(unused) < len(kl)
    sentence, picture = without_data.unused
    groups = without_data.traversals[-1]
    assert f"({', '.join(unused)})" in picture.caption
    assert not any(name in groups.caption for name in unused)
    assert f"{len(kl) - len(unused)} of {len(kl)} latent groups" in sentence
    together, others = drawn.through_groups(model, 0, ())
    assert others is None
    rows = dict(zip(kl, _rows(together.png, len(kl)), strict=True))
    for name, row in zip(unused, _rows(picture.png, len(unused)), strict=True):
        np.testing.assert_array_equal(row, rows.pop(f"kl/{name}"))
    np.testing.assert_array_equal(_rows(groups.png, len(rows)), list(rows.values()))


def _rows(png, count):
    """The tiles of a grid, a row each; between rows lie two pixels."""
    pixels = _pixels(png)
    height = (len(pixels) + 2) // count
    return [pixels[height * row : height * (row + 1) - 2] for row in range(count)]


def test_without_any_data_the_samples_are_there_and_the_evaluated_terms(published, without_data):
    run, _ = published
    assert without_data.samples[0] == run.num_steps
    assert "/nowhere/" in without_data.neighbours == without_data.reconstructions == without_data.likelihoods
    total = next(row for row in run.evaluation["rows"] if row["metric"] == "bits/dim, K=1")
    assert without_data.terms.total.mean == total["value"]
    assert total["protocol"].split(",")[0] in without_data.terms.images


def test_neighbours_of_training_images_are_themselves():
    """Half of the "samples" are remembered, half have one level more everywhere: 1/255 of the scale away."""
    data = bundled(16, (50, 20))
    images = np.asarray(data.train.images)
    dark = images.max(axis=(1, 2, 3)) < 255
    remembered = np.concatenate([images[dark][:3], images[dark][3:6] + 1])
    data = ImageDataset("d", data.train, ImageSplit(images[:2]), num_bins=256)
    picture = drawn.neighbours(data, remembered)
    assert "lies 0.2% of the scale" in picture.caption, "the median of 0 and 1/255"
    assert "from held-out images it is 0.0%" in picture.caption
    pixels = _pixels(picture.png)
    assert pixels.shape == (6 * 66 - 2, 66 * 7 - 2 + 8, 3)
    for row in range(6):
        left = pixels[66 * row : 66 * row + 64, :64]
        right = pixels[66 * row : 66 * row + 64, 74 : 74 + 64]
        assert np.abs(left.astype(int) - right).max() == (row > 2)
