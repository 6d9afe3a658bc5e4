"""The page's structure: whole, self-contained, accessible, and true to its records. No browser needed."""

import base64
import dataclasses
import itertools
import json
import re

import pytest
from document import Document
from PIL import Image

from tf_pivae.report.histograms import from_counts
from tf_pivae.report.markup import Html, breakable, tag
from tf_pivae.report.page import render
from tf_pivae.report.views import unloadable

SECTIONS = [
    "overview",
    "samples",
    "reconstructions",
    "latents",
    "bits-per-dimension-by-term",
    "likelihoods-of-other-images",
    "evaluation",
    "curves",
    "time-and-machines",
    "settings",
]


@pytest.fixture(scope="module")
def document(made_up_page):
    return Document(made_up_page.read_text("utf-8"))


@pytest.fixture(scope="module", params=["made_up_page", "bare_page"])
def any_page(request):
    """The text of a page, of whatever runs."""
    return request.getfixturevalue(request.param).read_text("utf-8")


def test_all_sections_are_there_and_linked(any_page):
    document = Document(any_page)
    assert [section.attributes["id"] for section in document.all("section")] == SECTIONS
    (navigation,) = document.all("nav")
    assert [link.attributes["href"] for link in navigation.all("a")] == [f"#{name}" for name in SECTIONS]
    assert all(len(section.text.split()) > 3 for section in document.all("section")), "an empty section"
    identifiers = [e.attributes["id"] for e in document.every if "id" in e.attributes]
    assert len(identifiers) == len(set(identifiers))


def test_nothing_is_fetched(any_page):
    document = Document(any_page)
    for element in document.every:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            address = element.attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), f"<{element.name} {name}={address!r}>"
    for code in document.all("style") + document.all("script"):
        assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon", code.text)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", any_page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the name of SVG's elements, never fetched"
    (policy,) = [m for m in document.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_everything_has_its_name_for_those_who_cannot_see_it(any_page):
    document = Document(any_page)
    assert document.all("html")[0].attributes["lang"] == "en"
    assert len(document.all("h1")) == 1
    levels = [int(e.name[1]) for e in document.every if re.fullmatch(r"h[1-6]", e.name)]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), "a heading's level is left out"
    for image in document.all("img"):
        assert len(image.attributes["alt"]) > 10
    for table in document.all("table"):
        assert table.children[0].name == "caption"
        assert table.children[0].text.strip()
        assert all(
            cell.attributes["scope"] == "row" for row in table.all("tbody")[0].all("tr") for cell in row.all("th")
        )
    for drawing in document.all("svg"):
        assert drawing.attributes.get("aria-hidden") == "true" or len(drawing.attributes["aria-label"]) > 10
    labels = {label.attributes["for"] for label in document.all("label")}
    for control in document.all("input"):
        assert control.attributes["id"] in labels
    for chart in [e for e in document.every if e.attributes.get("class") == "chart"]:
        assert chart.attributes["tabindex"] == "0"
        assert " at step " in chart.attributes["aria-label"]


def test_names_and_values_cannot_become_html(made_up, document):
    runs, _ = made_up
    assert document.all("title")[0].text == f"Report: a, {runs[1].name}"
    assert len(document.all("script")) == 2, "the data and the program"
    assert "Four <images>." in document.section("reconstructions").text
    assert "test images, <seed> 0" in document.section("evaluation").text


def test_markup_escapes_all_but_itself():
    made = tag("p", "<b>", Html("<i>x</i>"), None, ["&", 3], title='"<', hidden=True, id=None, data_step=5)
    assert tag("p", "a\udcff", title="\udcff") == '<p title="?">a?</p>'
    assert made == '<p title="&quot;&lt;" hidden data-step="5">&lt;b&gt;<i>x</i>&amp;3</p>'


def test_names_may_break_behind_their_signs_and_nowhere_else():
    assert breakable("runs/top_down_1.gin") == "runs/<wbr>top_down_1.<wbr>gin"
    assert breakable("runs/top_down_1.gin", everywhere=True) == "runs/<wbr>top_<wbr>down_<wbr>1.<wbr>gin"
    assert breakable("a_b " + "long_" * 8 + "x") == "a_b " + "long_<wbr>" * 8 + "x"  # Too long for a phone's line.
    assert breakable("3.14, 1,000 e-3 <b>") == "3.14, 1,000 e-3 &lt;b&gt;"


def test_curves_are_the_recorded_numbers(made_up, document):
    runs, _ = made_up
    (data,) = [script for script in document.all("script") if script.attributes.get("id") == "curves-data"]
    actual = json.loads(data.text)
    assert actual["runs"] == [run.name for run in runs]
    charts = {chart["metric"]: chart for chart in actual["charts"]}
    assert list(charts)[:2] == ["bits_per_dim", "kl"]
    for index, run in enumerate(runs):
        for metric in ("bits_per_dim", "gradient_norm"):
            curve = charts[metric]["curves"][index]
            expected = {line["step"]: line[metric] for line in run.metrics}
            assert dict(zip(curve["steps"], curve["values"], strict=True)) == expected
        assert charts["kl"]["curves"][index]["values"] == [1.5 + index] * 10, "the sum over groups"


def _frames(section):
    """What stands in the page as samples: for each run, step -> PNG."""
    results = []
    for frame in [e for e in section.all("div") if e.attributes.get("class") == "frames"]:
        images = frame.all("img")
        assert ["hidden" in image.attributes for image in images] == [True] * (len(images) - 1) + [False]
        data = [image.attributes["src"].removeprefix("data:image/png;base64,") for image in images]
        steps = [int(image.attributes["data-step"]) for image in images]
        results.append(dict(zip(steps, map(base64.b64decode, data), strict=True)))
    return results


def test_samples_are_the_files_and_then_the_models_own(made_up, document):
    """The second run has pictures up to step 80, and its model is of step 100."""
    runs, views = made_up
    for run, view, frames in zip(runs, views, _frames(document.section("samples")), strict=True):
        files = {int(path.stem): path.read_bytes() for path in (run.path / "samples").iterdir()}
        assert frames == {100: view.samples[1], **files}


def test_without_a_model_the_pictures_at_the_end_are_shown(made_up, tmp_path):
    for name in ("samples", "reconstructions"):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{name}.png")
    run = dataclasses.replace(made_up[0][0], path=tmp_path)
    document = Document(render([run], [unloadable(run, "no checkpoint")], {}))
    for name in ("samples", "reconstructions"):
        (image,) = document.section(name).all("img")
        data = base64.b64decode(image.attributes["src"].removeprefix("data:image/png;base64,"))
        assert data == (tmp_path / f"{name}.png").read_bytes()
        assert (image.attributes["width"], image.attributes["height"]) == ("30", "20")


def test_a_file_that_is_no_picture_is_left_out(made_up, tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "000010.png").write_text("<script>")
    (tmp_path / "samples" / "000020.png").mkdir()
    run = dataclasses.replace(made_up[0][0], path=tmp_path)
    document = Document(render([run], [dataclasses.replace(made_up[1][0], neighbours="none")], {}))
    assert [list(frames) for frames in _frames(document.section("samples"))] == [[100]]


def test_unused_latent_groups_are_folded_under_a_sentence(document):
    for section in ("latents", "bits-per-dimension-by-term"):
        details = document.section(section).all("details")
        assert len(details) == 2, "one for each run"
        assert all("open" not in element.attributes for element in details)
    (summary,) = document.section("bits-per-dimension-by-term").all("details")[0].all("summary")
    assert summary.text == (
        "a: 1 of 3 latent groups is in use (top); each of the others carries less than 1 bit of an image (its KL)."
    )


def test_settings_come_last_and_folded(document):
    assert [table for table in document.section("settings").all("table") if not _is_folded(table)] == []
    assert [table for table in document.section("time-and-machines").all("table") if _is_folded(table)]


def _is_folded(element):
    while element is not None and element.name != "details":
        element = element.parent
    return element is not None


def test_evaluation_and_time(document):
    text = document.section("evaluation").text
    assert "4.2500 ± 0.0125" in text
    assert "lacks fid: no weights" in text
    assert "25 s" in document.section("time-and-machines").text, "100 steps of 16 images, 64 a second"


def test_evaluations_rows_of_any_metric(document):
    """Precision and recall are known to nobody here; the histogram's two bins are as wide as their edges say."""
    section = document.section("evaluation")
    rows = {row.children[0].text: [cell.text for cell in row.children[1:]] for row in section.all("tr")}
    assert rows["recall"] == ["0.500050 samples", "0.600050 samples"]
    assert _cards(document)[0]["precision"] == "0.7500 ± 0.0100"
    drawings = section.all("svg")
    assert [drawing.attributes["class"] for drawing in drawings] == ["histogram run0", "histogram run1"]
    assert drawings[0].all("path")[0].attributes["d"] == "M0,48V0H160V24H480V48Z"


@pytest.mark.parametrize(
    "histogram",
    [7, {"edges": [0, 1]}, {"edges": [0, 1], "counts": [1, 2]}, {"edges": [1, 0], "counts": [1]},
     {"edges": [0, 1e999], "counts": [1]}, {"edges": [0, 1], "counts": [-1]}, {"edges": ["<b>", 1], "counts": [1]},
     {"edges": [0, 1], "counts": [[1]]}, {"edges": [0], "counts": []}],
)  # fmt: skip
def test_a_histogram_that_is_none_is_left_out(histogram):
    assert from_counts(histogram, "title", "run", 0) is None


def _cards(document):
    """What the overview says of each run: label -> value, its state under "state"."""
    results = []
    for card in [e for e in document.section("overview").all("div") if e.attributes.get("class") == "card"]:
        labels, values = ([element.text for element in card.all(name)] for name in ("dt", "dd"))
        results.append(dict(zip(labels, values, strict=True)) | {"state": card.all("p")[0].text})
    return results


def test_bits_per_dim_of_the_overview(made_up):
    run = made_up[0][0]
    view = made_up[1][0]
    trained = dataclasses.replace(run, metrics=[*run.metrics, {"step": 100, "held_out_bits_per_dim/K=1": 3.5}])
    of_training_images = json.loads(json.dumps(run.evaluation).replace("9 test images", "9 train images"))
    runs = [run, trained, dataclasses.replace(run, evaluation=of_training_images)]
    cards = _cards(Document(render(runs, [view] * 3, {})))
    assert [card.get("Bits/dim, held out") for card in cards] == ["4.250 (K=1)", "3.500 (K=1)", None]


@pytest.mark.parametrize(
    ("last_metrics", "checkpoint", "expected"),
    [
        (100, 100, "finished, 100 steps"),
        (None, 100, "finished, 100 steps"),  # Published, or copied without its metrics.
        (None, 60, "60 of 100 steps, unfinished"),
        (70, 60, "70 of 100 steps, unfinished; shown as of its checkpoint of step 60"),
        (100, None, "finished, 100 steps; no checkpoint to show"),
        (None, None, "0 of 100 steps, unfinished; no checkpoint to show"),
    ],
)
def test_state_of_a_run(made_up, last_metrics, checkpoint, expected):
    metrics = [] if last_metrics is None else [{"step": last_metrics, "bits_per_dim": 1.0}]
    run = dataclasses.replace(made_up[0][0], metrics=metrics)
    document = Document(render([run], [dataclasses.replace(made_up[1][0], step=checkpoint)], {}))
    assert _cards(document)[0]["state"] == expected
    silent = {(None, 100): "came without the curves", (None, None): "has no metrics yet"}
    assert silent.get((last_metrics, checkpoint), "") in document.section("curves").text


def test_configuration_shows_what_differs(document):
    section = document.section("settings")
    rows = [[cell.text for cell in row.children] for row in section.all("table")[0].all("tbody")[0].all("tr")]
    assert rows == [["RealNVP.width", "8", "9"]]
    assert len(section.all("details")) == 3


def test_what_a_run_does_not_have_is_said(bare_page):
    document = Document(bare_page.read_text("utf-8"))
    for section, text in {
        "curves": "fresh has no metrics yet",
        "samples": "fresh: no checkpoint yet",
        "reconstructions": "fresh: no checkpoint yet",
        "latents": "fresh: no checkpoint yet",
        "bits-per-dimension-by-term": "fresh: no checkpoint yet",
        "likelihoods-of-other-images": "fresh: no checkpoint yet",
        "evaluation": "fresh has not been evaluated: python -m tf_pivae.evaluate --run_dir=",
        "time-and-machines": "fresh did not record the machine",
    }.items():
        assert text in document.section(section).text
    assert "0 of 100 steps, unfinished" in document.section("overview").text
