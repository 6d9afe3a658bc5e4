"""The fragments of gin/options by command: one at a time in the configuration, all of them together in a run."""

import json
import re
import shutil
from pathlib import Path

import forking
import gin
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_pivae
from tf_pivae import loading
from tf_pivae.data import bundled
from tf_pivae.runs.weights import restore_model

OPTIONS = sorted(path.stem for path in (Path(__file__).resolve().parent.parent / "gin/options").glob("*.gin"))
# What a fragment must bind, in the configuration that a run would have.
BINDS = {
    "actnorm": {"RealNVP.norm": "act"},
    "adam": {
        "Trainer.generator_optimizer": "@generator/Adam",
        "Trainer.critic_optimizer": "@critic/Adam",
        "generator/Adam.learning_rate": "@LinearSchedule()",
        "critic/Adam.learning_rate": "@LinearSchedule()",
        "Adam.beta_1": 0.5,
        "Adam.beta_2": 0.9,
        "Adam.global_clipnorm": None,
        "LinearSchedule.rate": 0.0005,
        "LinearSchedule.warmup_steps": 500,
        "LinearSchedule.num_steps": "%num_steps",
        "LinearSchedule.decay_start": 0,
    },
    "differentiable_augmentation": {"Trainer.augment": "@DifferentiableAugmentation"},
    "edge_bins": {"PiVAE.dequantization": "@EdgeBins"},
    "five_bit": {"PiVAE.num_bins": 32, "train.dataset": "@reduced_levels", "reduced_levels.num_bins": 32},
    "free_bits": {"Trainer.free_nats": 0.25},
    "gradient_accumulation": {"train.trainer": "@AccumulatingTrainer", "AccumulatingTrainer.num_parts": 4},
    "gradient_balance": {
        "Trainer.balance": "@GradientBalance",
        "GradientBalance.low": 1.0,
        "GradientBalance.high": 300.0,
        "GradientBalance.decay": 0.99,
    },
    "hinge_loss": {"Trainer.critic_loss": "@hinge_loss"},
    "kl_warmup": {"Trainer.kl_warmup_steps": 10000},
    "lazy_regularization": {"Trainer.regularizer_interval": 8},
    "likelihood_first": {"Trainer.adversarial_start": 400, "Trainer.adversarial_ramp_steps": 200},
    "posterior_last": {"Trainer.posterior_start": 3600},
    "automatic_precision": {"ConvolutionPrecision.dtype": "auto"},
    "float32": {"ConvolutionPrecision.dtype": "float32"},
    "mixed_precision": {"ConvolutionPrecision.dtype": "bfloat16"},
    "moving_average": {"train.moving_average": True, "Trainer.moving_average_decay": 0.999},
    "nearest_upsampling": {"plain_vae.upsampling": "@NearestConv2D", "residual_vae.upsampling": "@NearestConv2D"},
    "r1": {"Trainer.regularizer": "@R1", "R1.weight": 10.0},
    "rematerialization": {
        "plain_vae.call_block": "@rematerialized",
        "residual_vae.call_block": "@rematerialized",
        "RealNVP.call_block": "@rematerialized",
    },
    "spectral_normalization": {
        "plain_critic.conv": "@SpectralNormConv2D",
        "plain_critic.dense": "@SpectralNormDense",
        "residual_critic.conv": "@SpectralNormConv2D",
        "residual_critic.dense": "@SpectralNormDense",
        "Trainer.regularizer": None,
    },
    "residual_input": {
        "plain_vae.stem": "@ResidualInput",
        "ResidualInput.width": 32,
        "ResidualInput.num_blocks": 2,
    },
    "squeezed_checkerboards": {"RealNVP.squeezed_checkerboards": True},
    "normal_edge_bins": {"PiVAE.dequantization": "@NormalEdgeBins"},
    "validation": {
        "train.validation": "@Validation",
        "Validation.every": 500,
        "Validation.examples": 500,
        "Validation.samples": 0,
        "Validation.best": "bits_per_dim",
    },
}
DATASET = "reduced_levels.dataset=@bundled"
# What comes late in a training, within twelve steps; the regulariser in those that are logged.
EARLIER = [
    "Trainer.kl_warmup_steps=6",
    "LinearSchedule.warmup_steps=6",
    "Trainer.adversarial_start=2",
    "Trainer.adversarial_ramp_steps=4",
    "Trainer.posterior_start=10",
    "Trainer.regularizer_interval=2",
    "Validation.every=6",
    "Validation.examples=8",
]
# The step is traced for each stage of the training.
SMALLER = [
    "AccumulatingTrainer.num_parts=2",
    "residual_vae.widths=(8,)",
    "plain_critic.widths=(8,)",
    "RealNVP.num_couplings=1",
    "train.eval_importance_samples=2",
]
# Spectral normalisation leaves out the regularizer: R1 comes after it.
TOGETHER = [option for option in OPTIONS if option != "r1"] + ["r1"]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_fragment_binds_what_it_is_about_and_nothing_else(option):
    before = {}
    after = {}
    for bindings, files in ((before, ["demo.gin"]), (after, ["demo.gin", f"options/{option}.gin"])):
        loading.parse_gin(files, [DATASET])
        for line in gin.config_str(max_line_length=1000).splitlines():
            name, separator, _ = line.partition(" = ")
            if separator and "." in name:
                bindings[name] = gin.query_parameter(name)
    gin.clear_config()
    changed = {name: value for name, value in after.items() if name not in before or repr(before[name]) != repr(value)}
    changed.pop("DifferentiableAugmentation.transformations", None)  # All of them, as by default.
    texts = {name: _text(value) for name, value in changed.items()}
    assert texts.items() <= BINDS[option].items()
    assert {name: _text(after[name]) for name in BINDS[option].keys() - texts.keys()}.items() <= BINDS[option].items()


def _text(value):
    return str(value) if repr(value).startswith(("@", "%")) else value


def test_every_option_is_tested():
    assert set(OPTIONS) == set(BINDS)


def test_folders_of_the_user_do_not_stand_in_the_way(tmp_path):
    """A folder models/ in the current one is no place where models/residual.gin is looked for as in a package."""
    (tmp_path / "models").mkdir()
    script = tmp_path / "script.py"
    script.write_text("from tf_pivae import loading; loading.parse_gin(['demo.gin'])")
    result = forking.run(script, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def together(tmp_path_factory, tiny, run_command):
    """The folder of a run of 12 steps with every option, and a function that runs the same command on a folder."""
    files = [f"--gin_file={name}" for name in (tiny, *(f"options/{option}.gin" for option in TOGETHER))]
    parameters = [f"--gin_param={parameter}" for parameter in (DATASET, *EARLIER, *SMALLER)]

    def train(run_dir, *more):
        return run_command("train", *files, *parameters, *more, f"--run_dir={run_dir}")

    run_dir = tmp_path_factory.mktemp("runs") / "together"
    result = train(run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir, train


def _variables(run_dir, step):
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints" / f"{step:08d}" / "checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def test_all_options_train_together(together):
    run_dir, _ = together
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "validation/bits_per_dim" in line]
    lines = [line for line in lines if line not in validated]
    assert [line["step"] for line in lines] == [4, 8, 12, 12]
    held_out = [lines[-1][f"held_out_bits_per_dim/K={k}"] for k in (1, 2)]
    assert 0.0 < held_out[1] < held_out[0], "with more importance samples the bound comes closer"
    assert [line["step"] for line in validated] == [6, 12]
    assert not any(line.get("skipped_generator") or line.get("skipped_critic") for line in lines)
    assert all(line["critic_regularization"] > 0.0 for line in lines[:2])
    assert "critic_loss" not in lines[2], "q alone comes last"
    values = _variables(run_dir, 12)
    averages = {name: value for name, value in values.items() if "moving_average/" in name and "coupling" in name}
    assert averages
    for name, value in averages.items():
        np.testing.assert_array_equal(values[name.replace("moving_average/", "pivae/")], value, err_msg=name)
    images = bundled(image_size=16, num_examples=(1, 8)).test.images >> 3
    best = min(validated, key=lambda line: line["validation/bits_per_dim"])
    as_trained = loading.recipe_of(run_dir).model(image_shape=(16, 16, 1), num_classes=0)  # In bfloat16.
    assert restore_model(run_dir, as_trained, "best") == best["step"]
    bits = as_trained.bits_per_dim(images, seed=1).mean()
    assert bits == pytest.approx(best["validation/bits_per_dim"], rel=1e-5)
    # The run's own configuration holds every choice: it is what the run is continued and loaded from.
    config = (run_dir / "config.gin").read_text()
    for chosen in ("@hinge_loss", "@R1", "R1.weight", "@DifferentiableAugmentation", "@SpectralNormConv2D", "'act'"):
        assert chosen in config
    for chosen in ("@critic/Adam", "@LinearSchedule()", "@GradientBalance", "@NearestConv2D", "@Validation"):
        assert chosen in config
    for chosen in ("@AccumulatingTrainer", "'bfloat16'", "RealNVP.call_block = @rematerialized"):
        assert chosen in config


def test_a_run_with_all_options_is_continued_bitwise(together, tmp_path):
    """From the checkpoint of step 4, as after a kill; the power iteration's vectors are among the weights."""
    run_dir, train = together
    continued = tmp_path / "continued"
    shutil.copytree(run_dir, continued)
    for step in (8, 12):
        shutil.rmtree(continued / "checkpoints" / f"{step:08d}")
    result = train(continued)
    assert result.returncode == 0, result.stderr
    expected = _variables(run_dir, 12)
    actual = _variables(continued, 12)
    assert expected.keys() == actual.keys()
    assert not [name for name in expected if expected[name].tobytes() != actual[name].tobytes()]
    vectors = [name for name in expected if name.startswith("critic/") and re.search(r"[./S]u/", name)]
    assert vectors, [name for name in expected if name.startswith("critic/")]
    first = _variables(run_dir, 4)
    assert all((expected[name] != first[name]).any() for name in vectors if expected[name].size > 1)


def test_five_bit_run_by_command(together, evaluate):
    run_dir, _ = together
    assert json.loads((run_dir / "data.json").read_text())["num_bins"] == 32
    model = tf_pivae.load(run_dir)
    assert model.num_bins == 32
    assert model.sample(16).max() < 32
    result = evaluate(f"--run_dir={run_dir}", "--importance_samples=2")
    assert result.returncode == 0, result.stderr
    rows = {
        row["metric"].strip(): row["value"] for row in json.loads((run_dir / "evaluation.json").read_text())["rows"]
    }
    terms = [
        v
        for name, v in rows.items()
        if name.startswith(("kl/", "reconstruction", "discretisation")) or "log-det" in name
    ]
    assert sum(terms) == pytest.approx(rows["bits/dim, K=1"], rel=1e-5)
    images = bundled(image_size=16, num_examples=(256, 64)).test.images >> 3
    assert rows["bits/dim, K=1"] == pytest.approx(model.bits_per_dim(images).mean(), rel=1e-5)
    # Pictures span black to white; the real images among them are the 5-bit ones, spread.
    picture = np.asarray(Image.open(run_dir / "samples" / "000012.png"))
    assert picture.max() == 255


def test_levels_that_do_not_match_are_one_line(tiny, tmp_path, run_command):
    for parameters, message in (
        (["PiVAE.num_bins=32"], "has images of 256 levels, but the model is one of 32"),
        (["train.dataset=@reduced_levels", DATASET], "has images of 32 levels, but the model is one of 256"),
        (["PiVAE.num_bins=32", "train.dataset=@reduced_levels"], "reduced_levels needs a data set"),
    ):
        arguments = [f"--gin_param={parameter}" for parameter in parameters]
        result = run_command("train", f"--gin_file={tiny}", *arguments, f"--run_dir={tmp_path / 'run'}")
        assert result.returncode == 2, result.stderr
        assert result.stderr.count("error: ") == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run" / "config.gin").exists()
