"""A whole table by command: killed in the middle, continued, repeated; and what is done when a part cannot be had."""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import forking
import pytest
from PIL import Image

from tf_pivae.errors import UserError
from tf_pivae.paper import comparison, numbers, row_runs

ARGUMENTS = ["--table=1", "--preset=tiny", "--rows=gan,pivae", "--only_metrics=bits_per_dim"]
ARGUMENTS += ["--gin_param=RealNVP.num_couplings=1", "--gin_param=RealNVP.num_blocks=0"]
# Long enough to be killed within.
ARGUMENTS += ["--gin_param=num_steps=80", "--gin_param=train.checkpoint_every=20"]


def _arguments(output_dir):
    return [*ARGUMENTS, f"--output_dir={output_dir}"]


def _last_step(metrics):
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with two rows of Table 1, interrupted within the GAN's second stage; what the two calls printed.

    It is interrupted twice: by SIGTERM, which the command hands on, and by SIGKILL, which it cannot.
    """
    folder = tmp_path_factory.mktemp("tables")
    metrics = folder / "runs/gan/seed_0/bound/metrics.jsonl"
    before = ""
    reached = 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        streams = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        process = forking.Popen("paper", *_arguments(folder), **streams)
        deadline = time.monotonic() + 900
        while _last_step(metrics) <= reached:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=900)  # The pipe ends when the training, which holds it too, has ended.
        assert process.returncode == (128 + number if number == signal.SIGTERM else -number)
        assert "stopped by SIGTERM and saved" in output
        before = before + output
        reached = _last_step(metrics)
    assert not list(folder.glob("table_1.*"))
    model = {path: path.stat().st_mtime_ns for path in (folder / "runs/gan/seed_0/model").rglob("*") if path.is_file()}
    assert model
    after = forking.run("paper", *_arguments(folder))
    assert after.returncode == 0, after.stderr
    return folder, before, after.stdout, model


def test_goes_on_where_it_was_killed(table):
    folder, before, after, model = table
    assert "GAN, seed 0: training (bound)" in before
    assert "stopped by SIGTERM and saved" in before
    assert "GAN, seed 0: training (model)" not in after
    assert all(path.stat().st_mtime_ns == changed for path, changed in model.items())
    steps = [json.loads(line)["step"] for line in (folder / "runs/gan/seed_0/bound/metrics.jsonl").open()]
    assert steps == list(range(2, 81, 2)), "the second stage was continued, not started again"


def test_table_has_ours_beside_the_published_numbers(table):
    folder, _, after, _ = table
    text = (folder / "table_1.md").read_text()
    assert text in after
    ours = {}
    for name, stage in (("gan", "bound"), ("pivae", "model")):
        evaluation = json.loads((folder / f"runs/{name}/seed_0/{stage}/evaluation.json").read_text())
        ours[name] = evaluation["rows"][0]["value"]
    assert f"| GAN | [{ours['gan']:.2f}] | [7.0] |" in text
    assert f"| PiVAE | {ours['pivae']:.2f} | 3.5 |" in text
    content = json.loads((folder / "table_1.json").read_text())
    assert [row["bits_per_dim"]["mean"] for row in content["rows"]] == list(ours.values())
    assert [row["bits_per_dim"]["published"] for row in content["rows"]] == [7.0, 3.5]


def test_a_finished_table_is_only_printed(table):
    folder = table[0]
    files = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    result = forking.run("paper", *_arguments(folder))
    assert result.returncode == 0
    assert result.stdout == (folder / "table_1.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()} == files


def test_pictures_of_a_table(table):
    folder, *_ = table
    assert forking.run("paper", *_arguments(folder), "--pictures").returncode == 0
    sizes = {path.name: Image.open(path).size for path in folder.glob("*.png")}
    kinds = ("samples", "neighbours", "reconstructions", "curves")
    assert set(sizes) == {f"table_1_{kind}.png" for kind in kinds}
    # Three panels (held out, GAN, PiVAE) twice below each other, against two: the GAN reconstructs nothing.
    assert sizes["table_1_samples.png"][0] > 1.4 * sizes["table_1_reconstructions.png"][0]
    assert sizes["table_1_samples.png"][1] > 1.9 * sizes["table_1_reconstructions.png"][1]
    assert sizes["table_1_neighbours.png"][0] > sizes["table_1_samples.png"][0]  # For the gaps.


def test_time_of_training(table):
    folder, _, after, _ = table
    runs = [folder / f"runs/{name}" for name in ("gan/seed_0/model", "gan/seed_0/bound", "pivae/seed_0/model")]
    seconds = []
    for run in runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        seconds.append(sum(2 * 8 / line["images_per_second"] for line in lines))
    assert f"minutes a seed with all its stages: GAN {sum(seconds[:2]) / 60:.1f}, PiVAE {seconds[2] / 60:.1f}." in after


def test_minutes_are_those_of_all_stages_and_known_without_the_runs(commands, tmp_path):
    row = _find("8", "cqfg_2_2")
    assert row_runs.RowRun(row, "small", 0, tmp_path, say=_quiet).minutes() is None
    row_runs.RowRun(row, "small", 0, tmp_path, say=_quiet).run()
    again = row_runs.RowRun(row, "small", 0, tmp_path, say=_quiet)
    assert again.minutes() == 3.0  # likelihood and model
    assert not (again.directory / "model/config.gin").exists()


def test_further_gin_files_come_after_the_preset(commands, tmp_path):
    row_runs.RowRun(_find("1", "vae"), "small", 0, tmp_path, ["a.gin", "b.gin"], ["c=1"], say=_quiet).run()
    expected = ["--gin_file=paper/vae.gin", "--gin_file=presets/small.gin", "--gin_file=a.gin", "--gin_file=b.gin"]
    assert commands.commands[0][1:7] == [*expected, "--gin_param=seed=0", "--gin_param=c=1"]


def test_a_misspelt_binding_is_refused_before_anything_is_trained(tmp_path, run_command):
    result = run_command("paper", "--table=2", f"--output_dir={tmp_path}", "--gin_param=num_step=3")
    assert result.returncode == 2
    assert "did you mean num_steps" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds="], "--seeds is empty"),
        (["--seeds=x"], "expected whole numbers"),
        (["--seeds=²"], "expected whole numbers"),
        (["--seeds=9223372036854775808"], "expected whole numbers, of 63 bits at most"),
        (["--seeds=0,1,0"], "--seeds=0,1,0: a seed comes twice"),
        (["--rows=nope"], "it has gan, vae, pivae, cqg, cqfg"),
        (["--also=nope"], "choose from precision, recall, density, coverage"),
        (["--only_metrics=bits_per_dim,nope"], "table 1 has bits_per_dim, inception_score, fid"),
        (["--output_dir=/dev/null"], "choose another --output_dir"),
        (["--table=7", "--output_dir=/dev/null/tables"], "choose another --output_dir"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, tmp_path, run_command):
    result = run_command("paper", "--table=1", "--preset=tiny", f"--output_dir={tmp_path}", *arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert expected in result.stderr
    assert not list(tmp_path.iterdir())


class _Commands:
    """Stands in for the train and evaluate commands."""

    def __init__(self, rows=(), refused=(), error=None):
        self.rows = rows
        self.refused = list(refused)
        self.error = error
        self.commands = []

    def __call__(self, command):
        self.commands.append(command)
        if command[0] == "tf_pivae.evaluate" and not self.error:
            run_dir = next(a for a in command if a.startswith("--run_dir=")).removeprefix("--run_dir=")
            text = json.dumps({"rows": self.rows, "refused": self.refused})
            path = row_runs.Path(run_dir) / "evaluation.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.error

    def stages(self):
        return [a.rsplit("/", 1)[1] for c in self.commands for a in c if a.startswith("--run_dir=")]


@pytest.fixture
def commands(monkeypatch):
    commands = _Commands([_row("bits/dim, K=1", 3.0), _row("FID", 20.0)], ["inception_score: no logits"])
    monkeypatch.setattr(row_runs, "_run", commands)
    monkeypatch.setattr(row_runs, "_minutes", lambda run_dir: 1.5)
    return commands


def _row(metric, value):
    return {"metric": metric, "value": value, "spread": 0.1, "protocol": "how"}


def _find(table, name):
    return next(row for row in numbers.TABLES[table].rows if row.name == name)


def _quiet(*_):
    pass


def test_what_cannot_be_had_is_named_and_not_tried_again_unless_asked(commands, tmp_path):
    def run(**options):
        return row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, say=_quiet, **options).run()

    result = {"value": 3.0, "spread": 0.1, "protocol": "how"}
    expected = {"bits_per_dim": result, "inception_score": {"reason": "no logits"}, "fid": {**result, "value": 20.0}}
    assert run() == expected
    assert commands.stages() == ["model", "model"]  # trained, evaluated
    assert run() == expected
    assert len(commands.commands) == 2
    commands.rows.append(_row("Inception Score", 8.0))
    commands.refused.clear()
    assert run(retry=True) == {**expected, "inception_score": {**result, "value": 8.0}}
    assert commands.commands[2][-1] == "--metrics=inception_score"


def test_other_weights_evaluate_again_and_do_not_train_again(commands, tmp_path):
    for weights in ("a", "b"):
        flags = [f"--inception_weights={weights}"]
        row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, evaluation=flags, say=_quiet).run()
    assert [command[0] for command in commands.commands] == ["tf_pivae.train", *2 * ["tf_pivae.evaluate"]]


def test_after_more_training_it_is_evaluated_again(commands, tmp_path):
    for steps, value in ((4, 3.0), (8, 2.5)):
        commands.rows[0]["value"] = value
        row = row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, gin_params=[f"num_steps={steps}"], say=_quiet)
        assert row.run()["bits_per_dim"]["value"] == value
    assert [command[0] for command in commands.commands] == 2 * ["tf_pivae.train", "tf_pivae.evaluate"]


def _checkpoint(row, stage, text):
    path = row.directory / stage / "checkpoints/00000004/manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_bound_is_of_the_model_as_it_is(commands, tmp_path):
    """Where the GAN was trained on, a bound around the shorter one does not go on: it begins anew."""
    row = row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet)
    _checkpoint(row, "model", "4 steps")
    _checkpoint(row, "bound", "around 4 steps")
    row.run()
    row.run()
    assert commands.stages() == ["model", "model", "bound", "bound"]
    _checkpoint(row, "model", "8 steps")
    commands.commands.clear()
    messages = []
    parameters = dict(gin_params=["num_steps=8"], say=messages.append)
    row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, **parameters).run()
    assert commands.stages() == ["model", "model", "bound", "bound"]
    assert not (row.directory / "bound/checkpoints").exists()
    assert (row.directory / "bound_before/checkpoints/00000004/manifest.json").read_text() == "around 4 steps"
    assert any(
        f"model was trained on, so bound begins anew; its run of before is {row.directory}" in m for m in messages
    )
    _checkpoint(row, "bound", "around 8 steps")
    row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, **parameters).run()  # Everything is finished.
    assert len(commands.commands) == 4
    assert (row.directory / "bound/checkpoints").exists()


def test_a_bound_that_is_put_away_is_put_away_whenever_that_is_cut_off(commands, tmp_path, monkeypatch):
    row = row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet)
    _checkpoint(row, "model", "4 steps")
    _checkpoint(row, "bound", "around 4 steps")
    row.run()
    _checkpoint(row, "model", "8 steps")

    def killed(*_, **__):
        raise KeyboardInterrupt

    for place, name in ((row_runs.shutil, "rmtree"), (row_runs.children, "wait_for_lock"), (row_runs.Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(KeyboardInterrupt):
                row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet).run()
    commands.commands.clear()
    row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet).run()
    assert commands.stages() == ["bound", "bound"]
    assert not (row.directory / "bound/checkpoints").exists()


def test_another_content_of_a_gin_file_is_another_command(commands, tmp_path):
    file = tmp_path / "outer.gin"
    file.write_text(f"include '{tmp_path}/more.gin'\n")
    for text, count in (("num_steps = 4\n", 2), ("num_steps = 4\n", 2), ("num_steps = 8\n", 4)):
        (tmp_path / "more.gin").write_text(text)
        row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, [str(file)], say=_quiet).run()
        assert len(commands.commands) == count
    path = tmp_path / "runs/cqfg/seed_0/parts.json"
    parts = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: {**part, "files": None} for name, part in parts.items()}).replace('"files": null, ', "")
    )
    row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, [str(file)], say=_quiet).run()
    assert len(commands.commands) == 4  # Parts of before do not tell of the files.


def test_a_failing_stage_hides_no_finished_numbers(commands, tmp_path):
    class Failing(_Commands):
        def __call__(self, command):
            error = super().__call__(command)
            return "no memory" if "--gin_file=gan_bits_per_dim.gin" in command else error

    commands.__class__ = Failing
    results = row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet).run()
    assert results["fid"]["value"] == 20.0
    assert results["bits_per_dim"] == {"reason": "no memory"}


def test_a_folder_of_another_preset_is_refused(tmp_path, run_command):
    text = json.dumps({"preset": "small", "rows": []})
    (tmp_path / "table_2.json").write_text(text)
    result = run_command("paper", "--table=1", "--preset=tiny", f"--output_dir={tmp_path}")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path}/table_2.json is of --preset=small: choose another --output_dir for --preset=tiny.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["table_2.json"]


def test_an_interrupt_of_the_command_alone_reaches_its_part(tmp_path, monkeypatch):
    """In a terminal, both get it; by `kill -INT`, the one process."""
    (tmp_path / "part.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    code = (
        "import signal; from tf_pivae.paper import row_runs; row_runs._INTERRUPTED_SECONDS = 0.1; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); row_runs._run(['part'])"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code], **streams) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)  # The pipe ends with the part.
    assert process.returncode != 0


def test_two_processes_share_a_row(commands, tmp_path):
    """The second waits for the first, and finds its parts."""
    messages = []
    row = row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, say=messages.append)
    waiting = threading.Thread(target=row.run)
    with row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, say=_quiet)._held():
        waiting.start()
        while not messages:
            waiting.join(0.01)
        assert "another process works on it: waiting" in messages[0]
        assert not commands.commands
    waiting.join()
    row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, say=_quiet).run()
    assert [command[0] for command in commands.commands] == ["tf_pivae.train", "tf_pivae.evaluate"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {"x": 1}}', '{"model": null}'])
def test_damaged_parts_are_named(commands, tmp_path, text):
    row = row_runs.RowRun(_find("1", "cqfg"), "tiny", 0, tmp_path, say=_quiet)
    row.directory.mkdir(parents=True)
    (row.directory / "parts.json").write_text(text)
    with pytest.raises(UserError, match=r"parts\.json is damaged: remove it, then the same command evaluates"):
        row.run()


def test_a_bar_of_a_part_stays_a_bar(tmp_path, monkeypatch, capfd):
    output = "\\r 50%\\r100%\\na warning\\nerror: no weights\\n"
    (tmp_path / "part.py").write_text(f"import sys\nsys.stderr.write('{output}')\nsys.exit(2)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert row_runs._run(["part"]) == "no weights"
    assert capfd.readouterr().err == "\r 50%\r100%\na warning\n"


def test_stages(commands, tmp_path):
    row_runs.RowRun(_find("1", "gan"), "small", 0, tmp_path, say=_quiet).run()
    row_runs.RowRun(_find("8", "cqfg_2_2"), "small", 0, tmp_path, say=_quiet).run()
    assert commands.stages() == ["model", "model", "bound", "bound", "likelihood", "model", "model"]
    assert "--gin_file=presets/small_gan.gin" in commands.commands[0]
    assert "--gin_file=gan_bits_per_dim.gin" in commands.commands[2]
    assert f"--gin_param=initial_run='{tmp_path}/runs/gan/seed_0/model'" in commands.commands[2]
    assert "--gin_param=train.critic=None" in commands.commands[4]
    assert f"--gin_param=train.initial_run='{tmp_path}/runs/cqfg_2_2/seed_0/likelihood'" in commands.commands[5]


def test_a_preset_with_its_own_data_shares_runs(commands, tmp_path):
    for name in ("celeba_crop178", "imagenet64"):
        row = row_runs.RowRun(_find("4", name), "small", 1, tmp_path, say=_quiet)
        row.run()
        assert row.directory == tmp_path / "runs/cqfg_large_d/seed_1"
        assert row_runs.RowRun(_find("4", name), "full", 1, tmp_path).directory == tmp_path / f"runs/{name}/seed_1"
    assert [command[0] for command in commands.commands].count("tf_pivae.train") == 1


def test_a_row_that_cannot_be_trained_says_why(commands, tmp_path):
    commands.error = "cannot download stl10"
    row = _find("3", "stl10_48")
    results = row_runs.RowRun(row, "full", 0, tmp_path, say=_quiet).run()
    assert set(results) == set(row.numbers)
    assert all(result == {"reason": "cannot download stl10"} for result in results.values())
    text = comparison.markdown(
        "T", numbers.TABLES["3"].metrics, [(row.label, comparison.row_cells(row, [results]))], []
    )
    assert f"| {row.label} | none | 4.0 | none | 8.6 | none | 52.7 |" in text
    assert f"- none, FID: cannot download stl10 ({row.label})" in text


def test_mean_and_standard_deviation_over_seeds():
    values = [3.5, 3.75, 3.0]
    result = comparison.cell(3.5, [{"value": value, "protocol": "how"} for value in values])
    assert result.text == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert result.as_dict()["sd"] == pytest.approx(0.38188, abs=1e-5)  # sqrt(((1/12)^2 + (1/3)^2 + (5/12)^2) / 2)
    assert comparison.cell(3.5, [{"value": 3.0, "protocol": "how"}]).text == "3.00"
    assert comparison.cell(7.0, [{"value": 3.0, "protocol": "how"}], approximate=True).text == "[3.00]"
    assert comparison.cell(None, []).text == "-"
    assert comparison.cell(3.5, [{"reason": "why"}]).text == "none"


def test_the_spread_of_single_numbers_is_told():
    results = [{"value": 3.0, "spread": spread, "protocol": "how"} for spread in (0.0123, 0.0456)]
    cells = {"bits_per_dim": comparison.cell(3.9, results)}
    text = comparison.markdown("T", ["bits_per_dim"], [("CQFG", cells)], [])
    assert "- bits/dim: each single number ± 0.012 to 0.046" in text


def test_metrics_beyond_the_paper_have_a_column_of_their_own():
    row = numbers.TABLES["1"].rows[1]._replace(numbers={"fid": 171.0}, also=("recall",))
    results = [{"fid": {"value": 20.0, "protocol": "how"}, "recall": {"value": 0.25, "protocol": "3 neighbours"}}]
    text = comparison.markdown("T", ["fid", "recall"], [("VAE", comparison.row_cells(row, results))], [])
    assert "| | FID | published | recall |\n" in text
    assert "| VAE | 20.00 | 171.0 | 0.25 |\n" in text
    assert "- recall: 3 neighbours\n" in text


def test_real_subsets_beside_table_7():
    results = [{"inception_score": {"reason": "no logits"}, "fid": {"value": 2.2, "protocol": "how"}}]
    rows = comparison.real_subset_rows({10_000: results, 64: results})
    text = comparison.markdown("T", ("inception_score", "fid"), rows, [])
    assert "| 10,000 images | none | 11.3219 | 2.20 | 2.1 |" in text
    assert "| 64 images | none | - | 2.20 | - |" in text
