"""Scores of one's own images: each column computed a second way, damaged files, interruptions, exports."""

import csv
import struct

import numpy as np
import pytest
from PIL import Image
from shipped import CHANNELS, DIMENSIONS, HEIGHT, RUN, STEP, WIDTH, held_out

from tf_pivae.errors import UserError
from tf_pivae.uses import opening, sample, score, scoring
from tf_pivae.uses.columns import png_bits

COUNT = 12
HELD_OUT = 20
K = 3


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(path, column):
    return np.array([float(row[column]) for row in rows(path) if not row["problem"]])


@pytest.fixture(scope="module")
def test_images():
    return held_out()


@pytest.fixture(scope="module")
def options(tmp_path_factory, test_images):
    """Arguments of `score`; the run's own test split lies elsewhere, if at all."""
    path = tmp_path_factory.mktemp("held_out") / "held_out.npz"
    np.savez(path, images=test_images[: 2 * HELD_OUT])
    return {"held_out": path, "num_held_out": HELD_OUT, "importance_samples": K, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, test_images):
    """Twelve held-out images as files, grey or in colour, in folders."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "below").mkdir()
    for i, image in enumerate(test_images[100 : 100 + COUNT]):
        picture = Image.fromarray(image[..., 0])
        picture.convert("RGB" if i % 3 else "L").save(folder / f"{'below/' if i > 7 else ''}{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def scored(folder, tmp_path_factory, packaged, options):
    """The table of these files."""
    output = tmp_path_factory.mktemp("scores") / "scores.csv"
    result = score(RUN, folder, output, **options)
    assert result == (COUNT, 0, {})
    assert [path.name for path in output.parent.iterdir()] == ["scores.csv"], "nothing else is left"
    return output


def test_a_row_a_file_with_the_models_own_log_prob(scored, packaged, test_images):
    names = [f"{'below/' if i > 7 else ''}{i:02d}.png" for i in range(COUNT)]
    assert [(row["set"], row["file"], row["problem"]) for row in rows(scored)] == [("images", n, "") for n in names]
    own = [packaged.log_prob(image[None], K, seed=5)[0] for image in test_images[100 : 100 + COUNT]]
    np.testing.assert_allclose(numbers(scored, "log_prob"), own, rtol=1e-5)
    np.testing.assert_allclose(numbers(scored, "bits_per_dim"), -np.array(own) / (DIMENSIONS * np.log(2)), rtol=1e-5)


def test_percentile_and_p_value_are_counts_of_held_out_images(scored, packaged, test_images):
    log_prob = packaged.log_weights(test_images[:HELD_OUT], K, seed=5).astype(np.float64)
    held_out = -(np.logaddexp.reduce(log_prob, 1) - np.log(K)) / (DIMENSIONS * np.log(2))
    distances = np.abs(held_out - held_out.mean())
    bits = numbers(scored, "bits_per_dim")
    np.testing.assert_allclose(numbers(scored, "percentile"), [100 * np.mean(held_out > b) for b in bits], atol=1e-6)
    expected = [(1 + np.sum(distances >= abs(b - held_out.mean()))) / (HELD_OUT + 1) for b in bits]
    np.testing.assert_allclose(numbers(scored, "typicality_p"), expected, rtol=1e-6)
    assert len(set(expected)) > 3


def test_bits_over_a_png_are_those_beyond_its_data_chunk(scored, test_images, tmp_path):
    over = []
    for image in test_images[100 : 100 + COUNT]:
        Image.fromarray(image[..., 0]).save(tmp_path / "x.png", compress_level=9)
        data = (tmp_path / "x.png").read_bytes()
        place = 8
        packed = 0
        while place < len(data):
            (size,) = struct.unpack(">I", data[place : place + 4])
            kind = data[place + 4 : place + 8]
            packed = packed + size * (kind == b"IDAT")
            place = place + 12 + size
        over.append(8 * packed / DIMENSIONS)
    np.testing.assert_allclose(png_bits(test_images[100 : 100 + COUNT]), over)
    result = numbers(scored, "bits_per_dim") - numbers(scored, "bits_over_png")
    np.testing.assert_allclose(result, over, rtol=1e-5)


def test_standard_error_is_the_spread_of_repeated_estimates():
    weights = np.random.default_rng(0).normal(-1000.0, 0.7, [4000, 50])
    log_prob, error = opening.log_mean(weights)
    np.testing.assert_allclose(error.mean(), log_prob.std(), rtol=0.05)
    assert np.isnan(opening.log_mean(weights[:, :1])[1]).all()


def test_damaged_files_are_listed_and_skipped(folder, tmp_path, scored, options):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("=1+1.png", "-2.png", "a\nb.png"):
        Image.open(folder / "00.png").save(own / name)
    (own / "broken.png").write_bytes((folder / "00.png").read_bytes()[:90])
    (own / "notes.txt").write_text("no picture")
    (own / "link.png").symlink_to(folder / "00.png")
    Image.new("L", (64, 40)).save(own / "wide.png")
    output = tmp_path / "scores.csv"
    result = score(RUN, own, output, **options)
    assert (result.scored, result.skipped) == (3, 4)
    problems = {row["file"]: row["problem"] for row in rows(output)}
    assert set(problems) == {"'-2.png", "'=1+1.png", "a\\nb.png", "broken.png", "link.png", "notes.txt", "wide.png"}
    assert problems["link.png"] == "a link"
    assert problems["notes.txt"] == "not an image"
    assert "40x64" in problems["wide.png"]
    assert problems["broken.png"]
    log_prob = {row["file"]: row["log_prob"] for row in rows(output)}
    assert log_prob["'=1+1.png"] == rows(scored)[0]["log_prob"], "a file's score is its own, wherever it stands"
    assert log_prob["wide.png"] == ""


def test_what_was_cut_off_goes_on_and_ends_alike(folder, tmp_path, scored, monkeypatch, options):
    measured = []
    whole = scoring.columns

    def cut_off(log_prob, error, images, usual):
        measured.append(len(images))
        if len(measured) == 3:
            raise InterruptedError
        return whole(log_prob, error, images, usual)

    output = tmp_path / "scores.csv"
    monkeypatch.setattr(scoring, "columns", cut_off)
    with pytest.raises(InterruptedError):
        score(RUN, folder, output, batch_size=5, **options)
    assert not output.exists()
    with open(tmp_path / ".scores.csv.partial/rows.csv", "a") as file:
        file.write("images,below/10.png,-12")
    with pytest.raises(UserError, match="started with importance_samples = 3, and this is 4"):
        score(RUN, folder, output, **{**options, "importance_samples": 4})
    score(RUN, folder, output, batch_size=5, **options)
    assert measured[3:] == [2], "what is there is not computed again"
    for column in ("log_prob", "percentile", "typicality_p", "bits_over_png"):
        np.testing.assert_allclose(numbers(output, column), numbers(scored, column), rtol=1e-5, atol=1e-6)
    assert [row["file"] for row in rows(output)] == [row["file"] for row in rows(scored)]


def test_against_others(folder, tmp_path, test_images, scored, options):
    noise = np.random.default_rng(0).integers(0, 256, [9, HEIGHT, WIDTH, CHANNELS], np.uint8)
    np.savez(tmp_path / "noise.npz", images=noise)
    output = tmp_path / "scores.csv"
    result = score(RUN, folder, output, tmp_path / "noise.npz", **options)
    assert result.scored == COUNT + 9
    assert [row["file"] for row in rows(output)][-1] == "noise.npz[8]"
    assert [row["set"] for row in rows(output)] == ["images"] * COUNT + ["against"] * 9
    assert result.separations["log_prob"].auroc == (1.0, 1.0, 1.0), "noise is told from clothes"
    with open(tmp_path / "scores.auroc.csv", newline="") as file:
        table = {row["column"]: row for row in csv.DictReader(file)}
    assert table["bits_per_dim"] | {"column": ""} == {"column": "", **dict.fromkeys(
        ("auroc", "auroc_low", "auroc_high", "aupr", "aupr_low", "aupr_high"), "1.0000")}  # fmt: skip
    assert Image.open(tmp_path / "scores.histograms.png").height > 6 * 400
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "noise.npz",
        "scores.auroc.csv",
        "scores.csv",
        "scores.histograms.png",
    ]


def test_a_set_without_images_leaves_the_reasons_and_can_be_mended(folder, tmp_path, test_images, options):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(b"")
    output = tmp_path / "scores.csv"
    with pytest.raises(UserError, match=f"one of the two sets has no usable image: see the reasons in {output}"):
        score(RUN, folder, output, other, **options)
    assert rows(output)[-1]["problem"]
    Image.fromarray(test_images[0, ..., 0]).save(other / "a.png")
    assert score(RUN, folder, output, other, **options).scored == COUNT + 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "other",
        "scores.auroc.csv",
        "scores.csv",
        "scores.histograms.png",
    ]


@pytest.mark.parametrize("name", ["num_held_out", "batch_size", "importance_samples"])
def test_counts_are_whole_numbers(folder, tmp_path, name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1; got 0"):
        score(RUN, folder, tmp_path / "scores.csv", **{name: 0})


def test_samples_are_scored_as_they_were_drawn(tmp_path, packaged, options):
    sample(RUN, f"{tmp_path}/samples/", num_samples=3, seed=2)
    score(RUN, tmp_path / "samples", tmp_path / "scores.csv", **options)
    own = [packaged.log_prob(image[None], K, seed=5)[0] for image in packaged.sample(3, seed=2)]
    np.testing.assert_allclose(numbers(tmp_path / "scores.csv", "log_prob"), own, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_dir": "absent"}, "no run in absent"),
        ({"images": "absent"}, "absent is neither a folder of images nor an .npz file"),
        ({"images": "empty"}, "empty holds no files"),
        ({"output": "absent/scores.csv"}, "choose a file in a folder that exists"),
        ({"output": "scores.txt"}, "call it scores.csv"),
        ({"label": 3}, "--label=3: this model is not class-conditional"),
        ({"held_out": "notes"}, "notes has no image of finite log_prob to compare with"),
        ({"against": "notes", "output": "notes/a.csv"}, r"a\.csv would lie among the images of notes: choose another"),
        ({"held_out": "notes", "output": "notes/a.csv"}, r"a\.csv would lie among the images of notes: choose another"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, monkeypatch, folder, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("no picture")
    with pytest.raises(UserError, match=message):
        score(**{"run_dir": RUN, "images": folder, **arguments})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes"]


def test_a_folder_that_has_changed_meanwhile_is_refused(folder, tmp_path, monkeypatch, test_images, options):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(4):
        Image.fromarray(test_images[i, ..., 0]).save(own / f"{i}.png")
    whole = scoring._rows
    calls = []

    def cut_off(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise InterruptedError
        return whole(*arguments)

    monkeypatch.setattr(scoring, "_rows", cut_off)
    with pytest.raises(InterruptedError):
        score(RUN, own, tmp_path / "scores.csv", batch_size=2, **options)
    Image.fromarray(test_images[9, ..., 0]).save(own / "0.png")
    with pytest.raises(UserError, match=r"was started with contents of the images = .*choose another --output"):
        score(RUN, own, tmp_path / "scores.csv", batch_size=2, **options)


@pytest.fixture
def exported(tmp_path, packaged):
    """An export of the packaged model, whose own data lie elsewhere, if at all: without the comparison on these."""
    from tf_pivae.export.write.model_card import model_card, write_model_card
    from tf_pivae.export.write.saved_model import Options, write_saved_model
    from tf_pivae.runs.pretrained import resolve

    folder = tmp_path / "export/1"
    own = Options(importance_samples=K)
    functions = write_saved_model(packaged, folder, own)
    write_model_card(folder, model_card(resolve(RUN), (STEP, ""), own, functions, {}))
    return folder.parent


def test_the_command_scores_an_export_as_its_run(folder, tmp_path, exported, run_command, options):
    flags = [f"--run_dir={exported}", f"--images={folder}", f"--num_held_out={HELD_OUT}"]
    flags.append(f"--held_out={options['held_out']}")
    result = run_command("score", *flags, "--output=scores.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{COUNT} images scored: scores.csv\n"
    score(RUN, folder, tmp_path / "own.csv", **{**options, "seed": 0})
    for column in ("log_prob", "percentile", "bits_over_png"):
        theirs, own = (numbers(tmp_path / name, column) for name in ("scores.csv", "own.csv"))
        np.testing.assert_allclose(theirs, own, rtol=1e-4, atol=1e-4)
    assert {row["standard_error"] for row in rows(tmp_path / "scores.csv")} == {""}
    result = run_command("score", *flags, "--seed=1", "--output=other.csv", cwd=tmp_path)
    assert result.returncode == 2
    assert "is an export, where importance samples, seed and step are fixed" in result.stderr
