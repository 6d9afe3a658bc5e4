"""The README's pictures are what the models that come with the package draw."""

import importlib.util

import numpy as np
import pages
import pytest
from PIL import Image

import tf_pivae
from tf_pivae.data import bundled

SPECIFICATION = importlib.util.spec_from_file_location("pictures", pages.ROOT / "docs/pictures.py")
pictures = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(pictures)
pytestmark = pytest.mark.usefixtures("graph_optimizer")


def test_overview_is_drawn_by_the_shipped_model():
    model = tf_pivae.load("fashion_mnist")
    _compare(pictures.overview(model, bundled(model.image_shape[0]).test.images), "overview")


def test_people_are_drawn_by_the_shipped_model():
    _compare(pictures.people(tf_pivae.load("people")), "people")


def _compare(picture, name):
    drawn = np.asarray(picture, np.float64)
    shipped = np.asarray(Image.open(pictures.FOLDER / f"{name}.png"), np.float64)
    assert drawn.shape == shipped.shape, "run `make docs`"
    # Another processor rounds differently: a level more or less here and there.
    assert np.abs(drawn - shipped).mean() < 0.5, "run `make docs`"
