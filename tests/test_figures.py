"""Pictures: every tile in its place, in its colours."""

import numpy as np
import pytest
from PIL import Image

from tf_pivae import figures
from tf_pivae.errors import UserError


def test_grid_puts_every_image_in_its_place():
    images = np.random.default_rng(0).integers(0, 256, [6, 8, 8, 3], np.uint8)
    grid = np.asarray(figures.image_grid(images, columns=3, cell=16, gap=2))
    assert grid.shape == (2 * 18 - 2, 3 * 18 - 2, 3)
    for i in range(6):
        row, column = divmod(i, 3)
        tile = grid[row * 18 : row * 18 + 16, column * 18 : column * 18 + 16]
        np.testing.assert_array_equal(tile[::2, ::2], images[i])
        np.testing.assert_array_equal(tile[1::2, 1::2], images[i])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_to_four_channels(channels):
    images = np.full([1, 4, 4, channels], 7, np.uint8)
    assert (figures.to_display(images) == 7).all()
    assert figures.to_display(images).shape == (1, 4, 4, 3)


def test_there_are_no_more_columns_than_images():
    images = np.zeros([3, 4, 4, 1], np.uint8)
    assert figures.image_grid(images, columns=10**9).size == figures.image_grid(images, columns=3).size


def test_few_levels_span_black_to_white():
    display = figures.to_display(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), num_bins=4)
    assert display[:, 0, 0, 0].tolist() == [0, 85, 170, 255]


@pytest.mark.parametrize(
    ("count", "num_classes", "columns", "rows"),
    [
        (40, 10, 4, [[i] * 4 for i in range(10)]),
        (7, 3, 3, [[0] * 3, [1] * 3, [2]]),
        (5, 100, 3, [[0] * 3, [1] * 2]),
    ],
)
def test_one_class_a_row(count, num_classes, columns, rows):
    labels, result = figures.class_rows(count, num_classes)
    assert result == columns
    assert labels.tolist() == [label for row in rows for label in row]
    assert figures.class_rows(4, 2, columns=1)[0].tolist() == [0, 1, 0, 1]


def test_reconstructions_stand_beside_their_originals():
    images = np.zeros([2, 4, 4, 1], np.uint8)
    grid = np.asarray(figures.reconstruction_grid(images, images + 200, pairs_in_row=1))
    width = (grid.shape[1] - 2) // 2
    assert grid[0, 0].tolist() == [0, 0, 0]
    assert grid[0, width + 2].tolist() == [200, 200, 200]


def test_neighbours_stand_in_the_row_of_their_image():
    images = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1).repeat(8, 1).repeat(8, 2)
    others = np.stack([images + 10, images + 20, images + 30], 1)
    grid = np.asarray(figures.neighbour_grid(images, others))[:, :, 0]
    tile = 64
    gap = 2
    columns = [0] + [tile + figures._NEIGHBOUR_GAP + (tile + gap) * i for i in range(3)]
    assert grid.shape == (2 * tile + gap, columns[-1] + tile)
    for row in range(2):
        for column, expected in zip(columns, [row, row + 10, row + 20, row + 30], strict=True):
            assert (grid[row * (tile + gap) :, column : column + tile][:tile] == expected).all()
    assert (grid[:, tile : columns[1]] == figures.BACKGROUND[0]).all()


def test_labels_and_saving(tmp_path):
    picture = figures.labelled([("left", Image.new("RGB", (40, 40))), ("right", Image.new("RGB", (40, 60)))], "title")
    figures.save_png(picture, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (picture.height, picture.width, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(UserError, match="cannot write"):
        figures.save_png(picture, tmp_path / "missing" / "a.png")


def test_stacked_pictures_keep_their_size_and_order():
    picture = figures.stacked([Image.new("RGB", (4, 3), "red"), Image.new("RGB", (6, 2), "blue")])
    assert picture.size == (6, 5)
    assert picture.getpixel((3, 2)) == (255, 0, 0)
    assert picture.getpixel((5, 3)) == (0, 0, 255)


def test_curves_are_drawn_where_their_numbers_are():
    series = {"falls": ([0, 50, 100], [3.0, 2.0, 1.0]), "rises": ([0, 100], [1.0, 3.0])}
    picture = np.asarray(figures.line_chart(series, "step", "bits", "title")).astype(int)
    blue, orange = (np.abs(picture - color).sum(-1) < 40 for color in ([0x00, 0x72, 0xB2], [0xD5, 0x5E, 0x00]))
    inside = slice(75, 745)  # Between the axes, without the names at the right.
    height = {}
    for name, mask in (("falls", blue), ("rises", orange)):
        rows, columns = np.nonzero(mask[:, inside])
        assert columns.min() < 10  # From the first step to the last.
        assert columns.max() > 660
        height[name] = rows[columns < 60].mean(), rows[columns > 610].mean()
    assert height["falls"][0] < 120  # Rows count downwards.
    assert height["falls"][1] > 400
    assert height["rises"][0] > 400
    assert height["rises"][1] < 120


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([50, 1500], [0, 500, 1000, 1500]),
        ([3.1, 8.3], [2, 4, 6, 8, 10]),
        ([0.02, 0.11], [0.02, 0.04, 0.06, 0.08, 0.10, 0.12]),
        ([7.0], [7, 8]),
    ],
)
def test_ticks_are_round(values, expected):
    np.testing.assert_allclose(figures.round_values(min(values), max(values)), expected)


def test_round_values_within():
    np.testing.assert_allclose(figures.round_values(3.1, 8.3, within=True), [4, 6, 8])
