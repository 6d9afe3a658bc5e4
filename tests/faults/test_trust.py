"""A run of somebody else's is data: whatever its configuration says, nothing runs and nothing is written for it."""

import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

import gin
import in_process
import pytest

import tf_pivae
from tf_pivae import loading
from tf_pivae.data import ImageDataset
from tf_pivae.errors import UserError
from tf_pivae.evaluate import image_metrics, measuring
from tf_pivae.export.write.saved_model import export_run
from tf_pivae.export.write.signatures import Options
from tf_pivae.publish import folder
from tf_pivae.report.page import write_report
from tf_pivae.training import loop
from tf_pivae.training.recipe import Recipe

PAYLOAD = "payload_of_a_stranger"
KERAS = "{'module': 'payload_of_a_stranger', 'class_name': 'Thing', 'config': {}, 'registered_name': None}"
LAMBDA = "{'class_name': '__lambda__', 'config': {'value': ['4wAAAAA=', None, None]}}"
DYNAMIC = "from __gin__ import dynamic_registration\n"
FOLDER = "image_folder.path = '.'\nimage_folder.image_size = 8\nimage_folder.cache_dir = 'canary'\n"
WAYS = {
    "dynamic registration": f"{DYNAMIC}import subprocess\nsubprocess.run.args = ('touch', 'canary')",
    "dynamic registration alone": DYNAMIC,
    "a function of Python's": f"{DYNAMIC}import os\ntrain.model = @os.system\nos.system.command = 'touch canary'",
    "a builtin": "train.model = @builtins.eval",
    "a module's name": "train.model = @subprocess.Popen",
    "import": f"import {PAYLOAD}",
    "import, renamed": f"import {PAYLOAD} as train",
    "from": f"from {PAYLOAD} import Thing",
    "import after a string of lines": f"train.initial_run = '''\n\n'''\nimport {PAYLOAD}",
    "import over two lines": f"import \\\n  {PAYLOAD}",
    "import after a block": f"train:\n  seed = 1\n\nimport {PAYLOAD}",
    "import with spaces before it": f"   import {PAYLOAD}",
    "import behind a form feed": f"\f\timport {PAYLOAD}",
    "import behind a carriage return": f"train.seed = 1\rimport {PAYLOAD}\r",
    "import behind a separator": f"train.seed = 1\u2028import {PAYLOAD}\x85import {PAYLOAD}",
    "import behind a semicolon": f"train.seed = 1; import {PAYLOAD}",
    "import in other letters": f"\uff49mport {PAYLOAD}",
    "import in a comment's next line": f"# \\\nimport {PAYLOAD}",
    "include": f"include '{PAYLOAD}.gin'",
    "include of a shipped file": "include 'demo.gin'",
    "include of a device": "include '/dev/zero'",
    "__import__": f"train.seed = __import__('{PAYLOAD}')",
    "a formatted string": f'train.initial_run = f"{{__import__({PAYLOAD!r})}}"',
    "a Keras object": f"Conv2D.kernel_initializer = {KERAS}",
    "a Keras function": f"Conv2D.kernel_initializer = {LAMBDA}",
    "data opened while the model is built": f"{FOLDER}PiVAE.vae = @image_folder()",
    "data opened as an argument": f"{FOLDER}PiVAE.image_shape = @image_folder()",
    "data opened by a macro": f"{FOLDER}m = @image_folder()\nPiVAE.name = %m",
    "data opened in a list": f"{FOLDER}residual_vae.widths = (8, [{{'a': @there/image_folder()}}])",
    "data opened for a model": f"{FOLDER}train.model = @image_folder",
    "data opened by a singleton": f"{FOLDER}gin.singleton.constructor = @image_folder\nPiVAE.vae = @x/gin.singleton()",
    "a training within": "PiVAE.vae = @train()",
    "deep brackets": "train.seed = " + "(" * 20_000,
    "deep brackets, closed": "train.seed = " + "[" * 80 + "]" * 80,
    "macros of macros": "\n".join(f"m{i} = (%m{i + 1}, %m{i + 1})" for i in range(60)) + "\nm60 = 1\ntrain.seed = %m0",
    "a macro of itself": "m = %n\nn = %m\ntrain.seed = %m",
    "a megabyte": "train.seed = 0  # " + "x" * 1_000_000,
    "a macro without a name": "train.model = @gin.macro",
    "a module behind brackets": f"train.seed = (x := __import__('{PAYLOAD}'))",
    "a huge model": "residual_vae.widths = (1000000000, 4)",
}


def _resume(run_dir, out):
    loading.parse_gin([str(run_dir / "config.gin")])
    loop.train(Recipe(), str(run_dir))


READERS = {
    "load": lambda run_dir, out: loading.load_with_step(run_dir),
    "tf_pivae.load": lambda run_dir, out: tf_pivae.load(str(run_dir), step=2),
    "evaluate": lambda run_dir, out: measuring.evaluate_run(run_dir, image_metrics.Settings(("bits_per_dim",))),
    "evaluate --watch": lambda run_dir, out: loading.recipe_of(run_dir).num_steps,
    "report": lambda run_dir, out: write_report([run_dir], out / "page.html", 2, 0, None),
    "export": lambda run_dir, out: export_run(run_dir, out / "export", Options(2, 1.0, 1.0)),
    "publish": lambda run_dir, out: folder.publish(run_dir, out / "published"),
    **in_process.USES,
    "train": _resume,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    in_process.train(run_dir, 2, parameters=["train.checkpoint_every=1"])
    return run_dir


@pytest.fixture
def strangers(run, tmp_path, monkeypatch):
    """A function of the text to be added to a run's configuration -> the folder of such a run, in a folder of traps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    touch = f"open({str(tmp_path / 'canary')!r}, 'w').close()\nclass Thing: pass\n"
    (tmp_path / f"{PAYLOAD}.py").write_text(touch)
    (tmp_path / f"{PAYLOAD}.gin").write_text(f"import {PAYLOAD}\n")
    in_process.write_own_images(tmp_path)
    shutil.copytree(run, tmp_path / "run")

    def made(text):
        path = tmp_path / "run" / "config.gin"
        with open(path, "w", newline="", encoding="utf-8") as file:
            file.write((run / "config.gin").read_text() + "\n" + text + "\n")
        return tmp_path / "run"

    yield made
    gin.clear_config()
    sys.modules.pop(PAYLOAD, None)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_runs_whichever_command_reads_the_run(way, strangers, tmp_path):
    run_dir = strangers(WAYS[way])
    before = sorted(tmp_path.rglob("*"))
    for name, reader in READERS.items():
        if name == "train" and "include" in way:
            continue  # A file that its user names may include others.
        with pytest.raises(UserError) as caught:
            reader(run_dir, tmp_path)
        assert "\n" not in str(caught.value)
        assert PAYLOAD not in sys.modules
        assert name == "train" or "config.gin" in str(caught.value), f"{name}: {caught.value}"
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name not in ("lock", "samples")] == [
        path for path in before if path.name not in ("lock", "samples")
    ]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_runs_out_of_a_binding_or_a_file_on_the_command_line(way, strangers, tmp_path):
    """There a name may be included, whose own imports are refused as well, and a macro has to be used."""
    (tmp_path / "mine.gin").write_text("\ufeff" + WAYS[way], encoding="utf-8", newline="")
    for arguments in ((["demo.gin"], [f"train.seed=1\n{WAYS[way]}"]), (["demo.gin", "mine.gin"],)):
        if way == "include of a shipped file" and len(arguments) == 1:
            continue
        with pytest.raises(UserError) as caught:
            loading.parse_gin(*arguments)
        assert "\n" not in str(caught.value)
        assert PAYLOAD not in sys.modules
    assert not (tmp_path / "canary").exists()


def test_a_model_larger_than_its_checkpoints_takes_no_memory(strangers):
    """2.4 GB would fit the machine; no weights of theirs are there."""
    run_dir = strangers("residual_vae.widths = (4, 4096)\nresidual_vae.stem_width = 4")
    with pytest.raises(UserError, match=r"config\.gin: the model's variables take more than .* its checkpoints hold"):
        loading.load_with_step(run_dir)


def test_a_message_steers_no_terminal(run_command):
    """Whatever it quotes."""
    result = run_command("runs", "--root=a\x1b[31mb")
    assert result.stderr == "error: there is no folder a\\x1b[31mb: give the folder of the runs, --root=DIR.\n"


def test_data_are_neither_prepared_nor_downloaded_for_a_run(strangers, tmp_path, monkeypatch):
    """Even a sound configuration says where files are read and written: not for a run of somebody else's."""
    run_dir = strangers(f"{FOLDER}train.dataset = @image_folder")
    for read in (loading.load_dataset, READERS["evaluate"]):
        with pytest.raises(UserError, match=r"prepare.*--gin_file=.*config\.gin"):
            read(*[run_dir, tmp_path][: read.__code__.co_argcount])
    assert loading.load_with_step(run_dir)[1] == 2  # The model needs no data.
    assert not (tmp_path / "canary").exists()


@pytest.mark.usefixtures("strangers")
def test_links_in_a_run_are_not_written_through(tmp_path):
    run_dir = tmp_path / "run"
    treasure = tmp_path / "treasure"
    for name in ("lock", ".metrics.jsonl.partial", ".environment.json.partial"):
        treasure.write_text("precious")
        (run_dir / name).unlink(missing_ok=True)
        (run_dir / name).symlink_to(treasure)
        refused = pytest.raises(UserError, match="lock") if name == "lock" else contextlib.nullcontext()
        with refused:
            in_process.train(run_dir, 2, parameters=["train.checkpoint_every=1"])
        (run_dir / name).unlink(missing_ok=True)
        assert treasure.read_text() == "precious"


def test_extensions_come_by_a_flag(strangers, tmp_path, run_command):
    """--import runs a module of the user's; what a run says does not."""
    run_dir = strangers(WAYS["dynamic registration"])
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    results = {}
    for flags in ([], [f"--import={PAYLOAD}"], ["--import=no_such_module"]):
        result = run_command("sample", f"--run_dir={run_dir}", "--output=grid.png", *flags)
        (line,) = [text for text in result.stderr.splitlines() if text.strip()]
        assert result.returncode == 2, environment
        results[tuple(flags)] = line, (tmp_path / "canary").exists()
        (tmp_path / "canary").unlink(missing_ok=True)
    refused = r"error: .*config\.gin, line \d+: `from __gin__ import dynamic_registration` would run code"
    assert [re.match(refused, line) is not None for line, _ in results.values()] == [True, True, False]
    assert [touched for _, touched in results.values()] == [False, True, False]
    assert "--import=no_such_module: there is no module 'no_such_module'" in line


def test_every_source_of_data_says_what_it_returns():
    """By which its call within a configuration is known for what it is."""
    from tf_pivae import data, values

    sources = [getattr(data, name) for name in ("bundled", "idx_images", "image_folder", "npz_images", "tfds_images")]
    for source in (*sources, data.reduced_levels):
        assert values.makes(source) is ImageDataset
    assert Path(tf_pivae.__file__).exists()
