"""Axes, products and random draws."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tf_pivae.errors import UserError
from tf_pivae.sweep import space
from tf_pivae.sweep.space import Axis, Choices, Range, parse_axis


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("adversarial_weight=10,30,100", "adversarial_weight", ("10", "30", "100")),
        ("seed=0", "seed", ("0",)),
        ("RealNVP.norm=batch, 'act' ,\"none\"", "RealNVP.norm", ("batch", "act", "none")),
        ("residual_vae.widths=(8,16),(8, 16, 32)", "residual_vae.widths", ("(8, 16)", "(8, 16, 32)")),
        ("residual_vae.posterior=@IAFPosterior,@GaussianPosterior", "residual_vae.posterior", None),
        ("x.name='a,b','True',True,None", "x.name", ("'a,b'", "'True'", "True", "None")),
        ("scope/x.y=1e-3,2.50,-1", "scope/x.y", ("0.001", "2.5", "-1")),
    ],
)
def test_lists(text, name, values):
    axis = parse_axis(text)
    assert axis.name == name
    assert axis.domain.values == (values or tuple(text.split("=")[1].split(",")))


def test_ranges():
    assert parse_axis("learning_rate=log(1e-4,1e-2)") == Axis("learning_rate", Range("log", 1e-4, 1e-2))
    assert parse_axis("x.y=uniform(-1, 2)").domain == Range("uniform", -1.0, 2.0)
    assert parse_axis("RealNVP.num_couplings=int(2,8)").domain == Range("int", 2, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed", "expected NAME=VALUE"),
        ("=1", "expected NAME=VALUE"),
        ("se ed=1", "expected NAME=VALUE"),
        ("seed=", "no values"),
        ("seed=1,,2", "an empty value"),
        ("seed=1,2,", "an empty value"),
        ("seed=1,2,1", "1 comes twice"),
        ("x=0.001,1e-3", "0.001 comes twice"),
        ("x=log(1,10),3", "a range cannot stand in a list"),
        ("x=loguniform(1,10)", "no range 'loguniform'"),
        ("x=log(0,1)", "above 0"),
        ("x=log(-1,1)", "above 0"),
        ("x=uniform(2,1)", "smaller number to a larger"),
        ("x=uniform(1,1)", "smaller number to a larger"),
        ("x=uniform(nan,1)", "smaller number to a larger"),
        ("x=uniform(0,inf)", "smaller number to a larger"),
        ("x=uniform(1)", "takes two numbers"),
        ("x=uniform(a,b)", "takes two numbers"),
        ("x=int(1.5,3)", "takes two whole numbers"),
        ("x=log(1,2,3)", "takes two numbers"),
    ],
)
def test_bad_axes_are_refused_in_a_line(text, expected):
    with pytest.raises(UserError, match=expected) as caught:
        parse_axis(text)
    assert "\n" not in str(caught.value)


def test_the_grid_is_the_product_whatever_the_order_of_the_flags():
    axes = [Axis("b", Choices(("1", "2"))), Axis("a", Choices(("x", "y", "z")))]
    settings = space.grid(axes)
    expected = {frozenset({("a", a), ("b", b)}) for a, b in itertools.product("xyz", "12")}
    assert {frozenset(trial) for trial in settings} == expected
    assert len(settings) == 6
    assert set(space.grid(axes[::-1])) == set(settings)


def test_grids_refuse_ranges_and_multitudes():
    with pytest.raises(UserError, match="--mode=random"):
        space.grid([Axis("x", Range("log", 1.0, 2.0))])
    with pytest.raises(UserError, match="1000000 trials, more than 10000"):
        space.grid([Axis(name, Choices(tuple("0123456789"))) for name in "abcdef"])
    with pytest.raises(UserError, match="20000 trials"):
        space.random([Axis("x", Range("log", 1.0, 2.0))], 20000, 0)
    for number in (None, 0, -3):
        with pytest.raises(UserError, match="--num_trials"):
            space.random([Axis("x", Range("log", 1.0, 2.0))], number, 0)
    with pytest.raises(UserError, match="nothing to sweep"):
        space.check_axes([])
    with pytest.raises(UserError, match="a is swept twice"):
        space.check_axes([Axis("a", Choices(("1",))), Axis("a", Choices(("2",)))])


AXES = [Axis("rate", Range("log", 1e-4, 1e-2)), Axis("x", Range("uniform", -1.0, 3.0)),
        Axis("n", Range("int", 2, 8)), Axis("norm", Choices(("batch", "act", "none")))]  # fmt: skip


def test_random_draws_have_their_distributions():
    draws = [dict(trial) for trial in space.random(AXES, 2000, seed=7)]
    rates = np.log([float(draw["rate"]) for draw in draws])
    low = math.log(1e-4)
    high = math.log(1e-2)
    assert stats.kstest(rates, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert stats.kstest([float(draw["x"]) for draw in draws], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    for name, values in (("n", [str(i) for i in range(2, 9)]), ("norm", ["batch", "act", "none"])):
        counts = [sum(draw[name] == value for draw in draws) for value in values]
        assert sum(counts) == len(draws)
        assert stats.chisquare(counts).pvalue > 1e-3
    # Settings of one trial do not go together.
    assert abs(stats.spearmanr(rates, [float(draw["x"]) for draw in draws]).statistic) < 0.1


def test_random_draws_are_a_function_of_seed_number_and_name():
    first = space.random(AXES, 5, seed=7)
    assert space.random(AXES[::-1], 5, seed=7) == first
    assert space.random(AXES, 8, seed=7)[:5] == first
    assert [dict(trial)["x"] for trial in space.random(AXES[1:2], 5, seed=7)] == [dict(trial)["x"] for trial in first]
    assert not set(space.random(AXES, 5, seed=8)) & set(first)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("uniform", 0.99991, 0.99999),
        ("log", 0.9999, 0.99999),
        ("uniform", 100000.0, 100050.0),
        ("uniform", -7.001, -7.0),
    ],
)
def test_draws_from_a_narrow_range_differ(kind, low, high):
    draws = [float(dict(trial)["x"]) for trial in space.random([Axis("x", Range(kind, low, high))], 50, seed=0)]
    assert len(draws) >= 45  # Of 500 values and more: few of 50 draws are the same.
    assert low <= min(draws) < max(draws) <= high
    assert stats.kstest(draws, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_draws_that_repeat_are_one_trial():
    assert len(space.random([Axis("seed", Choices(("0", "1")))], 50, seed=0)) == 2


def test_rounding_stays_within_the_range():
    ends = Range("uniform", 0.123449, 0.223462)  # To four digits, 0.1234 and 0.2235 are outside.
    assert [float(ends.draw(u)) for u in (0.0, 0.5, 1 - 1e-16)] == [0.123449, 0.1735, 0.223462]
    assert [Range("int", 2, 3).draw(u) for u in (0.0, 0.499, 0.5, 1 - 1e-16)] == ["2", "2", "3", "3"]
