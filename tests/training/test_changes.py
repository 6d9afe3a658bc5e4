"""A run that goes on with other settings: which may change, what becomes of them, what is written down."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gin
import numpy as np
import pytest
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.report import configuration
from tf_pivae.report.run import read_runs
from tf_pivae.runs import changes
from tf_pivae.training import loop, recorder
from tf_pivae.training.recipe import FREE_SETTINGS, Recipe
from tf_pivae.training.recorder import Recorder

PLAIN = Path(__file__).resolve().parents[1] / "sweeps/plain.gin"
BEFORE = """\
# Macros:
num_steps = 4

# Parameters for train:
train.num_steps = %num_steps
train.log_every = 2
train.loggers = (@JsonlLogger, @OneLogger)
train.dataset = @npz_images
npz_images.path = '/there/images.npz'
Trainer.learning_rate = 0.002
LinearSchedule.total_steps = %num_steps
"""


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    loading.register()
    yield
    gin.clear_config()


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """A function (*bindings, run=, from_here=, callback=) that trains four steps, or on, without the pictures."""
    monkeypatch.setattr(recorder.Recorder, "draw_final_pictures", lambda *_: None)

    def train(*bindings: str, run: str = "run", **options) -> loop.Outcome:
        loading.parse_gin([str(PLAIN)], ["train.eval_examples=0", "train.moving_average=False", *bindings])
        return loop.train(Recipe(), tmp_path / run, recorder=lambda *arguments: Recorder(*arguments, **options))

    return train


def weights(run_dir: Path, step: int) -> dict:
    """The generator's, by name."""
    reader = tf.train.load_checkpoint(str(run_dir / f"checkpoints/{step:08d}/checkpoint"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name.startswith("pivae/")}


def differences(one: dict, other: dict) -> dict[str, float]:
    """Name -> largest difference, of the weights that are not bitwise the same."""
    assert one.keys() == other.keys()
    return {name: float(abs(one[name] - other[name]).max()) for name in one if (one[name] != other[name]).any()}


def test_more_steps_and_other_reports(train, tmp_path, capsys):
    """Bitwise the weights of a run that had so many steps from the beginning."""
    train()
    capsys.readouterr()
    train("num_steps=6", "train.log_every=1", "train.checkpoint_every=3")
    output = capsys.readouterr().out
    assert "goes on from step 4 with other settings" in output
    assert "train.num_steps: 4 -> 6" in output
    train("num_steps=6", run="at_once")
    assert differences(weights(tmp_path / "run", 6), weights(tmp_path / "at_once", 6)) == {}
    (entry,) = json.loads((tmp_path / "run/changes.json").read_text())
    assert entry["from_step"] == 4
    assert entry["settings"]["train.num_steps"] == ["4", "6"]
    assert set(entry["settings"]) == {"train.num_steps", "train.log_every", "train.checkpoint_every"}
    assert "num_steps = 6" in (tmp_path / "run/config.gin").read_text()
    train("num_steps=6", "train.log_every=1", "train.checkpoint_every=3")
    assert len(json.loads((tmp_path / "run/changes.json").read_text())) == 1, "nothing else changed"


def test_another_learning_rate_from_here(train, tmp_path, capsys):
    """Refused without the flag; with it, a rate of 0 leaves every weight as the checkpoint has it."""
    train()
    before = (tmp_path / "run/config.gin").read_text()
    with pytest.raises(UserError, match=r"add --from_here to go on with the new settings"):
        train("num_steps=6", "Trainer.learning_rate=0.0")
    assert (tmp_path / "run/config.gin").read_text() == before
    assert not (tmp_path / "run/changes.json").exists()
    train("num_steps=6", "Trainer.learning_rate=0.0", from_here=True)
    assert differences(weights(tmp_path / "run", 4), weights(tmp_path / "run", 6)) == {}
    train("num_steps=8", "Trainer.learning_rate=0.01", from_here=True)
    assert differences(weights(tmp_path / "run", 6), weights(tmp_path / "run", 8))
    results = [(entry["from_step"], entry["settings"]["Trainer.learning_rate"]) for entry in
             changes.history(tmp_path / "run")]  # fmt: skip
    assert results == [(4, ["0.002", "0.0"]), (6, ["0.0", "0.01"])]
    page = "".join(map(str, configuration.render(read_runs([tmp_path / "run"]))))
    assert "Settings of run that changed on the way: 4" in page  # num_steps, too.
    assert "<code>0.01</code>" in page


def test_another_architecture_is_refused_before_anything_is_written(train, tmp_path):
    train()
    before = (tmp_path / "run/config.gin").read_text()
    with pytest.raises(UserError, match="another architecture"):
        train("residual_vae.widths=(4, 6)", from_here=True)
    assert (tmp_path / "run/config.gin").read_text() == before


def test_images_of_another_shape_are_another_run(train, tmp_path):
    """Though every variable of a convolutional net would fit."""
    train()
    before = (tmp_path / "run/config.gin").read_text()
    with pytest.raises(UserError, match="is a run on images of another shape, or with other classes"):
        train("bundled.image_size=32", "num_steps=6", from_here=True)
    assert (tmp_path / "run/config.gin").read_text() == before
    assert json.loads((tmp_path / "run/data.json").read_text())["image_shape"] == [16, 16, 1]


def test_that_holds_for_settings_that_are_free_too(train, tmp_path):
    """The place of the data, which says nothing of their shape, and the number of steps."""

    def bindings(size: int) -> list[str]:
        path = tmp_path / f"{size}.npz"
        np.savez(path, images=np.zeros([40, size, size, 1], np.uint8))
        return ["train.dataset=@npz_images", f"npz_images.path={str(path)!r}", "train.critic=None"]

    train(*bindings(16))
    with pytest.raises(UserError, match="is a run on images of another shape, or with other classes"):
        train(*bindings(32), "num_steps=6")


def test_a_callback_sees_the_reports_and_may_stop(train, tmp_path):
    reports = []

    def callback(step: int, metrics: dict) -> bool:
        reports.append((step, metrics["bits_per_dim"]))
        return step == 3

    outcome = train("num_steps=9", "train.log_every=1", callback=callback)
    assert (outcome.step, [step for step, _ in reports]) == (3, [1, 2, 3])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["bits_per_dim"] for line in lines] == [bits for _, bits in reports]
    assert train("num_steps=9", "train.log_every=1").step == 9
    with pytest.raises(ZeroDivisionError):
        train("num_steps=9", run="other", callback=lambda *_: 1 / 0)


@pytest.mark.parametrize(
    ("text", "now", "free", "others"),
    [
        ("num_steps = 4", "num_steps = 8", {"train.num_steps"}, {"LinearSchedule.total_steps"}),
        ("num_steps = 4", "num_steps = 3", set(), {"LinearSchedule.total_steps", "train.num_steps"}),
        ("log_every = 2", "log_every = 5", {"train.log_every"}, set()),
        ("/there/", "/here/", {"npz_images.path"}, set()),
        ("learning_rate = 0.002", "learning_rate = 0.1", set(), {"Trainer.learning_rate"}),
        ("# Macros:", "image_folder.pad_to = None", set(), set()),
        ("# Macros:", "Trainer.free_nats = 0.5", set(), {"Trainer.free_nats"}),
        ("# Macros:", "Validation.every = 5", {"Validation.every"}, set()),
        ("(@JsonlLogger, @OneLogger)", "(@JsonlLogger,)", {"train.loggers"}, set()),
    ],
)
def test_what_may_change(text, now, free, others):
    before = BEFORE.replace(", @OneLogger", ", @TensorBoardLogger")
    text = text.replace("@OneLogger", "@TensorBoardLogger")
    assert text in before
    result = changes.compare(before, before.replace(text, now), "config.gin", FREE_SETTINGS)
    assert (set(result.free), set(result.others)) == (free, others)


def test_a_start_that_came_to_nothing_is_replaced(tmp_path):
    def record(step: int, before: str, now: str) -> None:
        changes.record(tmp_path, step, changes.Changes({"train.log_every": (before, now)}, {}))

    record(4, "1", "2")
    record(8, "2", "3")
    record(8, "3", "5")  # Killed before its first checkpoint, started with yet another.
    assert [(entry["from_step"], entry["settings"]) for entry in changes.history(tmp_path)] == [
        (4, {"train.log_every": ["1", "2"]}),
        (8, {"train.log_every": ["2", "5"]}),
    ]
    (tmp_path / "changes.json").write_text("[1]")
    with pytest.raises(UserError, match=r"changes\.json is damaged"):
        changes.history(tmp_path)
