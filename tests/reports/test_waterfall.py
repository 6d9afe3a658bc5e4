"""The waterfall: from the bits of no model to those of this one, whatever the terms."""

import dataclasses
import itertools

import numpy as np
import pytest
from document import Document

from tf_pivae.metrics import MIN_GROUP_BITS, describe_groups, groups_in_use
from tf_pivae.metrics.bits_per_dim import Estimate
from tf_pivae.report import waterfall
from tf_pivae.report.likelihoods import Likelihoods
from tf_pivae.report.markup import tag


def _terms(*, error=1e-4, **means):
    total = sum(means.values())
    return waterfall.Terms({k: Estimate(v, error) for k, v in means.items()}, Estimate(total, 0.002), "9 images", False)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        # Uniform dequantisation: the constant is where the bars begin.
        (dict(reconstruction=-1.0, kl=0.5, flow=-2.0, discretisation=8.0), ["flow", "reconstruction", "kl"]),
        # Bins at the edges that are wider: the term is not a constant, and under another name.
        (dict(reconstruction=-1.0, kl=0.5, flow=-2.0, bins=7.2), ["flow", "reconstruction", "bins", "kl"]),
        # The constant within the preprocessing's term.
        (dict(reconstruction=-1.0, kl=0.5, flow=2.0, bins=4.5), ["bins", "reconstruction", "kl", "flow"]),
        # A model that is worse than none.
        (dict(reconstruction=3.0, kl=0.5, discretisation=8.0), ["reconstruction", "kl"]),
        (dict(everything=2.5), ["everything"]),
    ],
)  # fmt: skip
def test_bars_lead_from_log2_of_the_levels_to_the_sum(means, expected):
    changes = _terms(**means).changes(8.0)
    steps = waterfall.steps_of(changes, 8.0, waterfall.order_of([changes]))
    assert list(steps) == expected
    bars = list(steps.values())
    assert bars[0].start == 8.0
    assert all(a.end == b.start for a, b in itertools.pairwise(bars))
    assert bars[-1].end == pytest.approx(sum(means.values()))


def test_a_constant_that_varies_by_image_keeps_its_bar():
    terms = waterfall.Terms({"bins": Estimate(8.0, 0.01), "kl": Estimate(1.0, 0.1)}, Estimate(9.0, 0.1), "", False)
    assert list(terms.changes(8.0)) == ["bins", "kl"]
    assert list(_terms(bins=5.0, kl=1.0).changes(5.0)) == ["kl"]


def test_terms_are_means_over_the_images_for_which_all_are_finite(made_up):
    run = made_up[0][0]
    parts = {"a": np.array([1.0, np.inf, 3.0, 8.0]), "b": np.array([2.0, 2.0, np.nan, 4.0])}
    result = waterfall.measured_terms(run, Likelihoods(parts, {}, False))
    # Of 1 and 8, and of 2 and 4: their middle, and half of their distance.
    assert {name: pytest.approx(value) for name, value in result.values.items()} == {"a": (4.5, 3.5), "b": (3.0, 1.0)}
    assert result.total == pytest.approx((7.5, 4.5))
    assert "2 more" in result.images
    none = waterfall.measured_terms(run, Likelihoods({"a": np.array([np.nan])}, {}, False))
    assert none == "its bound is not finite for any of 1 held-out images."


def test_terms_of_an_evaluation_where_none_can_be_measured(made_up):
    """Of a model whose images are not at hand: published numbers, which the made-up evaluation has one of."""
    result = waterfall.measured_terms(made_up[0][0], "no data here")
    assert result.values == {"kl/top": (0.5, None)}
    assert (result.total.mean, result.images) == (4.25, "9 test images")
    without = dataclasses.replace(made_up[0][0], evaluation=None)
    assert waterfall.measured_terms(without, "no data here") == "no data here"


def _rows(html):
    document = Document(tag("section", html, id="terms"))
    table = document.all("table")[0]
    return {row.children[0].text: row.children[1:] for row in table.all("tbody")[0].all("tr")}


def _ends(cell):
    """A bar's ends, per cent of its cell."""
    (bar,) = [e for e in cell.all("span") if e.attributes["class"].startswith("bar ")]
    left, width = (float(part.split(":")[1].rstrip("%")) for part in bar.attributes["style"].split(";"))
    return left, left + width


def test_the_bars_are_drawn_where_the_numbers_say(made_up):
    runs, views = made_up
    rows = _rows(waterfall.render(runs[:1], [views[0].terms]))
    assert list(rows) == [
        "without a model, log₂ 256",
        "flow log-det",
        "reconstruction",
        "KL of top",
        "2 latent groups not in use",
        "with the model, K = 1",
    ]
    measured = views[0].likelihoods.terms
    means = {name: values.mean() for name, values in measured.items()}
    at = 8.0
    for label, change in {
        "flow log-det": means["flow log-det"],
        "reconstruction": means["reconstruction"],
        "KL of top": means["kl/top"],
        "2 latent groups not in use": means["kl/top_down_0"] + means["kl/top_down_1"],
    }.items():
        number, bar = rows[label]
        assert float(number.text.split(" ")[0].replace("−", "-")) == pytest.approx(change, abs=5e-4)
        expected = sorted(12.5 * end for end in (at, at + change))  # The scale is 0 to 8: 12.5 % a bit.
        assert _ends(bar) == pytest.approx(expected, abs=0.02)
        at += change
    total = sum(values.mean() for values in measured.values())
    assert at == pytest.approx(total)
    assert _ends(rows["with the model, K = 1"][1]) == pytest.approx([0.0, 12.5 * total], abs=0.02)


def test_runs_side_by_side_share_rows_and_scale(made_up):
    runs, _ = made_up
    results = [
        _terms(**{"kl/top": 0.5, "kl/low": 1e-5, "discretisation": 8.0}),
        _terms(**{"flow": -3.0, "kl/low": 8.5}),
    ]
    five_bit = dataclasses.replace(runs[1], facts={**runs[1].facts, "num_bins": 32})
    rows = _rows(waterfall.render([runs[0], five_bit], results))
    assert list(rows) == [
        "without a model, log₂ of the levels",
        "flow",
        "KL of top",
        "KL of low",
        "with the model, K = 1",
    ]
    assert [cell.text for cell in rows["without a model, log₂ of the levels"]] == ["8.000", "", "5.000", ""]
    assert [cell.text for cell in rows["flow"]][:2] == ["–", ""]
    assert _ends(rows["flow"][1]) == pytest.approx([80.0, 80.0]), "its bits stay as they are: 8 of 10"
    assert _ends(rows["with the model, K = 1"][3])[1] == pytest.approx(55.0), "5.5 of 10"


def test_the_bound_around_a_frozen_generator_is_in_brackets(made_up):
    runs, views = made_up
    results = [views[0].terms, dataclasses.replace(views[1].terms, approximate=True)]
    html = waterfall.render(runs, results)
    totals = [cell.text for cell in _rows(html)["with the model, K = 1"]][::2]
    assert [total[0] == "[" and total[-1] == "]" for total in totals] == [False, True]
    assert "frozen generator" in "".join(html)


def test_groups_in_use():
    bits = {"top": 33.5, "a": MIN_GROUP_BITS, "b": MIN_GROUP_BITS - 1e-9, "c": -0.02, "d": float("nan")}
    assert groups_in_use(bits) == ["top", "a", "d"]
    assert describe_groups(bits) == (
        "3 of 5 latent groups are in use (top, a, d); each of the others carries less than 1 bit of an image (its KL)."
    )
    assert "1 of 2 latent groups is in use (top); the other carries" in describe_groups({"top": 3.0, "x": 0.0})
    assert describe_groups({"x": 0.0}).startswith("None of")
    assert describe_groups({"top": 3.0, "x": 1.0}).startswith("All latent groups are in use (top, x)")
