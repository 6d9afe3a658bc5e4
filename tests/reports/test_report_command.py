"""The command as a user runs it: real runs with and without classes and likelihood, an unfinished one, and mistakes."""

import json
import shutil

import pytest
from document import Document


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory, tiny, run_command):
    """Folders of a whole run, of a class-conditional GAN, and of a run without a checkpoint yet."""
    folder = tmp_path_factory.mktemp("report")
    whole = folder / "finished"
    shutil.copytree(finished[0], whole, ignore=shutil.ignore_patterns("evaluation*"))  # Other tests evaluate it.
    gan = folder / "gan"
    parameters = [
        "train.class_conditional=True",
        "Trainer.likelihood_weight=0.0",
        "num_steps=2",
        "train.sample_every=1",
    ]
    result = run_command("train", f"--gin_file={tiny}", f"--run_dir={gan}", *(f"--gin_param={p}" for p in parameters))
    assert result.returncode == 0, result.stderr
    unfinished = folder / "unfinished"
    shutil.copytree(finished[0], unfinished, ignore=shutil.ignore_patterns("checkpoints", "samples", "evaluation*"))
    lines = (unfinished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "metrics.jsonl").write_text(lines[0] + lines[1][:40])
    return whole, gan, unfinished


@pytest.fixture(scope="module")
def document(runs, run_command):
    output = runs[1].parent / "report.html"
    arguments = [f"--run_dir={run}" for run in runs]
    result = run_command("report", *arguments, f"--output={output}", "--num_examples=40")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == f"report: {output}\n"
    assert {path.name for path in output.parent.iterdir()} == {"finished", "gan", "unfinished", "report.html"}
    return Document(output.read_text("utf-8"))


def _row(section, name):
    (result,) = [row for row in section.all("tr") if row.children[0].text == name]
    return [cell.text for cell in result.children[1:]]


def test_overview_tells_them_apart(document):
    cards = [card for card in document.section("overview").all("div") if card.attributes.get("class") == "card"]
    facts = [dict(zip(*([e.text for e in card.all(n)] for n in ("dt", "dd")), strict=True)) for card in cards]
    assert [fact["Trained by"] for fact in facts] == [
        "likelihood and adversary; moving average of the weights",
        "adversary; moving average of the weights",
        "likelihood and adversary; moving average of the weights",
    ]
    assert [card.all("p")[0].text for card in cards] == [
        "finished, 12 steps",
        "finished, 2 steps",
        "4 of 12 steps, unfinished; no checkpoint to show",
    ]


def test_bits_per_dim_are_the_models(document, runs):
    import tf_pivae
    from tf_pivae.data import bundled

    model = tf_pivae.load(str(runs[0]))
    expected = model.bits_per_dim(bundled(16, (256, 64)).test.images[:40]).mean()
    text = _row(document.section("bits-per-dimension-by-term"), "with the model, K = 1")[0]
    assert float(text.split()[0]) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("section", "pictures"),
    [("samples", [3, 3, 1]), ("reconstructions", [2, 0, 1]), ("latents", [3, 3, 0])],
)
def test_each_run_shows_what_it_has(document, section, pictures):
    columns = [e for e in document.section(section).all("div") if e.attributes.get("class") == "column"]
    assert [len(column.all("img")) for column in columns] == pictures
    # Where there is no checkpoint, pictures that the training left at its end stand in.
    assert ("no checkpoint in" in columns[2].text) == (section != "reconstructions")


def test_what_is_missing_is_said(document, runs):
    assert "gan: trained without likelihood" in document.section("bits-per-dimension-by-term").text
    assert "gan: trained without likelihood" in document.section("likelihoods-of-other-images").text
    assert "gan: trained without likelihood" in document.section("reconstructions").text
    samples = document.section("samples")
    assert sum("each row of one of the 10 classes" in image.attributes["alt"] for image in samples.all("img")) == 2
    assert "no checkpoint" in samples.text
    assert "Samples that the training left at its end." in samples.text
    assert f"--run_dir={runs[0]}" in document.section("evaluation").text


def test_the_machine_is_recorded(document, runs):
    (start,) = json.loads((runs[0] / "environment.json").read_text())
    assert start["from_step"] == 0
    assert start["accelerators"] == "none"
    section = document.section("time-and-machines")
    assert _row(section, "processor")[0] == start["processor"]
    assert _row(section, "tensorflow") == [start["tensorflow"]] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run_dir=nowhere"], "no run in nowhere"),
        ([], "run_dir"),
        (["--run_dir=nowhere", "--num_examples=0"], "num_examples"),
    ],
)
def test_a_mistake_is_one_line(run_command, arguments, message):
    result = run_command("report", *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_place_that_cannot_be_written_is_found_before_the_work(run_command, runs):
    result = run_command("report", f"--run_dir={runs[0]}", f"--output={runs[0]}/missing/report.html")
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "part/s" not in result.stderr, "the models were looked at first"
