"""Every file of a run flipped, cut, deleted, or replaced by a folder: each command goes on, or names the file."""

import copy
import dataclasses
import json
import os
import shutil

import gin.config
import in_process
import pytest

from tf_pivae import cli, loading
from tf_pivae.errors import UserError
from tf_pivae.evaluate import image_metrics, measuring, results
from tf_pivae.export.write import saved_model
from tf_pivae.export.write.signatures import Options
from tf_pivae.files import read_text
from tf_pivae.publish import folder
from tf_pivae.report.run import read_runs
from tf_pivae.training import loop
from tf_pivae.training.recipe import Recipe

PARAMETERS = ["train.checkpoint_every=1"]
NEWEST = "checkpoints/00000002"
FILES = (
    *("config.gin", "data.json", "environment.json", "metrics.jsonl", "evaluation.json", "lock", "samples/000002.png"),
    *(f"{NEWEST}/manifest.json", f"{NEWEST}/checkpoint.index", f"{NEWEST}/checkpoint.data-00000-of-00001"),
)


def _flip(path):
    data = bytearray(path.read_bytes())
    for i in range(len(data) // 4, len(data), max(1, len(data) // 4)):
        data[i] ^= 0x15
    path.write_bytes(data)


def _replace(content):
    def replace(path):
        path.unlink()
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)

    return replace


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "flipped": _flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "a folder": _replace(None),
    "a pipe": _fifo,
    "no text": _replace(bytes(range(256)) * 4),
    "no object": _replace(b"[1, 2]\n"),
    "of other types": _replace(b'{"step": "x", "rows": 3, "files": [], "from_step": null, "image_shape": [[]]}\n'),
}


class _Loaded(Exception):
    """Raised where an export would begin to write."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, evaluated, and a cache: what is built of a configuration is built once."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    in_process.train(run_dir, 2, parameters=PARAMETERS)
    (run_dir / "samples/000002.png").write_bytes(b"a picture" * 100)
    rows = [results.Row("bits/dim, K=1", 8.0, 0.1, "made up")]
    (run_dir / "evaluation.json").write_text(results.as_json(results.Evaluation(2, None, rows, [])))
    return run_dir


@pytest.fixture(scope="module")
def built_once():
    """A configuration's model and trainer are built once and their weights read again for every test."""
    built = {}
    read = loading.recipe_of
    build = Recipe.build

    def cached(run_dir):
        recipe = read(run_dir)
        text = read_text(run_dir / "config.gin")

        def model(**shape):
            key = text, str(shape)
            built[key] = built.get(key) or recipe.model(**shape)
            return built[key]

        return dataclasses.replace(recipe, model=model)

    def trainer(recipe, *arguments):
        if "trainer" not in built:
            built["trainer"] = build(recipe, *arguments), copy.copy(gin.config._OPERATIVE_CONFIG)
        gin.config._OPERATIVE_CONFIG.update(built["trainer"][1])
        return built["trainer"][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "recipe_of", cached)
        patch.setattr(Recipe, "build", trainer)
        strategy = loop.default_strategy()
        patch.setattr(loop, "default_strategy", lambda: strategy)
        patch.setattr(saved_model, "write_saved_model", _stop)
        yield


def _stop(*_):
    raise _Loaded


def _export(run_dir, out):
    with pytest.raises(_Loaded):
        saved_model.export_run(run_dir, out / "export", Options(2, 1.0, 1.0))


def _report(run_dir, out):
    (read,) = read_runs([run_dir])
    assert read.num_steps == 2


READERS = {
    "load": lambda run_dir, out: loading.load_with_step(run_dir),
    "evaluate": lambda run_dir, out: measuring.evaluate_run(
        run_dir, image_metrics.Settings(("bits_per_dim",), num_examples=4, importance_samples=2, progress=False)
    ),
    "report": _report,
    "export": _export,
    "publish": lambda run_dir, out: folder.publish(run_dir, out / "published"),
    **in_process.USES,
    "train": lambda run_dir, out: in_process.train(run_dir, 2, parameters=PARAMETERS),
}


READ_ANYWAY = ("environment.json", "lock", "samples/000002.png")
CASES = [
    (file, damage)
    for file in FILES
    for damage in (("cut", "deleted", "a folder") if file in READ_ANYWAY or "checkpoint." in file else DAMAGES)
]


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(("file", "damage"), CASES)
def test_a_command_goes_on_or_names_the_file(file, damage, run, tmp_path):
    went_on = []
    for reader, read in READERS.items():
        shutil.copytree(run, tmp_path / reader / "run")
        in_process.write_own_images(tmp_path / reader)
        path = tmp_path / reader / "run" / file
        DAMAGES[damage](path)
        try:
            read(tmp_path / reader / "run", tmp_path / reader)
            went_on.append(reader)
        except UserError as error:
            line = cli.one_line(error)
            assert path.name in line or (NEWEST in file and path.parent.name in line), f"{reader}: {line}"
    if file.startswith(NEWEST):
        assert went_on == list(READERS), "there is an older checkpoint"
    elif file in READ_ANYWAY:
        assert {*READERS} - {*went_on} <= {"train"}
    elif file == "data.json":
        assert went_on == (["train"] if damage != "a folder" else [])


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize("damage", ["deleted", "empty", "of other types"])
def test_training_writes_again_what_the_images_are(damage, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "data.json")
    in_process.train(tmp_path / "run", 2, parameters=PARAMETERS)
    assert json.loads((tmp_path / "run/data.json").read_text()) == json.loads((run / "data.json").read_text())
    assert loading.load_with_step(tmp_path / "run")[1] == 2


def test_an_older_checkpoint_serves_where_the_newest_is_damaged(run, tmp_path, caplog):
    shutil.copytree(run, tmp_path / "run")
    for content in (
        "[]",
        "{}",
        '{"files": {"../../data.json": {"bytes": 1}}}',
        '{"files": {"/dev/zero": {"bytes": 1}}}',
    ):
        (tmp_path / "run" / NEWEST / "manifest.json").write_text(content)
        assert loading.load_with_step(tmp_path / "run")[1] == 1
        assert "checkpoint 2 is damaged" in caplog.text
        with pytest.raises(UserError, match=r"manifest\.json"):
            loading.load_with_step(tmp_path / "run", step=2)
