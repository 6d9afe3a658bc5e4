"""The page's structure: whole, self-contained, accessible, and true to its records. No browser needed."""

import base64
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from document import Document

from tf_pivae.reports.histograms import render_terms
from tf_pivae.reports.markup import Html, tag
from tf_pivae.reports.page import render

SECTIONS = [
    "overview",
    "configuration",
    "curves",
    "samples-over-time",
    "reconstructions",
    "latent-traversals",
    "interpolations",
    "bits-per-dimension-by-term",
    "likelihoods-of-other-images",
    "evaluation",
    "hardware-and-time",
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
    assert made == '<p title="&quot;&lt;" hidden data-step="5">&lt;b&gt;<i>x</i>&amp;3</p>'


def test_curves_are_the_recorded_numbers(made_up, document):
    runs, _ = made_up
    (data,) = [script for script in document.all("script") if script.attributes.get("id") == "curves-data"]
    found = json.loads(data.text)
    assert found["runs"] == [run.name for run in runs]
    charts = {chart["metric"]: chart for chart in found["charts"]}
    assert list(charts)[:2] == ["bits_per_dim", "kl"]
    for index, run in enumerate(runs):
        for metric in ("bits_per_dim", "gradient_norm"):
            curve = charts[metric]["curves"][index]
            expected = {line["step"]: line[metric] for line in run.metrics}
            assert dict(zip(curve["steps"], curve["values"], strict=True)) == expected
        assert charts["kl"]["curves"][index]["values"] == [1.5 + index] * 10, "the sum over groups"


def test_pictures_are_the_files(made_up, document):
    runs, _ = made_up
    frames = [e for e in document.section("samples-over-time").all("div") if e.attributes.get("class") == "frames"]
    for run, frame in zip(runs, frames, strict=True):
        images = frame.all("img")
        steps = [int(image.attributes["data-step"]) for image in images]
        assert steps == sorted(int(path.stem) for path in (run.path / "samples").iterdir())
        assert ["hidden" in image.attributes for image in images] == [True] * (len(images) - 1) + [False]
        for step, image in zip(steps, images, strict=True):
            data = base64.b64decode(image.attributes["src"].removeprefix("data:image/png;base64,"))
            assert data == (run.path / "samples" / f"{step:06d}.png").read_bytes()


def test_terms_and_their_sum(made_up, document):
    _, (view, _) = made_up
    rows = document.section("bits-per-dimension-by-term").all("tbody")[0].all("tr")
    shown = {row.all("th")[0].text: float(row.all("td")[0].text.split()[0]) for row in rows}
    for name, values in view.likelihoods.terms.items():
        assert shown.pop(name) == pytest.approx(np.mean(values), abs=5e-4)
    (total,) = shown.values()
    assert total == pytest.approx(np.mean(view.likelihoods.sets["held-out images"]), abs=5e-4)


def test_evaluation_and_time(document):
    text = document.section("evaluation").text
    assert "4.2500 ± 0.0125" in text
    assert "lacks fid: no weights" in text
    assert "0 min 25 s" in document.section("hardware-and-time").text, "100 steps of 16 images, 64 a second"


def test_bits_per_dim_of_the_overview(made_up):
    run = made_up[0][0]
    trained = dataclasses.replace(run, metrics=[*run.metrics, {"step": 100, "held_out_bits_per_dim/K=1": 3.5}])
    of_training_images = json.loads(json.dumps(run.evaluation).replace("9 test images", "9 train images"))
    runs = [run, trained, dataclasses.replace(run, evaluation=of_training_images)]
    document = Document(render(runs, [made_up[1][0]] * 3, {}))
    (row,) = [row for row in document.section("overview").all("tr") if row.children[0].text.startswith("Held-out")]
    assert [cell.text for cell in row.children[1:]] == ["4.250 (K=1)", "3.500 (K=1)", "–"]


def test_configuration_shows_what_differs(document):
    section = document.section("configuration")
    rows = [[cell.text for cell in row.children] for row in section.all("table")[0].all("tbody")[0].all("tr")]
    assert rows == [["RealNVP.width", "8", "9"]]
    assert len(section.all("details")) == 2


def test_what_a_run_does_not_have_is_said(bare_page):
    document = Document(bare_page.read_text("utf-8"))
    for section, text in {
        "curves": "fresh has no metrics yet",
        "samples-over-time": "fresh has drawn no samples yet",
        "reconstructions": "fresh: no checkpoint yet",
        "latent-traversals": "fresh: no checkpoint yet",
        "bits-per-dimension-by-term": "fresh: no checkpoint yet",
        "likelihoods-of-other-images": "fresh: no checkpoint yet",
        "evaluation": "fresh has not been evaluated: python -m tf_pivae.evaluate --run_dir=",
        "hardware-and-time": "fresh did not record the machine",
    }.items():
        assert text in document.section(section).text
    assert "0 of 100, unfinished" in document.section("overview").text


def test_the_bound_around_a_frozen_generator_is_in_brackets(made_up):
    runs, views = made_up
    found = [dataclasses.replace(view.likelihoods, approximate=i == 1) for i, view in enumerate(views)]
    document = Document(tag("section", render_terms(runs, found), id="terms"))
    totals = [cell.text for cell in document.all("tr")[-1].all("td")]
    assert [total[0] == "[" and total[-1] == "]" for total in totals] == [False, True]
    assert "frozen generator" in document.section("terms").text
