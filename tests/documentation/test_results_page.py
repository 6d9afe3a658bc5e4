"""The tables of docs/results.md are what their commands print, from the finished parts that are kept beside them."""

import json
import math
import os
import re
import shlex
import shutil
from pathlib import Path
from statistics import fmean

import forking
import pages
import pytest

from benchmarks.race import page as race_page
from benchmarks.race.measuring import Settings
from benchmarks.race.worker import CLASSES
from tf_pivae.files import read_json, read_records
from tf_pivae.paper import comparison

DOCS = pages.ROOT / "docs"
COMMANDS = [command for page, command in pages.block_commands() if page == "docs/results.md"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with what is kept of the runs, and nothing else of the repository."""
    folder = tmp_path_factory.mktemp("results")
    for runs in (DOCS / "results").glob("*/runs"):
        shutil.copytree(runs, folder / runs.relative_to(pages.ROOT))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_is_what_its_command_prints(command, copy):
    module, *arguments = shlex.split(command)[2:]
    environment = {**os.environ, "TF_PIVAE_CACHE": str(copy / "cache")}
    result = forking.run(module.removeprefix("tf_pivae."), *arguments, cwd=copy, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "training (" not in result.stdout
    assert "evaluating" not in result.stdout
    table = _table(command)
    for suffix in (".md", ".json"):
        assert (copy / table).with_suffix(suffix).read_text() == (pages.ROOT / table).with_suffix(suffix).read_text()
    on_the_page = (DOCS / "results.md").read_text().splitlines()
    printed = _lines_of_a_table(result.stdout)
    recorded = _lines_of_a_table((copy / table).with_suffix(".md").read_text())
    assert printed == recorded
    rows = json.loads((copy / table).with_suffix(".json").read_text())["rows"]
    assert rows
    assert sum(line.startswith("|") for line in printed) == 2 + len(rows)
    assert any(line.startswith("Training took") for line in printed)
    assert any(line.startswith("- ") for line in printed)
    assert set(printed) <= set(on_the_page)


def _lines_of_a_table(text):
    return [line for line in text.splitlines() if line.startswith(("|", "- ", "Training took"))]


def test_every_table_has_its_command():
    tables = {path.relative_to(pages.ROOT).with_suffix("") for path in DOCS.glob("results/*/table_*.md")}
    assert tables == {_table(command) for command in COMMANDS}
    assert len(tables) == len(COMMANDS)


def _table(command):
    """Where a command's table is kept, a relative path without its suffix."""
    options = dict(argument.removeprefix("--").split("=", 1) for argument in shlex.split(command) if "=" in argument)
    return Path(options["output_dir"]) / f"table_{options['table']}"


def test_a_table_is_that_of_its_numbers():
    text = (DOCS / "results/fashion_mnist/table_1.md").read_text()
    fields = set(comparison.Cell._fields)
    for row in json.loads((DOCS / "results/fashion_mnist/table_1.json").read_text())["rows"]:
        cells = [
            comparison.Cell(**{key: value for key, value in row[metric].items() if key in fields})
            for metric in ("bits_per_dim", "fid")
        ]
        numbers = [part for cell in cells for part in (cell.text, cell.published_text)]
        assert f"| {row['label']} | {' | '.join(numbers)} |" in text


@pytest.mark.parametrize(("name", "folder"), [("fashion_mnist", "flagship_squeezed"), ("people", "people")])
def test_a_packaged_model_is_that_of_its_page(name, folder):
    packaged = pages.ROOT / f"tf_pivae/pretrained/{name}/evaluation.json"
    assert read_json(packaged) == read_json(DOCS / f"results/{folder}/evaluation.json")


def test_the_page_of_people_has_the_numbers_of_its_evaluations():
    page = (DOCS / "people.md").read_text()
    test, train = (
        {row["metric"].strip(): row for row in read_json(DOCS / f"results/people/{name}.json")["rows"]}
        for name in ("evaluation", "evaluation_of_training_images")
    )
    for metric in ("bits/dim, K=1", "bits/dim, K=16"):
        numbers = [f"{rows[metric]['value']:.3f} ± {rows[metric]['spread']:.3f}" for rows in (test, train)]
        assert f"| {metric} | {' | '.join(numbers)} |" in page
    assert f"| FID | | {test['FID']['value']:.2f} |" in page
    for metric in ("Precision", "Recall"):
        assert f"| {metric} | | {test[metric]['value']:.3f} |" in page
    rates = _rates(DOCS / "results/people/metrics.jsonl")
    assert f"{sum(3200 / rate for rate in rates) / 60:.0f} minutes" in page  # A line every 100 steps of 32 images.
    assert f"{sum(rates) / len(rates):.0f} images/s" in page


def test_the_page_of_fashion_mnist_has_the_numbers_of_its_evaluation():
    page = (DOCS / "fashion_mnist.md").read_text()
    folder = DOCS / "results/flagship_squeezed"
    evaluation = read_json(folder / "evaluation.json")
    rows = {row["metric"].strip(): row for row in evaluation["rows"]}
    probabilities = (DOCS / "probabilities.md").read_text()
    for kind, label in (("", "q as it was trained"), ("refined ", "refined by two steps")):
        cells = []
        for metric in (f"{kind}bits/dim, K=1", f"{kind}bits/dim, K=16"):
            cells.append(f"{rows[metric]['value']:.3f} ± {rows[metric]['spread']:.3f}")
            assert f"| {metric} | {cells[-1]} |" in page
        assert f"| {label} | {' | '.join(cells)} |" in probabilities
    assert f"| FID | {rows['FID']['value']:.2f} |" in page
    for metric in ("Precision", "Recall", "Density", "Coverage"):
        assert f"| {metric} | {rows[metric]['value']:.3f} |" in page
    likelihood = rows["refined bits/dim, K=16"]["value"]
    distance = rows["FID"]["value"]
    readme = " ".join((pages.ROOT / "README.md").read_text().split())
    assert f"{likelihood:.2f} bits per dimension of Fashion-MNIST at 28x28 and an FID of {distance:.1f}" in readme
    rates = _rates(folder / "metrics.jsonl")
    minutes = sum(3200 / rate for rate in rates) / 60  # A line every 100 steps of 32 images.
    text = " ".join(page.split())
    assert f"One run of {evaluation['step']:,} steps of 32 images" in text
    assert f"{minutes:.0f} minutes of two cores" in text
    assert f"{sum(rates) / len(rates):.0f} images/s in the mean" in text
    assert f"from {minutes:.0f} minutes of two cores" in readme


@pytest.mark.parametrize(
    ("evaluation", "step", "what"),
    [
        ("evaluation_45000", 45000, "none: step 45,000"),
        ("likelihood_first/evaluation", 10600, "6,890 steps without, 3,710 with the adversary"),
        ("likelihood_first/evaluation_18400", 18400, "7,800 more with it"),
    ],
)
def test_the_page_of_fashion_mnist_has_what_the_likelihood_first_does(evaluation, step, what):
    cells = _refined_stage(evaluation, step)
    assert f"| {what} | {cells} |" in (DOCS / "fashion_mnist.md").read_text()


@pytest.mark.parametrize(
    ("evaluation", "step", "what"),
    [("evaluation_45000", 45000, "45,000 (`evaluation_45000.json`)"), ("evaluation", 52000, "52,000")],
)
def test_the_page_of_fashion_mnist_has_what_keeps_the_latents(evaluation, step, what):
    cells = f"{_nats_below_the_top(evaluation):.0f} | {_refined_stage(evaluation, step)}"
    assert f"| {what} | {cells} |" in (DOCS / "fashion_mnist.md").read_text()


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ("evaluation_45000", "held {:.0f} nats of a held-out image at step 45,000"),
        ("likelihood_first/evaluation_18400", "hold {:.0f} in the last model"),
        ("evaluation", "the latents below the top hold {:.0f} nats of a held-out image"),
    ],
)
def test_the_page_of_fashion_mnist_has_what_the_latents_hold(evaluation, words):
    nats = _nats_below_the_top(evaluation)
    assert words.format(nats) in " ".join((DOCS / "fashion_mnist.md").read_text().split())


def _nats_below_the_top(evaluation):
    rows = read_json(DOCS / f"results/flagship_squeezed/{evaluation}.json")["rows"]
    return 784 * math.log(2.0) * sum(row["value"] for row in rows if row["metric"].strip().startswith("kl/top_down_"))


def _refined_stage(evaluation, step):
    """Cells of a stage whose q was refined: log sigma, a training's own K = 1 and K = 16, refined K = 16, FID."""
    path = DOCS / f"results/flagship_squeezed/{evaluation}.json"
    results = read_json(path)
    assert results["step"] == step
    rows = {row["metric"]: row for row in results["rows"]}
    lines = [line for line in read_records(path.parent / "metrics.jsonl") if line["step"] == step]
    (held_out,) = (line for line in lines if "held_out_bits_per_dim/K=1" in line)
    (own,) = (line for line in lines if "log_sigma" in line)
    bits = [f"{held_out[f'held_out_bits_per_dim/K={k}']:.3f}" for k in (1, 16)]
    refined = rows["refined bits/dim, K=16"]
    cells = f"{own['log_sigma']:.2f}", *bits, f"{refined['value']:.3f} ± {refined['spread']:.3f}"
    return " | ".join([*cells, f"{rows['FID']['value']:.2f}"])


def test_the_page_of_fashion_mnist_has_what_the_latents_of_training_batches_hold():
    lines = read_records(DOCS / "results/flagship_squeezed/metrics.jsonl")

    def nats(end):
        last = [line for line in lines if "log_sigma" in line and end - 500 < line["step"] <= end]
        assert len(last) == 5
        return f"{sum(line[f'kl/top_down_{i}'] for line in last for i in range(2)) / 5:.0f}"

    words = f"rose from {nats(45500)} to {nats(46500)} nats"
    text = " ".join((DOCS / "fashion_mnist.md").read_text().split())
    assert words in text
    assert f"came down to {nats(52000)}" in text


def test_the_page_of_the_model_before_has_its_minutes():
    page = (DOCS / "fashion_mnist_before.md").read_text()
    minutes = 0.0
    for run in ("flagship/metrics_40800", "flagship_likelihood_again/metrics", "flagship/metrics"):
        rates = _rates(DOCS / f"results/{run}.jsonl")
        minutes_of_run = sum(6400 / rate for rate in rates) / 60  # A line every 100 steps of 64 images.
        (row,) = re.findall(rf"^\| `results/{run}.jsonl` \| .*$", page, re.MULTILINE)
        assert row.endswith(f"| {sum(rates) / len(rates):.0f} | {minutes_of_run:.0f} |")
        minutes += minutes_of_run
    assert f"Together {minutes:.0f} minutes" in page


def _rates(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["images_per_second"] for row in rows if "images_per_second" in row]


@pytest.mark.parametrize("step", [17280, 22170, 24000, 35000])
def test_the_page_of_fashion_mnist_has_what_the_moving_average_does(step):
    _, numbers = _stage({17280: "kl_weight_1"}.get(step, f"step_{step}"), step)
    page = (DOCS / "fashion_mnist.md").read_text()
    assert re.search(rf"^\| {step:,} \| [^|]* \| {re.escape(numbers)} \|$", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("step", "weight", "name", "metrics"),
    [
        (35000, "50", "step_35000", ""),
        (37000, "15", "step_37000", ""),
        (45000, "15", "step_45000", ""),
        (57000, "8, to step 55,500; then q alone", "weight_8", "weight_8"),
        (58500, "8, to step 55,500; then 0", "likelihood_alone", "likelihood_alone"),
    ],
)
def test_the_page_of_fashion_mnist_has_what_the_adversary_s_weight_does(step, weight, name, metrics):
    _, numbers = _stage(name, step)
    lines = read_records(DOCS / "results/flagship_squeezed" / metrics / "metrics.jsonl")
    (log_sigma,) = (line["log_sigma"] for line in lines if line["step"] == step and "log_sigma" in line)
    page = (DOCS / "fashion_mnist.md").read_text()
    cells = rf"^\| {step:,}( \([^|]*\))? \| {weight} \| [^|]* \| {log_sigma:.2f} \| {re.escape(numbers)} \|$"
    assert re.search(cells, page, re.MULTILINE)


@pytest.mark.parametrize(
    ("optimizer", "rate", "name", "step"),
    [
        ("none: step 45,000", "", "", 45000),
        ("Adamax", "0.002", "adamax_0.002", 900),
        ("Adamax", "0.006", "adamax_0.006", 900),
        ("Adam", "0.0005", "adam_0.0005", 900),
    ],
)
def test_the_page_of_fashion_mnist_has_what_other_steps_do(optimizer, rate, name, step):
    lines = read_records(DOCS / "results/flagship_squeezed" / name / "metrics.jsonl")
    (row,) = (line for line in lines if line["step"] == step and "held_out_bits_per_dim/K=1" in line)
    numbers = " | ".join(f"{row[f'held_out_bits_per_dim/K={k}']:.3f}" for k in (1, 16))
    assert f"| {optimizer} | {rate} | {numbers} |" in (DOCS / "fashion_mnist.md").read_text()


@pytest.mark.parametrize(("name", "weight"), [("0.85", "0.85"), ("finest_1", "0.85, 0.85, 1"), ("1", "1")])
def test_the_page_of_fashion_mnist_has_what_the_kl_s_weight_does(name, weight):
    rows, numbers = _stage(f"kl_weight_{name}", 17280)
    nats = (f"{784 * math.log(2.0) * rows[f'kl/top_down_{i}']:.0f}" for i in range(2))
    assert f"| {weight} | {', '.join(nats)} | {numbers} |" in (DOCS / "fashion_mnist.md").read_text()


def _stage(name, step):
    """What an evaluation of the flagship on its way found, and three cells of it: K = 1, K = 16, FID."""
    evaluation = read_json(DOCS / f"results/flagship_squeezed/{name}/evaluation.json")
    assert evaluation["step"] == step
    rows = {row["metric"].strip(): row["value"] for row in evaluation["rows"]}
    return rows, " | ".join([*(f"{rows[f'bits/dim, K={k}']:.3f}" for k in (1, 16)), f"{rows['FID']:.2f}"])


# What a row of "What holds samples back" changes in its run's config.gin, beside the row with nothing changed.
CHANGES = {
    "gan_paper": set(),
    "gan_penalty": {"GradientPenalty.weight"},
    "gan_nearest": {
        "WeightNormConv2DTranspose.kernel_size",
        "WeightNormConv2DTranspose.strides",
        "plain_vae.upsampling",
    },
    "gan_average": {"train.moving_average"},
    "gan_edge": {"PiVAE.dequantization", "EdgeBins.tails"},
    "gan_spectral": {
        "GradientPenalty.weight",
        "SpectralNormDense.use_bias",
        "Trainer.critic_loss",
        "Trainer.regularizer",
        "plain_critic.conv",
        "plain_critic.dense",
    },
    "cqfg_edge": set(),
    "cqfg_warmup": {"Trainer.kl_warmup_steps"},
    "cqfg_penalty": {"GradientPenalty.weight"},
    "cqfg_weight": {"adversarial_weight"},
    "cqfg_noise": {"PiVAE.observation_noise"},
    "res_edge": set(),
    "res_blocks": {"residual_vae.blocks_per_width"},
}


@pytest.mark.parametrize("folder", sorted((DOCS / "results/causes").glob("*_*/")), ids=lambda folder: folder.name)
def test_what_one_change_does(folder):
    evaluations = [read_json(folder / seed / "evaluation.json") for seed in ("0", "1")]
    steps = 750 if folder.name.startswith("res_") else 1500
    assert all(evaluation["step"] == steps for evaluation in evaluations)
    rows = [{row["metric"].strip(): row["value"] for row in evaluation["rows"]} for evaluation in evaluations]
    fids = [row["FID"] for row in rows]
    cells = [f"{fid:.1f}" for fid in fids]
    page = (DOCS / "results.md").read_text()
    if folder.name == "gan_8000":
        assert f"FID {' and '.join(cells)} (two seeds" in page
    else:
        cells += [f"{fmean(fids):.1f}", *(f"{row['bits/dim, K=1']:.3f}" for row in rows if "bits/dim, K=1" in row)]
        assert f"(`{folder.name}`) | {' | '.join(cells)} |" in page


@pytest.mark.parametrize("name", CHANGES)
def test_one_thing_changes(name):
    base = {"gan": "gan_paper", "cqfg": "cqfg_edge", "res": "res_edge"}[name.split("_")[0]]
    before, after, again = (
        _bindings(DOCS / "results/causes" / run / "config.gin") for run in (f"{base}/0", f"{name}/0", f"{name}/1")
    )
    assert {key for key in before | after if before.get(key) != after.get(key)} == CHANGES[name]
    assert {key for key in after | again if after.get(key) != again.get(key)} == {"seed"}


def _bindings(config):
    return dict(line.split(" = ", 1) for line in config.read_text().splitlines() if " = " in line)


def test_a_plain_gan_in_five_minutes():
    folder = DOCS / "results/five_minutes"
    rates = _rates(folder / "gan/metrics.jsonl")
    seconds = sum(6400 / rate for rate in rates)  # A line every 100 steps of 64 images.
    evaluation = read_json(folder / "gan/evaluation.json")
    ours = {row["metric"].strip().lower(): row["value"] for row in evaluation["rows"]}
    training, theirs = (read_json(folder / f"sngan/gan/{part}.json") for part in ("training", "scores"))
    page = (DOCS / "results.md").read_text()
    for title, steps, rate, minutes, weights, scores in (
        ("ours", evaluation["step"], 6400 * len(rates) / seconds, seconds / 60.0, 305_890, ours),
        ("SNGAN", training["steps"], training["images_per_second"], training["seconds"] / 60.0, 2_262_465, theirs),
    ):
        numbers = f"{minutes:.1f} | {steps:,} | {rate:.0f} | {weights:,} | {scores['fid']:.2f}"
        assert f"| {title} | {numbers} | {scores['precision']:.3f} | {scores['recall']:.3f} |" in page


@pytest.mark.parametrize("name", ["race", "race_hour"])
def test_the_race_s_table_is_that_of_its_numbers(name):
    folder = DOCS / "results" / name
    text = race_page.render(race_page.results(folder), Settings(**read_json(folder / "race.json")))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(CLASSES)
    for path in (folder / "race.md", DOCS / "race.md"):
        assert "\n".join(table) in path.read_text()


def test_what_was_tried_for_the_race():
    page = (DOCS / "race.md").read_text()
    folders = {folder.name: folder for folder in (DOCS / "results/race/tried").iterdir()}
    assert len(folders) == 12
    folders["results/race_hour/pivae"] = DOCS / "results/race_hour/pivae"
    for name, folder in folders.items():
        training, scores = (read_json(folder / f"{part}.json") for part in ("training", "scores"))
        bits, error = scores["bits"]["K = 16"]
        cells = [
            f"{training['steps']:,}",
            f"{training['seconds'] / 60.0:.1f}",
            f"{training['images_per_second']:.0f}",
            f"{bits:.3f} ± {error:.3f}",
            f"{scores['fid']:.2f}",
            f"{scores['precision']:.3f}",
            f"{scores['recall']:.3f}",
        ]
        assert f"(`{name}`) | {' | '.join(cells)} |" in page


def test_the_latents_of_the_race_s_hours():
    page = " ".join((DOCS / "race.md").read_text().split())
    before, now = (
        _last_tenth(DOCS / "results" / name) for name in ("race/tried/an_hour_residual_input", "race_hour/pivae")
    )
    assert f"the finest latents held {before['kl/top_down_1']:,.0f} nats of an image in the last tenth" in page
    assert f"they hold {now['kl/top_down_1']:.0f}." in page
    assert f"hold {now['kl/top']:.0f} and {now['kl/top_down_0']:.0f} nats" in page


def _last_tenth(run):
    """Means of the reports of the training's last tenth."""
    reports = [line for line in read_records(run / "metrics.jsonl") if "kl/top" in line]
    last = [line for line in reports if line["step"] > 0.9 * reports[-1]["step"]]
    return {key: fmean(line[key] for line in last) for key in ("kl/top", "kl/top_down_0", "kl/top_down_1")}
