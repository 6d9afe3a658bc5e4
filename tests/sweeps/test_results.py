"""Rows, the CSV file, the picture, and what TensorBoard reads."""

import csv
import json

import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.sweep import command, picture, results
from tf_pivae.sweep.trials import Record, Trial


def trial_with(tmp_path, lines=(), evaluation=None, status="finished", error=None, **settings):
    trial = Trial(tuple(sorted(settings.items())), str(tmp_path))
    trial.claim("")
    trial.write(Record(status, ("train",) * (status == "finished"), 0 if status == "finished" else 2, error, 12.5))
    (trial.directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
    if evaluation:
        (trial.directory / "evaluation.json").write_text(json.dumps({"step": 4, "rows": evaluation, "refused": []}))
    return trial


def report(step, bits, **others):
    return {"step": step, "bits_per_dim": bits, "log_sigma": -1.0, "images_per_second": 5.0, **others}


def held_out(bits):
    return {"step": 4, "held_out_bits_per_dim/K=1": bits, "held_out_standard_error/K=1": 0.25}


FID = {"metric": "FID", "value": 70.5, "spread": None, "protocol": "", "approximate": False}
PART = {"metric": "  reconstruction", "value": 1.0, "spread": 0.1, "protocol": "", "approximate": False}


@pytest.fixture
def trials(tmp_path):
    return [
        trial_with(
            tmp_path,
            [report(2, 5.0), report(4, 4.5, critic_loss=0.5), held_out(4.75)],
            [FID, PART],
            rate="0.001",
            norm="act",
            seed="0",
        ),
        trial_with(tmp_path, [report(2, 6.0), held_out(5.5)], rate="1e-05", norm="batch", seed="1"),
        trial_with(tmp_path, [], status="failed", error='it said "no", twice', rate="0.01", norm="act", seed="0"),
        trial_with(tmp_path, [report(2, 3.0)], status="stopped", rate="0.01", norm="none", seed="1"),
    ]


def test_a_row_is_what_the_files_say(trials):
    row = results.row(trials[0])
    assert row["bits_per_dim"] == 4.75
    assert row["bits_per_dim_standard_error"] == 0.25
    assert (row["step"], row["seconds"], row["rate"], row["norm"]) == (4, 12.5, "0.001", "act")
    assert (row["train/bits_per_dim"], row["train/critic_loss"], row["train/log_sigma"]) == (4.5, 0.5, -1.0)
    assert row["evaluation/FID"] == 70.5
    assert "evaluation/  reconstruction" not in row
    failed = results.row(trials[2])
    assert (failed["step"], failed["bits_per_dim"], failed["error"]) == (0, None, 'it said "no", twice')


def test_the_csv_file_has_every_column_of_every_trial(trials, tmp_path):
    rows = [results.row(trial) for trial in trials]
    results.write_csv(tmp_path / "results.csv", rows[::-1])  # the row with most columns comes last
    with open(tmp_path / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 4
    for row, values in zip(rows[::-1], read, strict=True):
        assert values == {name: "" if row.get(name) is None else str(row[name]) for name in values}
        assert set(row) <= set(values)
    assert list(read[0])[-1] == "run_dir"
    with pytest.raises(UserError, match="cannot write"):
        results.write_csv(tmp_path / "missing" / "results.csv", rows)


def test_metric_columns_are_those_of_finished_trials(trials):
    rows = [results.row(trial) for trial in trials]
    assert results.metric_columns(rows) == ["bits_per_dim", "evaluation/FID"]
    assert results.metric_columns(rows[2:]) == []
    # A GAN has no likelihood: its losses have to do.
    gan = {"status": "finished", "bits_per_dim": None, "train/quality_loss": 0.5, "train/critic_loss": None}
    assert results.metric_columns([gan]) == ["train/quality_loss"]


def test_axes():
    linear = picture.axis("x", [1, 3, 2])
    assert linear.positions == [0.0, 1.0, 0.5]
    assert linear.ticks == [(0.0, "1"), (0.5, "2"), (1.0, "3")]
    logarithmic = picture.axis("rate", [1e-4, 1e-2, 1e-3])
    np.testing.assert_allclose(logarithmic.positions, [0.0, 1.0, 0.5])
    assert [label for _, label in logarithmic.ticks] == ["0.0001", "0.001", "0.01"]
    words = picture.axis("norm", ["b", "a", "b", "c"])
    np.testing.assert_allclose(words.positions, [0.5, 1 / 6, 0.5, 5 / 6])
    assert picture.axis("seed", [7, 7]).positions == [0.5, 0.5]
    many = picture.axis("x", list(np.linspace(-1.0, 3.0, 50)))
    assert [label for _, label in many.ticks] == ["-1", "0", "1", "2", "3"]
    near = picture.axis("bits", [7.54871, 7.54889])
    assert [label for _, label in near.ticks] == ["7.5487", "7.5489"]
    assert picture.axis("mixed", [True, "None", 3]).ticks[0][1] == "3"


def blue(pixels):
    """Where a picture of lines is as blue as the best trial's."""
    return (pixels[..., 2].astype(int) - pixels[..., 0]) > 120


def test_the_picture_shows_finished_trials_the_best_in_blue(trials, tmp_path):
    rows = [results.row(trial) for trial in trials]
    drawn = np.asarray(command.draw(rows[:2] + rows[2:], ["norm", "rate"]))
    assert drawn.shape[0] == 420
    # Both finished trials have bits/dim, only one FID: it alone is drawn, and it is the best of itself.
    assert blue(drawn).sum() > 300
    without_fid = [{k: v for k, v in row.items() if "FID" not in k} for row in rows]
    drawn = np.asarray(command.draw(without_fid, ["norm", "rate"]))
    orange = (drawn[..., 0].astype(int) - drawn[..., 2]) > 120
    assert blue(drawn).sum() > 300
    assert orange.sum() > 300
    # On the axis of bits/dim the best lies at the bottom, the worst on top.
    last = slice(90 + 2 * 190 - 20, 90 + 2 * 190)
    assert np.argwhere(blue(drawn)[:, last])[:, 0].mean() > 360
    assert np.argwhere(orange[:, last])[:, 0].mean() < 120
    assert command.draw(rows[2:], ["norm", "rate"]) is None


def test_tensorboard_reads_settings_and_metrics(trials, tmp_path):
    """Read back by TensorBoard's own HParams page."""
    from google.protobuf import json_format
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    rows = [results.row(trial) for trial in trials]
    for _ in range(2):  # A sweep that goes on writes again, and nothing comes twice.
        results.write_hparams(tmp_path, trials, rows)
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = backend_context.Context(TBContext(data_provider=provider, logdir=str(tmp_path), multiplexer=multiplexer))
    request_context = RequestContext()
    experiment = get_experiment.Handler(request_context, context, "", api_pb2.GetExperimentRequest()).run()
    domains = {info.name: json_format.MessageToDict(info.domain_discrete) for info in experiment.hparam_infos}
    assert domains == {"norm": ["act", "batch", "none"], "rate": [1e-05, 0.001, 0.01], "seed": [0.0, 1.0]}
    statuses = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=statuses,
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(request_context, context, "", request).run().session_groups
    assert {group.name for group in groups} == {trial.name for trial in trials}
    by_name = {group.name: json_format.MessageToDict(group) for group in groups}
    first = by_name[trials[0].name]
    assert first["hparams"] == {"norm": "act", "rate": 0.001, "seed": 0.0}
    values = {value["name"]["tag"]: value["value"] for value in first["metricValues"]}
    assert values == {"sweep/bits_per_dim": 4.75, "sweep/evaluation/FID": 70.5}
    assert "metricValues" not in by_name[trials[2].name]


def test_settings_of_mixed_types_become_one_type(tmp_path):
    trials = [trial_with(tmp_path, x=x, y=y) for x, y in (("1", "1"), ("2.5", "None"))]
    results.write_hparams(tmp_path, trials, [results.row(trial) for trial in trials])
    assert results.plain("2.5") == 2.5
    assert results.plain("(8, 16)") == "(8, 16)"
    assert results.plain("batch") == "batch"
    assert results.plain("True") is True


def test_earlier_trials_are_those_of_the_table(tmp_path):
    """Whatever their settings look like, as long as their folder is there."""
    assert results.earlier_trials(tmp_path, ["x", "y"]) == []
    trials = [trial_with(tmp_path, x=x, y="-1") for x in ("@vae", "'=1'", '"a, b"', "1e-05")]
    results.write_csv(tmp_path / "results.csv", [results.row(trial) for trial in trials])
    assert results.earlier_trials(tmp_path, ["y", "x"]) == trials
    (trials[1].directory / "trial.gin").unlink()
    assert results.earlier_trials(tmp_path, ["x", "y"]) == [trials[0], *trials[2:]]
    for damaged in (b"", b"trial,x,status\n", b"\xff\xfe\x00", b"trial,status\na,b\n"):
        (tmp_path / "results.csv").write_bytes(damaged)
        assert results.earlier_trials(tmp_path, ["x", "y"]) == []


@pytest.mark.parametrize("text", ["[]", "{", "3", '{"step": 4, "rows": [3]}'])
def test_a_damaged_evaluation_leaves_the_row(tmp_path, text):
    trial = trial_with(tmp_path, [report(2, 5.0)], x="1")
    (trial.directory / "evaluation.json").write_text(text)
    assert results.row(trial)["status"] == "finished"


def test_of_a_killed_sweep_no_trial_is_running(tmp_path):
    assert results.row(trial_with(tmp_path, status="running", x="1"))["status"] == "stopped"


def test_other_values_are_added_to_a_sweep(trials, tmp_path):
    """The table, the picture and the HParams have the trials of before, too; the rows returned are those asked for."""
    first, second = trials[:2]
    command.write_results(tmp_path, [first])
    assert [row["trial"] for row in command.write_results(tmp_path, [second])] == [second.name]
    with open(tmp_path / "results.csv", newline="") as file:
        assert [line["trial"] for line in csv.DictReader(file)] == [second.name, first.name]


def test_spreadsheets_run_nothing_of_it(tmp_path):
    """What begins like a formula stands behind a quote; numbers stay numbers."""
    last = {"seconds": 1.0, "exit_status": -9, "error": "@SUM(A1)", "run_dir": "x"}
    row = {"trial": "a", "x": "=1+1", "y": "-0.5", "=z": "@residual_vae", "status": "failed", **last}
    results.write_csv(tmp_path / "results.csv", [row])
    with open(tmp_path / "results.csv", newline="") as file:
        header, cells = csv.reader(file)
    result = dict(zip(header, cells, strict=True))
    assert result["x"] == "'=1+1"
    assert (result["y"], result["exit_status"]) == ("-0.5", "-9")
    assert (result["'=z"], result["error"]) == ("'@residual_vae", "'@SUM(A1)")
