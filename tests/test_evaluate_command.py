"""The evaluate command as a user runs it, and what its numbers must satisfy."""

import dataclasses
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import time

import forking
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_pivae
from tf_pivae import loading
from tf_pivae.data import bundled, reduced_levels
from tf_pivae.errors import UserError
from tf_pivae.evaluate import image_metrics, measuring, results, watching
from tf_pivae.metrics.bits_per_dim import bits_per_dim
from tf_pivae.publish.folder import publish
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.records import load_facts


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small feature network, 8 features, as a user would bring it."""
    keras.utils.set_random_seed(0)
    image = keras.Input([16, 16, 1])
    features = keras.layers.Conv2D(8, 5, strides=2, activation="relu")(keras.layers.Rescaling(1 / 128, -1)(image))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(features), name="tiny_net")
    path = tmp_path_factory.mktemp("network") / "tiny_net.keras"
    model.save(path)
    return path


def test_the_refined_bound_stands_beside_the_bound(finished_copy, evaluate):
    """The same images, a tighter q of each; the other metrics of the step stay."""
    result = evaluate(f"--run_dir={finished_copy}", "--metrics=bits_per_dim", "--importance_samples=4")
    assert result.returncode == 0
    arguments = "--metrics=refined_bits_per_dim", "--importance_samples=4", "--refinement_steps=1"
    result = evaluate(f"--run_dir={finished_copy}", *arguments)
    assert result.returncode == 0
    rows = {row["metric"]: row for row in json.loads((finished_copy / "evaluation.json").read_text())["rows"]}
    assert rows["refined bits/dim, K=4"]["value"] < rows["refined bits/dim, K=1"]["value"]
    assert "64 test images" in rows["refined bits/dim, K=1"]["protocol"]
    assert "steps: 1" in rows["refined bits/dim, K=1"]["protocol"]
    model = tf_pivae.load(finished_copy)
    images = loading.load_dataset(finished_copy).test.images
    refinement = model.refine(images, 1)
    for k in (1, 4):
        expected = model.bits_per_dim(images, k, refinement=refinement).mean()
        assert rows[f"refined bits/dim, K={k}"]["value"] == pytest.approx(expected, rel=1e-5)
        assert rows[f"refined bits/dim, K={k}"]["value"] != rows[f"bits/dim, K={k}"]["value"]


def test_a_table_a_json_and_a_protocol(finished_copy, network, evaluate):
    run_dir = finished_copy
    metrics = "--metrics=bits_per_dim,fid,kid,precision,coverage"
    result = evaluate(f"--run_dir={run_dir}", metrics, "--importance_samples=4", f"--feature_network={network}")
    # 64 reference images are fewer than the 1,000 of a KID subset: one line says so, after all the others are done.
    assert result.returncode == 2
    assert result.stderr.count("error: ") == 1
    assert "error: kid: " in result.stderr
    written = json.loads((run_dir / "evaluation.json").read_text())
    assert written["step"] == 12
    rows = {row["metric"].strip(): row for row in written["rows"]}
    assert rows["bits/dim, K=4"]["value"] < rows["bits/dim, K=1"]["value"]
    terms = [row["value"] for row in written["rows"] if row["metric"].startswith("  ")]
    assert sum(terms) == pytest.approx(rows["bits/dim, K=1"]["value"], rel=1e-6)
    (frechet,) = [row for name, row in rows.items() if name.startswith("Frechet[")]  # Never 'FID' with this network.
    for fact in ("64 samples", "against 64", "test", "tiny_net"):
        assert fact in frechet["protocol"]
    for name, neighbours in (("Precision[tiny_net]", 3), ("Coverage[tiny_net]", 5)):
        assert 0.0 <= rows[name]["value"] <= 1.0
        assert f"{neighbours} nearest neighbours among 64 and 64" in rows[name]["protocol"]
    for name in rows:
        assert name in result.stdout
    assert "FID" not in result.stdout


def test_any_batch_size_gives_the_same_bits_per_dim(finished):
    model = tf_pivae.load(finished[0])
    images = bundled(image_size=16, num_examples=(256, 64)).test.images[:23]  # The last batch is partial.
    results = [
        bits_per_dim(
            images,
            terms=lambda batch, k, row: model.bound_terms(batch, 5, first_row=row, sample=k),
            num_importance_samples=3,
            batch_size=size,
            progress=False,
        )
        for size in (1, 8, 23)
    ]
    direct = model.bits_per_dim(images, 3, seed=5).astype(np.float64)
    for result in results:
        assert result.importance_weighted.mean == pytest.approx(direct.mean(), rel=1e-6)
        assert result.importance_weighted.standard_error == pytest.approx(direct.std(ddof=1) / np.sqrt(23), rel=1e-5)
        assert result.one_sample.mean == pytest.approx(model.bits_per_dim(images, seed=5).mean(), rel=1e-6)
        total = sum(term.mean for term in result.terms.values())
        assert total == pytest.approx(result.one_sample.mean, rel=1e-9)


def test_an_interrupted_pass_goes_on(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [60, 4, 4, 1], np.uint8)
    calls = []

    def arguments(fail_at):
        def terms(batch, k, row):
            calls.append(row)
            if row == fail_at:
                raise KeyboardInterrupt
            return {"a": batch.astype(np.float64).sum((1, 2, 3)), "b": np.full(len(batch), -1.0 - k)}

        return dict(terms=terms)

    options = dict(num_importance_samples=2, batch_size=2, progress=False, state_path=tmp_path / "s.npz", key="k")
    whole = bits_per_dim(images, **arguments(None), **{**options, "state_path": None})
    with pytest.raises(KeyboardInterrupt):
        bits_per_dim(images, **arguments(50), **options)
    calls.clear()
    assert bits_per_dim(images, **arguments(None), **options) == whole
    assert calls[0] == 40  # Where the last state was written.
    calls.clear()
    assert bits_per_dim(images, **arguments(None), **options) == whole
    assert not calls  # It was finished, but nobody had kept the result.


def test_watch_evaluates_every_checkpoint(finished_copy, evaluate):
    run_dir = finished_copy
    arguments = (f"--run_dir={run_dir}", "--watch", "--importance_samples=1", "--num_examples=16", "--poll_seconds=0.1")
    result = evaluate(*arguments)
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line)["step"] for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]
    assert list((run_dir / "tensorboard" / "evaluation").iterdir())
    again = evaluate(*arguments)  # Everything is done already: nothing is added.
    assert again.stdout == f"{run_dir} is evaluated up to its last step, 12: {run_dir / 'evaluations.jsonl'}\n"
    assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == 3
    # A line that was cut off is left alone and done again; so is that of another checkpoint of the same step.
    lines = (run_dir / "evaluations.jsonl").read_text().splitlines()
    other = json.dumps({**json.loads(lines[1]), "checkpoint": "another"})
    (run_dir / "evaluations.jsonl").write_text(f"{lines[2]}\n{other}\n{lines[0][:50]}")
    assert evaluate(*arguments).returncode == 0
    text = (run_dir / "evaluations.jsonl").read_text()
    assert text == f"{lines[2]}\n{other}\n{lines[0][:50]}\n{lines[0]}\n{lines[1]}\n"
    (run_dir / "evaluations.jsonl").write_text("".join(f"{line}\n" for line in lines))
    # A metric more is computed of the checkpoints that are there; those of before are not computed again.
    more = evaluate(*arguments, "--metrics=bits_per_dim,refined_bits_per_dim")
    assert more.returncode == 0, more.stderr
    lines = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()[3:]]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert {row["metric"] for line in lines for row in line["rows"]} == {"refined bits/dim, K=1"}
    # A run whose `num_steps` was set below the steps that it has taken is waited for no longer.
    config = (run_dir / "config.gin").read_text()
    (run_dir / "config.gin").write_text(config.replace("train.num_steps = 12", "train.num_steps = 10"))
    assert evaluate(*arguments).stdout == again.stdout
    (run_dir / "config.gin").write_text(config)
    both = evaluate(*arguments, "--step=4")
    assert (both.returncode, both.stderr) == (
        2,
        "error: --watch evaluates every checkpoint, --step one: give one of them.\n",
    )
    # One that was refused is tried again.
    for _ in range(2):
        refused = evaluate(*arguments, "--metrics=bits_per_dim,fid", "--inception_weights=nowhere.tgz")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: fid: ")


def test_watch_says_that_it_waits(tmp_path):
    """A misspelt --run_dir would be waited for in silence."""
    arguments = [f"--run_dir={tmp_path / 'none'}", "--watch"]
    with forking.Popen("evaluate", *arguments, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout.readline() == f"waiting for a training to begin in {tmp_path / 'none'}\n"
        finally:
            watching.terminate()


def test_watch_ends_with_its_run(tmp_path, finished):
    """Once it is deleted, no checkpoint comes any more."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    text = (run_dir / "config.gin").read_text()
    (run_dir / "config.gin").write_text(text.replace("num_steps = 12", "num_steps = 14"))  # There are more to come.
    arguments = [f"--run_dir={run_dir}", "--watch", "--importance_samples=1", "--num_examples=4", "--poll_seconds=0.1"]
    with forking.Popen("evaluate", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        while "at step 12" not in watching.stdout.readline():
            assert watching.poll() is None
        shutil.rmtree(run_dir)
        _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 2
    assert errors == f"error: {run_dir} was removed while it was watched.\n"


def test_watch_beside_a_running_training(tmp_path, plain, evaluate):
    """Started before there is a run, it evaluates each checkpoint while the training goes on, and ends with it."""
    run_dir = tmp_path / "run"
    watch = ["evaluate", f"--run_dir={run_dir}", "--watch", "--importance_samples=1"]
    watch += ["--num_examples=16", "--poll_seconds=0.1"]
    train = ["train", f"--gin_file={plain}", f"--run_dir={run_dir}"]
    # More checkpoints than the training keeps; it is halted at the first ones until the watcher has evaluated one.
    parameters = ["num_steps=200", "train.checkpoint_every=20", "train.log_every=100"]
    train += [f"--gin_param={parameter}" for parameter in parameters]
    with forking.Popen(*watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        with forking.Popen(*train, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
            log = run_dir / "evaluations.jsonl"
            while training.poll() is None and not list(run_dir.glob("checkpoints/0*")):
                time.sleep(0.01)
            training.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 200
            while watching.poll() is None and not log.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            training.send_signal(signal.SIGCONT)
            assert log.exists(), "no checkpoint was evaluated beside the training"
            assert training.poll() is None, "the first checkpoint was evaluated after the training's end"
            _, errors = training.communicate(timeout=600)
            assert training.returncode == 0, errors
        output, errors = watching.communicate(timeout=600)
    assert watching.returncode == 0, errors
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 200
    assert steps[0] < 200
    for step in steps:
        assert f"at step {step}\n" in output
    alone = evaluate(f"--run_dir={run_dir}", "--importance_samples=1", "--num_examples=16")
    assert alone.returncode == 0, alone.stderr
    last = json.loads(log.read_text().splitlines()[-1])["rows"]
    assert json.loads((run_dir / "evaluation.json").read_text())["rows"] == last


def test_two_replicas_give_the_same_table(finished, network, monkeypatch):
    """Bits per dimension and their parts on two replicas, and a distance of samples drawn on two."""
    settings = image_metrics.Settings(
        metrics=("bits_per_dim", "fid"), importance_samples=3, feature_network=str(network), progress=False
    )
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        assert strategy.num_replicas_in_sync == len(devices)
        monkeypatch.setattr(measuring, "local_strategy", lambda strategy=strategy: strategy)
        results.append(measuring.evaluate_run(finished[0], settings))
    one, two = results
    assert [row.metric for row in one.rows] == [row.metric for row in two.rows]
    for a, b in zip(one.rows, two.rows, strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-5 if "bits" in a.protocol or "bits" in a.metric else 1e-2)
        assert b.protocol == a.protocol


def test_a_gan_gets_its_bound_in_square_brackets(tmp_path, evaluate, run_command, tiny):
    """Section 5.1: the generator is frozen, sigma and an inference network are trained around it."""
    gan = tmp_path / "gan.gin"
    gan.write_text(
        f"include '{tiny}'\ninclude 'models/no_flow.gin'\nTrainer.likelihood_weight = 0.0\n"
        "residual_vae.latent_channels = 0\ntrain.sample_every = 0\nnum_steps = 2\n"
    )

    def train(*arguments):
        result = run_command("train", f"--gin_file={gan}", *arguments)
        assert result.returncode == 0, result.stderr

    train(f"--run_dir={tmp_path / 'gan'}")
    result = evaluate(f"--run_dir={tmp_path / 'gan'}")
    assert result.returncode == 2
    assert "gan_bits_per_dim.gin" in result.stderr
    second_stage = f"--run_dir={tmp_path / 'bound'}"
    train("--gin_file=gan_bits_per_dim.gin", f"--gin_param=initial_run={tmp_path / 'gan'}", second_stage)
    before = tf_pivae.load(tmp_path / "gan")
    after = tf_pivae.load(tmp_path / "bound")
    np.testing.assert_array_equal(before.sample(8, sample_noise=0.0), after.sample(8, sample_noise=0.0))
    assert before.vae.log_sigma.numpy() != after.vae.log_sigma.numpy()
    assert (before.vae.stem.v.numpy() != after.vae.stem.v.numpy()).any()
    result = evaluate(second_stage)
    assert result.returncode == 0, result.stderr
    value = json.loads((tmp_path / "bound" / "evaluation.json").read_text())["rows"][0]["value"]
    assert f"[{value:.4f}]" in result.stdout


def test_few_levels_are_compared_on_one_scale(network, tmp_path):
    """A model of 32 levels whose samples are the held-out images themselves is at distance 0 from them."""
    data = reduced_levels(lambda: bundled(image_size=16, num_examples=(64, 200)))
    levels = np.asarray(data.test.images)

    class Perfect:
        num_bins = 32
        num_classes = 0

        def sample(self, count, seed, labels, batch_size, first_row):
            return levels[first_row : first_row + count]

    settings = image_metrics.Settings(metrics=("fid",), feature_network=str(network), progress=False)
    rows = []
    measuring._image_rows(measuring._Subject(Perfect(), data, {}, settings, tmp_path, "", None, []), ["fid"], rows, [])
    assert rows[0].value == pytest.approx(0.0, abs=1e-6)


def test_real_subsets_show_the_pattern_of_table_7(network):
    """Frechet distance to the full set grows as images are dropped; it is 0 for all of them.

    Its expectation goes with 1 / count; a single subset of each size scatters around it, hence the mean over seeds.
    """
    values = []
    for seed in range(8):
        settings = image_metrics.Settings(metrics=(), feature_network=str(network), seed=seed, progress=False)
        rows = image_metrics.real_subset_rows(bundled(image_size=16), [8000, 4000, 800, 80], settings)
        values.append([row.value for row in rows])
    mean = np.mean(values, 0)
    assert mean[0] == pytest.approx(0.0, abs=1e-9)
    assert all(a < b for a, b in itertools.pairwise(mean))
    assert rows[1].metric == "4000 real: Frechet[tiny_net]"


def test_two_folders_without_a_run(tmp_path, network, evaluate):
    generator = np.random.default_rng(0)
    for name, top in (("a", 256), ("b", 128)):
        (tmp_path / name).mkdir()
        for i in range(24):
            image = generator.integers(0, top, [16, 16], np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    folders = (f"--images={tmp_path / 'a'}", f"--reference_images={tmp_path / 'b'}", "--metrics=fid")
    result = evaluate(*folders, f"--feature_network={network}")
    assert result.returncode == 0, result.stderr
    assert "24 samples against 24" in result.stdout
    # 24 images are fewer than the 1,000 of a KID subset; the other metric is given all the same.
    both = evaluate(*folders[:2], "--metrics=kid,fid", f"--feature_network={network}")
    assert both.returncode == 2
    assert both.stdout == result.stdout
    assert re.fullmatch(r"error: kid: .*1000.*\n", both.stderr.splitlines(keepends=True)[-1])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--metrics=fidd", "--run_dir=x"], "choose from bits_per_dim"),
        (["--metrics=", "--run_dir=x"], "--metrics is empty: choose from bits_per_dim"),
        (["--run_dir=missing"], "no run in missing"),
        ([], "--run_dir"),
        (["--real_subsets=many", "--gin_file=demo.gin"], "whole numbers"),
        (["--real_subsets=64", "--gin_file=models/no_flow.gin"], "add --gin_param=train.dataset=@bundled"),
        (["--images=nowhere", "--metrics=fid"], "nowhere"),
        (["--images=nowhere", "--run_dir=runs/demo"], "give one of them"),
        (["--fast", "--feature_network=x", "--run_dir=x"], "--fast applies to the Inception network"),
    ],
)
def test_errors_are_one_line(arguments, expected, evaluate):
    result = evaluate(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert expected in result.stderr


def test_without_inception_weights_every_other_metric_is_given(finished_copy, evaluate):
    run_dir = finished_copy
    arguments = ("--metrics=bits_per_dim,fid", "--importance_samples=1", "--inception_weights=nowhere.tgz")
    result = evaluate(f"--run_dir={run_dir}", *arguments)
    assert result.returncode == 2
    assert "bits/dim, K=1" in result.stdout
    assert "error: fid: " in result.stderr
    assert json.loads((run_dir / "evaluation.json").read_text())["rows"]


def test_a_mistake_does_not_take_earlier_numbers_away(finished, tmp_path, evaluate):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir, ignore=shutil.ignore_patterns("evaluation*"))
    for rows in ([], [{"metric": "FID"}]):
        result = evaluate(f"--run_dir={run_dir}", "--metrics=fid", "--inception_weights=nowhere.tgz")
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
        written = json.loads((run_dir / "evaluation.json").read_text())
        assert written["rows"] == rows
        (run_dir / "evaluation.json").write_text(json.dumps({"rows": [{"metric": "FID"}]}))


def test_what_cannot_be_had_is_refused_before_samples_are_drawn(finished, network, monkeypatch):
    monkeypatch.setattr(measuring, "sampler", None)
    metrics = ("fid", "kid", "inception_score")
    settings = image_metrics.Settings(metrics=metrics, feature_network=str(network), num_samples=7, progress=False)
    result = measuring.evaluate_run(finished[0], settings)
    assert not result.rows
    reasons = ["fid: the first set has 7 samples", "kid: KID draws subsets of 1000", "inception_score: .* needs logits"]
    for reason, refused in zip(reasons, result.refused, strict=True):
        assert re.match(reason, refused)


def test_gan_train_and_test_want_classes(finished):
    settings = image_metrics.Settings(metrics=("gan_train",), progress=False)
    (reason,) = measuring.evaluate_run(finished[0], settings).refused
    assert "class-conditional" in reason


@pytest.mark.parametrize(("value", "spread"), [(math.inf, 0.1), (math.nan, None), (1.0, math.nan)])
def test_numbers_that_are_not_finite_are_not_written(value, spread):
    with pytest.raises(UserError, match=r"bits/dim, K=1 is .* at step 3: the model has diverged\. Evaluate an earlier"):
        results.as_json(results.Evaluation(3, "a", [results.Row("bits/dim, K=1", value, spread, "")], []))


def test_rows_of_other_metrics_of_the_same_step_stay():
    row = results.Row
    earlier = {
        "step": 3,
        "weights": "a",
        "rows": [dataclasses.asdict(row(name, 1.0, None, "")) for name in ("bits/dim, K=1", "  kl", "FID", "KID")],
    }
    fresh = results.Evaluation(3, "a", [row("FID", 2.0, None, "")], [])
    merged = results.with_earlier(fresh, earlier).rows
    assert [(row.metric, row.value) for row in merged] == [
        ("bits/dim, K=1", 1.0),
        ("  kl", 1.0),
        ("KID", 1.0),
        ("FID", 2.0),
    ]
    again = results.Evaluation(3, "a", [row("bits/dim, K=1", 2.0, None, ""), row("bits/dim, K=8", 2.0, None, "")], [])
    merged = results.with_earlier(again, earlier).rows
    assert [row.metric for row in merged] == ["FID", "KID", "bits/dim, K=1", "bits/dim, K=8"]
    for other in (None, {**earlier, "step": 2}, {**earlier, "weights": "b"}):
        assert results.with_earlier(fresh, other) == fresh
    del earlier["weights"]  # A file of before.
    assert len(results.with_earlier(fresh, earlier).rows) == 4


def test_an_interrupted_evaluation_repeats_no_finished_metric(finished, network, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir, ignore=shutil.ignore_patterns("evaluation*"))
    metrics = ("bits_per_dim", "fid")
    settings = image_metrics.Settings(metrics, feature_network=str(network), importance_samples=2, progress=False)
    expected = measuring.evaluate_run(finished[0], settings)
    for path in expected.states:
        path.unlink()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measuring.metrics, "image_scores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measuring.evaluate_run(run_dir, settings)
    monkeypatch.setattr(tf_pivae.PiVAE, "bound_terms", interrupted)
    monkeypatch.setattr(tf_pivae.PiVAE, "sample", interrupted)
    watching.evaluate(str(run_dir), settings, None)
    written = json.loads((run_dir / "evaluation.json").read_text())
    assert written["rows"] == [dataclasses.asdict(row) for row in expected.rows]
    assert written["weights"] == expected.weights
    assert not list((run_dir / "evaluation").glob("*.npz"))


def test_two_evaluations_at_once_keep_each_others_rows(finished_copy, monkeypatch):
    """The one that ends last has read the file before the other one wrote it."""
    settings = image_metrics.Settings(("bits_per_dim",), importance_samples=1, num_examples=4, progress=False)
    refined = dataclasses.replace(settings, metrics=("refined_bits_per_dim",))
    evaluate_run = measuring.evaluate_run

    def slow(run_dir, settings, step):
        result = evaluate_run(run_dir, settings, step)
        monkeypatch.setattr(measuring, "evaluate_run", evaluate_run)
        watching.evaluate(run_dir, refined, None)
        return result

    monkeypatch.setattr(measuring, "evaluate_run", slow)
    watching.evaluate(str(finished_copy), settings, None)
    names = {row["metric"] for row in json.loads((finished_copy / "evaluation.json").read_text())["rows"]}
    assert {"bits/dim, K=1", "refined bits/dim, K=1"} <= names


def test_a_run_that_goes_meanwhile_is_one_line_after_the_table(finished_copy, monkeypatch, capsys):
    settings = image_metrics.Settings(("bits_per_dim",), importance_samples=1, num_examples=4, progress=False)
    evaluate_run = measuring.evaluate_run

    def removing(*arguments):
        result = evaluate_run(*arguments)
        shutil.rmtree(finished_copy)
        return result

    monkeypatch.setattr(measuring, "evaluate_run", removing)
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        watching.evaluate(str(finished_copy), settings, None)
    assert "bits/dim, K=1" in capsys.readouterr().out


def test_rows_of_other_weights_of_the_same_step_go(finished_copy):
    """Such as where a run was removed and trained again: numbers of two models do not stand side by side."""
    settings = image_metrics.Settings(("bits_per_dim",), importance_samples=1, num_examples=4, progress=False)
    watching.evaluate(str(finished_copy), settings, None)
    model = tf_pivae.load(finished_copy)
    published = finished_copy.with_name("published")
    publish(finished_copy, published)
    assert (published / "evaluation.json").exists()
    model.trainable_variables[0].assign_add(tf.ones_like(model.trainable_variables[0]))
    shutil.rmtree(finished_copy / "checkpoints")
    groups = {"moving_average" if load_facts(finished_copy)["moving_average"] else "pivae": model.variables}
    Checkpoints(finished_copy / "checkpoints").save(12, groups)
    watching.evaluate(str(finished_copy), dataclasses.replace(settings, metrics=("refined_bits_per_dim",)), None)
    rows = json.loads((finished_copy / "evaluation.json").read_text())["rows"]
    assert [row["metric"] for row in rows] == ["refined bits/dim, K=1"]
    shutil.copy(published / "evaluation.json", finished_copy)
    publish(finished_copy, finished_copy.with_name("again"))
    assert not (finished_copy.with_name("again") / "evaluation.json").exists()


@pytest.mark.parametrize("make", [lambda path: path.write_text("a file"), lambda path: path.symlink_to("treasure")])
def test_a_runs_folder_of_states_is_its_own(make, finished, tmp_path):
    """Not a link of whoever made the run, into which files would be written and deleted."""
    shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("evaluation*"))
    (tmp_path / "run/treasure").mkdir()
    (tmp_path / "run/treasure/bits_per_dim.npz").write_text("precious")
    make(tmp_path / "run/evaluation")
    with pytest.raises(UserError, match=r"run/evaluation is not a folder: remove it, then evaluate again\.$"):
        measuring.evaluate_run(tmp_path / "run", image_metrics.Settings(("bits_per_dim",)))
    assert (tmp_path / "run/treasure/bits_per_dim.npz").read_text() == "precious"
