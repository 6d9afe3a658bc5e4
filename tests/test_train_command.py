"""The commands as a user runs them: training, continuing, refusing, sampling."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forking import Popen, run
from PIL import Image
from shipped import CHANNELS, HEIGHT, WIDTH

from tf_pivae.publish.folder import publish

TINY = str(Path(__file__).parent / "tiny.gin")


def command(module, *arguments):
    return [sys.executable, "-m", f"tf_pivae.{module}", *arguments]


def train(run_dir, *parameters, gin_file=TINY):
    return run("train", f"--gin_file={gin_file}", f"--run_dir={run_dir}", *(f"--gin_param={p}" for p in parameters))


def variables(run_dir, step):
    """Every variable of a checkpoint, by name."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(Path(run_dir) / "checkpoints" / f"{step:08d}" / "checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def assert_bitwise_equal(run_a, run_b, step):
    a = variables(run_a, step)
    b = variables(run_b, step)
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not different
    # The check has teeth: both optimisers, the critic, the moving average and running moments are among them.
    for part in (
        "pivae/",
        "moving_average/",
        "critic/",
        "generator_optimizer/",
        "critic_optimizer/",
        "log_sigma",
        "variance",
    ):
        assert any(part in name for name in a), part


def error_line(result):
    """The one line on stderr of a command that refused."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_run_leaves_everything(finished):
    run_dir, result = finished
    assert "held-out bits/dim" in result.stdout
    assert "Traceback" not in result.stderr
    assert not [line for line in result.stderr.splitlines() if "cuda" in line.lower()], "start-up noise"
    for name in ("samples.png", "reconstructions.png", "samples/000006.png", "samples/000012.png"):
        assert str(run_dir / name) in result.stdout or name.startswith("samples/")
        assert np.asarray(Image.open(run_dir / name)).std() > 0
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["00000004", "00000008", "00000012"]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 12]
    expected = {"bits_per_dim", "reconstruction", "kl/top", "kl/top_down_0", "kl/top_down_1", "flow_log_det_per_dim"}
    expected |= {"preprocessing_log_det_per_dim", "discretisation_per_dim"}
    expected |= {"log_sigma", "critic_loss", "critic_regularization", "quality_loss", "gradient_norm"}
    expected |= {"images_per_second"}
    assert expected <= set(lines[0])
    assert "held_out_bits_per_dim/K=1" in lines[-1]
    assert list((run_dir / "tensorboard").iterdir())


def test_terms_add_up_in_the_log(finished):
    """bits/dim is what the logged terms give, all in nats."""
    run_dir, _ = finished
    line = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    dimensions = 16 * 16
    kl = sum(value for name, value in line.items() if name.startswith("kl/"))
    per_dim = ("flow_log_det_per_dim", "preprocessing_log_det_per_dim", "discretisation_per_dim")
    log_prob = line["reconstruction"] - kl + dimensions * sum(line[name] for name in per_dim)
    assert line["bits_per_dim"] == pytest.approx(-log_prob / (dimensions * np.log(2)), rel=2e-6)


def test_the_loaded_model_is_the_trained_one(finished):
    """Every weight comes back: the loaded model repeats the number that the training printed at its end."""
    import tf_pivae
    from tf_pivae.data import bundled

    run_dir, _ = finished
    logged = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["held_out_bits_per_dim/K=1"]
    images = bundled(image_size=16, num_examples=(256, 64)).test.images[:32]
    assert tf_pivae.load(run_dir).bits_per_dim(images).mean() == pytest.approx(logged, rel=1e-6)
    # The moving average is another model than the last step's.
    assert tf_pivae.load(run_dir, moving_average=False).bits_per_dim(images).mean() != pytest.approx(logged, rel=1e-3)


def test_the_same_seed_gives_the_same_run(finished, tmp_path):
    run_dir, _ = finished
    assert train(tmp_path / "again").returncode == 0
    assert_bitwise_equal(run_dir, tmp_path / "again", 12)


def wait_for(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_continued_is_bitwise_the_undisturbed_run(finished, tmp_path):
    reference, _ = finished
    run_dir = tmp_path / "killed"
    streams = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = Popen("train", f"--gin_file={TINY}", f"--run_dir={run_dir}", **streams)
    wait_for(lambda: (run_dir / "checkpoints" / "00000004").exists(), process)
    process.kill()
    process.wait()
    assert not (run_dir / "checkpoints" / "00000012").exists()
    assert train(run_dir).returncode == 0
    assert_bitwise_equal(reference, run_dir, 12)
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12, 12]  # Neither lost nor doubled.


def test_sigterm_saves_first(finished, tmp_path):
    reference, _ = finished
    run_dir = tmp_path / "terminated"
    arguments = (f"--gin_file={TINY}", f"--run_dir={run_dir}", "--gin_param=train.checkpoint_every=1000")
    process = Popen("train", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").stat().st_size, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in output
    (saved,) = (run_dir / "checkpoints").iterdir()
    assert 4 <= int(saved.name) < 12
    assert train(run_dir, "train.checkpoint_every=1000").returncode == 0
    assert_bitwise_equal(reference, run_dir, 12)


@pytest.mark.usefixtures("hangups")
def test_a_closed_terminal_saves_first(tmp_path):
    """The signal comes, and what is printed from then on goes nowhere. A process of the test's own gets it."""
    run_dir = tmp_path / "hung_up"
    terminal, its_side = pty.openpty()
    arguments = (f"--gin_file={TINY}", f"--run_dir={run_dir}", "--gin_param=train.checkpoint_every=1000")
    process = subprocess.Popen(command("train", *arguments), stdin=subprocess.DEVNULL, stdout=its_side, stderr=its_side)
    os.close(its_side)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").stat().st_size, process)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=300) == 128 + signal.SIGHUP
    (saved,) = (run_dir / "checkpoints").iterdir()
    assert 4 <= int(saved.name) < 12


def test_another_configuration_is_refused_with_the_difference(finished, tmp_path):
    run_dir = tmp_path / "claimed"
    shutil.copytree(finished[0], run_dir)
    before = variables(run_dir, 12)
    result = train(run_dir, "batch_size=4")
    assert "another configuration" in error_line(result)
    assert "-batch_size = 8" in result.stdout
    assert "+batch_size = 4" in result.stdout
    assert variables(run_dir, 12).keys() == before.keys()


def test_losses_that_are_not_finite_end_the_run_and_are_not_saved(tmp_path):
    result = train(tmp_path / "run", "Trainer.learning_rate=1e25", "train.max_consecutive_skips=3")
    line = error_line(result)
    assert "3 steps in a row" in line
    assert "at step 3 in " in line
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_bound_that_is_not_finite_ends_in_an_error(tmp_path, plain):
    """Fewer steps than end a run are skipped, and the weights stay finite: the bound alone tells."""
    result = train(tmp_path / "run", "Trainer.learning_rate=1e30", gin_file=plain)
    assert "the held-out bits/dim are" in error_line(result)
    assert list((tmp_path / "run").glob("checkpoints/*")), "what was trained is there to be looked at"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, tmp_path):
    reference, _ = finished
    run_dir = tmp_path / "damaged"
    shutil.copytree(reference, run_dir)
    newest = run_dir / "checkpoints" / "00000012"
    (data,) = newest.glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    result = train(run_dir)
    assert result.returncode == 0, result.stderr
    assert "checkpoint 12 is damaged" in result.stderr
    assert "falling back" in result.stderr
    assert_bitwise_equal(reference, run_dir, 12)


def test_no_whole_checkpoint_is_an_error(finished, tmp_path):
    run_dir = tmp_path / "ruined"
    shutil.copytree(finished[0], run_dir)
    for path in (run_dir / "checkpoints").glob("*/checkpoint.index"):
        path.write_bytes(b"")
    assert "no whole checkpoint" in error_line(train(run_dir))


def test_a_run_directory_serves_one_process(finished, tmp_path):
    import fcntl

    run_dir = tmp_path / "locked"
    shutil.copytree(finished[0], run_dir)
    with open(run_dir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in error_line(train(run_dir))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gin_file=demmo.gin"], "did you mean demo.gin"),
        (["--gin_file=demo.gin", "--gin_param=num_step=4"], "did you mean num_steps"),
        (["--gin_file=demo.gin", "--gin_param=RealNVP.num_scale=2"], "did you mean num_scales"),
        (["--gin_file=demo.gin", "--gin_param=RealNPV.num_scales=2"], "did you mean RealNVP"),
        (["--gin_file=demo.gin", "--gin_param=train.dataset=@bundle"], "did you mean bundled"),
        (["--gin_file=demo.gin", "--gin_param=num_steps"], "error: --gin_param=num_steps: expected NAME=VALUE"),
        (["--gin_file=demo.gin", "--gin_param=learning_rate=0.1"], "write Trainer.learning_rate."),
        (
            ["--gin_file=demo.gin", "--gin_param=train.dataset=@image_folder", "--gin_param=image_folder.path=x"],
            "add --gin_param=image_folder.image_size=...",
        ),
        (["--gin_file=demo.gin", "--describe=7"], "--describe=7: Non-boolean argument to boolean flag '7'. See"),
        (
            ["--gin_file=demo.gin", "--gin_param=num_steps='many'"],
            "error: num_steps = 'many' is not possible: it takes a",
        ),
        (["--gin_file=demo.gin", "--num_steps=4"], "num_steps"),
        ([], "--gin_file=NAME"),
    ],
)
def test_typing_errors_get_one_line_with_the_nearest_names(arguments, expected, tmp_path):
    result = run("train", *arguments, f"--run_dir={tmp_path / 'run'}")
    assert expected in error_line(result)
    assert not (tmp_path / "run" / "config.gin").exists()


def test_a_mistake_before_the_first_step_can_be_corrected_in_the_same_run_directory(finished, tmp_path):
    short = ("num_steps=1", "train.eval_examples=0", "train.sample_every=0")
    assert "no run in nowhere" in error_line(train(tmp_path / "run", "train.initial_run='nowhere'", *short))
    line = error_line(train(tmp_path / "run", "train.initial_run='fashion_mnist'", *short))
    assert f"fashion_mnist is a model of {HEIGHT}x{WIDTH}x{CHANNELS} images, this is one of 16x16x1" in line
    assert "pretrained/fashion_mnist/config.gin" in line
    wide = ("RealNVP.width=24",)
    line = error_line(train(tmp_path / "run", f"train.initial_run='{finished[0]}'", *wide, *short))
    assert re.search(
        r"another architecture: \S+ is \[3, 3, .*\] there and \[3, 3, .*\] here, and \d+ more differ", line
    )
    result = train(tmp_path / "run", f"train.initial_run='{finished[0]}'", *short)
    assert result.returncode == 0, result.stderr
    assert f"initial_run = '{finished[0]}'" in (tmp_path / "run" / "config.gin").read_text()


def test_a_run_begins_with_the_model_and_the_critic_of_another(finished, tmp_path):
    still = ("num_steps=1", "Trainer.learning_rate=0.0", "train.eval_examples=0", "train.sample_every=0")
    initial = f"train.initial_run='{finished[0]}'"
    result = train(tmp_path / "same", initial, *still)
    assert result.returncode == 0, result.stderr
    assert "a new critic" not in result.stderr
    before = variables(finished[0], 12)
    after = variables(tmp_path / "same", 1)
    critic = [name for name in before if name.startswith("critic/")]
    assert critic
    assert all(np.array_equal(before[name], after[name]) for name in critic)
    publish(tmp_path / "same", tmp_path / "published")
    card = (tmp_path / "published" / "model_card.md").read_text()
    assert f"1 steps of 8 images, from the weights of `{finished[0]}` on, by likelihood and by an adversary" in card
    result = train(tmp_path / "other", initial, *still, "plain_critic.widths=(8, 16)")
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"starting with a new critic, since that of .* cannot be used: critic/\S+ is \[.*\] there and \[.*\] here",
        result.stderr,
    )


def test_cifar_without_network_says_how_to_point_at_local_files(tmp_path):
    environment = {**os.environ, "TF_PIVAE_CACHE": str(tmp_path / "cache"), "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    result = run("train", "--gin_file=cifar.gin", f"--run_dir={tmp_path / 'run'}", env=environment)
    line = error_line(result)
    assert "npz_images" in line or "image_folder" in line


@pytest.mark.slow
def test_cifar_trains_at_full_size_on_data_of_its_shape(tmp_path):
    """The paper's network, every width as published, on images that have CIFAR-10's shape."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [24, 32, 32, 3], np.uint8)
    np.savez(tmp_path / "cifar.npz", train_images=images, test_images=images[:8])
    parameters = ["train.dataset=@npz_images", f"npz_images.path={tmp_path / 'cifar.npz'}"]
    parameters += ["num_steps=2", "batch_size=8", "train.log_every=1"]
    parameters += ["train.eval_examples=8", "train.eval_importance_samples=1"]
    result = train(tmp_path / "run", *parameters, gin_file="cifar.gin")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert not any(line.get("skipped_generator") or line.get("skipped_critic") for line in lines)
    groups = [name for name in lines[0] if name.startswith("kl/")]
    assert groups == ["kl/top", "kl/top_down_0", "kl/top_down_1", "kl/top_down_2", "kl/top_down_3"]


@pytest.mark.parametrize("module", ["train", "sample", "prepare", "evaluate", "sweep", "cluster"])
def test_help_answers_at_once(module):
    started = time.monotonic()
    result = subprocess.run(command(module, "--help"), capture_output=True, text=True, timeout=60, check=False)
    own = {"prepare": "--gin_file", "sweep": "--sweep_dir", "cluster": "--scheduler"}
    assert own.get(module, "--run_dir") in result.stdout
    assert ("  --gin_file: " in result.stdout) == (module not in ("sample", "cluster"))
    assert time.monotonic() - started < 3.0  # A third of a second, on cores that others use too.


def test_sampling_is_a_function_of_the_seed(finished, tmp_path):
    run_dir, _ = finished
    pictures = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = run(
            "sample", f"--run_dir={run_dir}", "--num_samples=9", f"--seed={seed}", f"--output={tmp_path / name}.png"
        )
        assert result.returncode == 0, result.stderr
        assert "step 12" in result.stdout
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_sampling_from_an_earlier_checkpoint(finished, tmp_path):
    result = run("sample", f"--run_dir={finished[0]}", "--step=8", "--num_samples=1", f"--output={tmp_path / 'a.png'}")
    assert "at step 8: " in result.stdout, result.stderr
    wrong = run("sample", f"--run_dir={finished[0]}", "--step=7", f"--output={tmp_path / 'a.png'}")
    assert "7" in error_line(wrong)


def test_sampling_errors(finished, tmp_path):
    assert "no run in" in error_line(run("sample", f"--run_dir={tmp_path}"))
    missing = tmp_path / "missing" / "grid.png"
    assert "cannot write" in error_line(run("sample", f"--run_dir={finished[0]}", f"--output={missing}"))
    other = tmp_path / "grid.JPG"
    assert "call it grid.png" in error_line(run("sample", f"--run_dir={finished[0]}", f"--output={other}"))
    assert not other.exists()


def test_training_on_a_folder_names_and_skips_corrupt_images(tmp_path, plain):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(generator.integers(0, 256, [20, 24, 3], np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:100])
    gin_file = tmp_path / "folder.gin"
    gin_file.write_text(
        f"include '{plain}'\ntrain.dataset = @image_folder\nimage_folder.path = '{folder}'\n"
        "image_folder.image_size = 16\n"
        f"image_folder.cache_dir = '{tmp_path / 'cache'}'\nnum_steps = 2\ntrain.sample_every = 0\n"
    )
    result = train(tmp_path / "run", gin_file=gin_file)
    assert result.returncode == 0, result.stderr
    assert "broken.png" in result.stderr
    for path in folder.iterdir():
        path.write_bytes(b"")
    shutil.rmtree(tmp_path / "cache")
    assert "no image in" in error_line(train(tmp_path / "other", gin_file=gin_file)).lower()
