"""Samples on the disk: a folder of PNGs, one array, the grid; cut off and continued."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tf_pivae
from tf_pivae.data import npz_images
from tf_pivae.errors import UserError
from tf_pivae.metrics import images_from_folder
from tf_pivae.models.pivae import PiVAE
from tf_pivae.uses import image_outputs, sample


@pytest.fixture(scope="module")
def drawn(small_model):
    """Samples 0 ... 149 of the small model, seed 3."""
    return small_model.sample(150, seed=3)


@pytest.fixture
def cut_off(monkeypatch):
    """A function that lets so many batches be drawn, and then breaks; it returns how many were, as a list of rows."""

    whole = PiVAE.sample

    def cut_off(batches):
        rows = []

        def draw(self, num_samples, *arguments, first_row=0, **options):
            if len(rows) == batches:
                raise InterruptedError
            rows.append(first_row)
            return whole(self, num_samples, *arguments, first_row=first_row, **options)

        monkeypatch.setattr(PiVAE, "sample", draw)
        return rows

    return cut_off


def test_a_folder_holds_a_png_a_sample(tmp_path, drawn, small_run, run_command):
    result = run_command(
        "sample", f"--run_dir={small_run}", "--num_samples=70", "--seed=3", "--output=out/", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"70 samples of {small_run} at step 12: out/\n"
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == [f"{i:06d}.png" for i in range(70)]
    np.testing.assert_array_equal(images_from_folder(tmp_path / "out"), drawn[:70])


def test_an_array_reads_back_as_data_does(tmp_path, drawn, small_run):
    assert sample(small_run, tmp_path / "samples.npz", num_samples=150, seed=3) == 12
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as file:
        assert file.files == ["images"]
        np.testing.assert_array_equal(file["images"], drawn)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"], "nothing else is left"
    data = npz_images(tmp_path / "samples.npz", test_fraction=0.5)
    assert len(data.train) + len(data.test) == 150


@pytest.mark.parametrize("output", ["out/", "out.npz"])
def test_what_was_cut_off_goes_on_where_it_stopped(tmp_path, drawn, small_run, cut_off, output):
    output = f"{tmp_path}/{output}"
    with pytest.raises(InterruptedError):
        cut_off(1), sample(small_run, output, num_samples=150, seed=3)
    if output.endswith("npz"):
        assert not (tmp_path / "out.npz").exists()
        with open(tmp_path / ".out.npz.partial" / "images", "ab") as file:
            file.write(b"half an image")
    with pytest.raises(
        UserError, match=r"started with seed = 3, and this is 4: give the settings of .*\.settings\.json"
    ):
        sample(small_run, output, num_samples=150, seed=4)
    rows = cut_off(9)
    sample(small_run, output, num_samples=150, seed=3)
    assert rows == [64, 128]
    result = np.load(output)["images"] if output.endswith("npz") else images_from_folder(output)
    np.testing.assert_array_equal(result, drawn)


def test_more_samples_are_added_to_a_folder(tmp_path, drawn, small_run, cut_off):
    output = f"{tmp_path}/out/"
    sample(small_run, output, num_samples=128, seed=3)
    (tmp_path / "out/000070.png").unlink()
    rows = cut_off(9)
    sample(small_run, output, num_samples=150, seed=3)
    assert rows == [64, 128], "a file that is gone is drawn again"
    np.testing.assert_array_equal(images_from_folder(output), drawn)
    with pytest.raises(UserError, match="holds more than 149 images: make as many or more, or another folder"):
        sample(small_run, output, num_samples=149, seed=3)


def test_classes_are_in_the_names_or_in_an_array(tmp_path, conditional_run):
    labels = np.array([7, 2, 7, 2, 7])
    expected = tf_pivae.load(conditional_run).sample(5, labels=labels)
    sample(conditional_run, f"{tmp_path}/out/", num_samples=5, labels=[7, 2])
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == [f"{i:06d}_class{label}.png" for i, label in enumerate(labels)]
    np.testing.assert_array_equal(images_from_folder(tmp_path / "out"), expected)
    sample(conditional_run, tmp_path / "out.npz", num_samples=5, labels=[7, 2])
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["labels"], labels)
        np.testing.assert_array_equal(file["images"], expected)
    with pytest.raises(UserError, match=r"--labels=1,10: expected numbers from 0 to 9"):
        sample(conditional_run, tmp_path / "other.npz", labels=[1, 10])


def test_levels_are_shown_in_full_and_kept_in_an_array(tmp_path):
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    for output in (f"{tmp_path}/out/", tmp_path / "out.npz"):
        with image_outputs.open_sink(output, {}, 2, (4, 4, 1), 32) as sink:
            sink.add(0, ["0.png", "1.png"], images)
    display = images_from_folder(tmp_path / "out")
    assert (display.min(), display.max()) == (0, 255)
    np.testing.assert_array_equal(display.astype(int) * 32 // 256, images)
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["images"], images)
        assert file["num_bins"] == 32


def test_a_folder_that_came_in_the_way_of_an_array_is_one_line_and_the_work_stays(tmp_path):
    output = tmp_path / "out.npz"
    settings = {"seed": 3}
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(image_outputs.open_sink(output, settings, 2, (4, 4, 1), 256))
        sink.add(0, ["0.png", "1.png"], np.zeros([2, 4, 4, 1], np.uint8))
        output.mkdir()
        with pytest.raises(UserError, match=r"^cannot write .*/out\.npz: Is a directory; choose a file in a folder"):
            stack.close()
    output.rmdir()
    with image_outputs.open_sink(output, settings, 2, (4, 4, 1), 256) as sink:
        assert sink.has(0, ["0.png", "1.png"])
    assert np.load(output)["images"].shape == (2, 4, 4, 1)


def test_memory_holds_no_more_of_a_large_array(tmp_path):
    """400 MB of images in a process that may take 150 MB more than it has."""
    program = (
        "import resource, numpy as np\nfrom tf_pivae.uses import image_outputs\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 150_000_000,) * 2)\n"
        "batch = np.zeros([64, 128, 128, 3], np.uint8)\n"
        f"with image_outputs.open_sink({str(tmp_path / 'out.npz')!r}, {{}}, 128 * 64, (128, 128, 3), 256) as sink:\n"
        "    for i in range(128):\n        sink.add(64 * i, ['x'] * 64, batch + i)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    images = np.load(tmp_path / "out.npz", mmap_mode="r")["images"]
    assert images.shape == (8192, 128, 128, 3)
    np.testing.assert_array_equal(images[::64, 0, 0, 0], np.arange(128))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("photos/", "holds other files: choose a new or an empty folder"),
        ("photos/a.png/", "a file of this name exists"),
        ("absent/out/", "choose a file in a folder that exists"),
        ("absent/out.npz", "choose a file in a folder that exists"),
        ("out.jpg", r"call it out\.png, out/ or out\.npz"),
        ("out.txt", r"call it out\.png, out/ or out\.npz"),
        ("out", r"call it out\.png, out/ or out\.npz"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, small_run, output, message):
    (tmp_path / "photos").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "photos/a.png")
    with pytest.raises(UserError, match=message):
        sample(small_run, f"{tmp_path}/{output}", num_samples=2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "photos"], "nothing is left behind"


def test_a_mistake_is_one_line(tmp_path, small_run, run_command):
    result = run_command("sample", f"--run_dir={small_run}", "--labels=a", "--output=out/", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "error: --labels=a: expected numbers, such as 0,3,7.\n")
    result = run_command("sample", f"--run_dir={small_run}", "--labels=1", "--output=out/", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "error: --labels: this model is not class-conditional.\n")
    result = run_command("sample", f"--run_dir={small_run}", f"--seed={1 << 63}", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: flag --seed={1 << 63}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("values", [{"num_samples": -1}, {"num_samples": 0}, {"seed": 1.5}, {"columns": 0}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, small_run, values):
    for output in ("x.png", "x.npz"):
        with pytest.raises(ValueError, match=f"`{next(iter(values))}` must be"):
            sample(small_run, tmp_path / output, **values)
    with pytest.raises(UserError, match="4,097 images are too many for one picture"):
        sample(small_run, tmp_path / "x.png", num_samples=4097)
    with pytest.raises(UserError, match="64 of 64 images have pixels that are NaN"):
        sample(small_run, tmp_path / "x.png", temperature=1e38, sample_noise=1e38)
    assert not list(tmp_path.iterdir())


def test_two_at_once_do_not_mix(tmp_path):
    with (
        image_outputs.open_sink(f"{tmp_path}/out/", {}, 1, (4, 4, 1), 256),
        pytest.raises(UserError, match="another process is writing"),
        image_outputs.open_sink(f"{tmp_path}/out/", {}, 1, (4, 4, 1), 256),
    ):
        pass
