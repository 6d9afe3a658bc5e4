"""What the report reads from run directories."""

import dataclasses
import json

import gin
import numpy as np
import pytest
from PIL import Image

from tf_pivae import loading
from tf_pivae.configuration import preserved
from tf_pivae.data.arrays import ImageSplit
from tf_pivae.errors import UserError
from tf_pivae.files import read_records
from tf_pivae.report import configuration, curves, drawn, evaluations, hardware, pictures
from tf_pivae.report import run as run_records
from tf_pivae.runs import recorded


def test_bindings_are_those_that_gin_reads(tiny):
    """Against gin's own parser, long values that it breaks into lines included."""
    with preserved():
        loading.parse_gin([tiny], ["residual_vae.widths=(" + ", ".join(map(str, range(100, 150))) + ")"])
        text = gin.config_str(max_line_length=80)
        expected = {}
        for (_, selector), parameters in gin.config._CONFIG.items():
            name = selector.rsplit(".", 1)[-1]
            for parameter, value in parameters.items():
                expected[f"{name}.{parameter}"] = value
    actual = recorded.bindings(text)
    assert actual["residual_vae.widths"].count(",") == 49
    constants = {n: v for n, v in expected.items() if isinstance(v, int | float | bool | tuple | type(None))}
    constants = {n: v for n, v in constants.items() if n in actual}
    assert len(constants) >= 15
    for name, value in constants.items():
        assert eval(actual[name], {}) == value, name
    assert actual["num_steps"] == "12"
    assert recorded.setting(text, "train.num_steps") == "12"
    assert recorded.setting(text, "PiVAE.flow") == "@RealNVP"
    assert recorded.setting(text, "PiVAE.nothing") is None


def test_differences_are_between_any_two():
    configs = [{"a.x": "1", "b": "2", "c": "3"}, {"a.x": "1", "b": "2"}, {"a.x": "5", "b": "2", "c": "3"}]
    assert configuration.differences(configs) == {"c": ["3", None, "3"], "a.x": ["1", "1", "5"]}


def test_names_tell_runs_apart(tmp_path):
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "other"]
    assert run_records._names(paths) == ["run", "other"]
    paths[1] = tmp_path / "y" / "run"
    assert run_records._names(paths) == list(map(str, paths))
    assert run_records._names([paths[0]] * 2) == [f"1: {paths[0]}", f"2: {paths[0]}"]


def test_half_a_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"a": 1.0}\n{"step": "x"}\n{"step": 2, "a"')
    assert read_records(path) == [{"step": 1, "a": 2.0}]
    assert read_records(tmp_path / "missing") == []


def test_garbage_in_the_records_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "a": NaN, "b": "<b>", "c": [1], "d": 1e999}\n\xc3\xa4\n[1]\n{"step": -1}\n'
                     b'{"step": true}\n{"step": 1e3}\n{"step": 99999999999999999999}\n' + b"[" * 100_000)  # fmt: skip
    lines = run_records._lines(path)
    assert [line["step"] for line in lines] == [1]
    assert run_records._numbers(lines[0]) == {"step": 1, **dict.fromkeys("abcd")}
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"metrics.jsonl: it is not text\."):
        run_records._lines(path)
    rows = ["x", {}, {"metric": 3, "value": 1.0}, {"metric": "a", "value": "1"}, {"metric": "b", "value": float("nan")},
            {"metric": "c", "value": 10**400}, {"metric": "d", "value": 2, "spread": "x", "new": 1}]  # fmt: skip
    result = evaluations.rows_of({"step": 1, "rows": rows})
    assert [(row.metric, row.spread) for row in result.values()] == [("d", None)]
    assert evaluations.rows_of({"step": 1, "rows": 3}) == {}


def test_training_time_follows_the_speed(made_up):
    run = dataclasses.replace(
        made_up[0][0],
        batch_size=10,
        metrics=[{"step": 4, "images_per_second": 20.0}, {"step": 8, "images_per_second": 5.0}, {"step": 8, "a": 1.0}],
    )
    assert hardware.training_seconds(run) == pytest.approx(40 / 20 + 40 / 5)
    assert hardware.training_seconds(dataclasses.replace(run, metrics=[])) is None


def test_scores_of_an_earlier_step_say_so(made_up):
    run = made_up[0][0]
    assert evaluations.scores(run)["precision"] == "0.7500 ± 0.0100"
    earlier = dataclasses.replace(run, evaluation={**run.evaluation, "step": 50})
    assert evaluations.scores(earlier)["precision"] == "0.7500 ± 0.0100 (step 50)"


def test_evaluations_during_the_training_are_curves(made_up):
    rows = [{"metric": "FID", "value": 50.0}]
    evaluations = [{"step": step, "rows": rows} for step in (50, 100)]
    charts = curves.gather([dataclasses.replace(made_up[0][0], evaluations=evaluations)])
    (chart,) = [chart for chart in charts if chart.metric == "evaluation: FID"]
    assert chart.curves == [curves.Curve(0, [50, 100], [50.0, 50.0])]


def test_many_pictures_are_thinned_evenly(made_up, tmp_path):
    (tmp_path / "samples").mkdir()
    for step in range(100, 5001, 100):
        Image.new("RGB", (2, 2)).save(tmp_path / "samples" / f"{step:06d}.png")
    (tmp_path / "samples" / ".000200.png.partial").write_bytes(b"half")
    frames, count = pictures.sample_frames(dataclasses.replace(made_up[0][0], path=tmp_path), max_frames=8)
    steps = [step for step, _ in frames]
    assert count == 50
    assert (steps[0], steps[-1], len(steps)) == (100, 5000, 8)
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 100


def test_pairs_are_of_one_class():
    labels = np.array([2, 0, 1, 0, 2, 0, 1])
    assert drawn.pairs(labels, 7, 2).tolist() == [1, 3, 2, 6]
    assert drawn.pairs(None, 7, 2).tolist() == [0, 1, 2, 3]
    assert drawn.pairs(None, 1, 2).tolist() == [0, 0]
    assert drawn.pairs(np.array([0, 1]), 2, 2).tolist() == [0, 0]
    assert ImageSplit(np.zeros([1, 2, 2, 1], np.uint8)).images[drawn.pairs(None, 1, 2)].shape == (2, 2, 2, 1)


def test_json_in_the_page_cannot_end_its_element():
    from tf_pivae.report.markup import data_script

    written = data_script("x", ["</script><!--"])
    assert written.count("<") == 2
    assert json.loads(written.split(">", 1)[1].rsplit("<", 1)[0]) == ["</script><!--"]
