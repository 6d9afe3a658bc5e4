"""Two hundred mutated gin files: each gives one line that says what is wrong, or a model; no traceback, no hang."""

import os
import re
import resource
import signal
from pathlib import Path

import gin
import gin_mutations
import pytest
import tensorflow as tf

from tf_pivae import cli, loading
from tf_pivae.errors import UserError
from tf_pivae.training import loop, recorder
from tf_pivae.training.recipe import Recipe

SEEDS = [pytest.param(range(80), id="80"), pytest.param(range(80, 200), id="120 more", marks=pytest.mark.slow)]
_PATIENCE_SECONDS = 60


class Built(BaseException):
    """Raised where the training would begin."""


class _NoTraining:
    """In place of the checkpoints, which come right after the model is built."""

    def __init__(self, *_, **__):
        pass

    def restore(self, state):
        raise Built


def _hangs(*_):
    raise TimeoutError(f"no answer for {_PATIENCE_SECONDS} seconds")


def outcome(entry, run_dir, strategy):
    """What the train command would say: its line, None for a model that was built, or the exception that escapes it."""
    signal.alarm(_PATIENCE_SECONDS)
    try:
        loading.parse_gin([entry.name])
        loop.train(Recipe(), run_dir, strategy)
    except Built:
        return None
    except Exception as error:
        return cli.one_line(error) or error
    finally:
        signal.alarm(0)
    raise AssertionError("trained")


def _peak_memory():
    """The most memory that this process has ever had, kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def peak_before():
    return _peak_memory()


@pytest.fixture(scope="module", params=SEEDS)
def mutants(request, tmp_path_factory, peak_before):
    """Of each mutated configuration: its entry file, a description, the outcome."""
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    folder = tmp_path_factory.mktemp("mutants")
    here = Path.cwd()
    original = recorder.Checkpoints
    handler = signal.signal(signal.SIGALRM, _hangs)
    recorder.Checkpoints = _NoTraining
    results = []
    try:
        for seed in request.param:
            entry, description = gin_mutations.write(folder / f"{seed}", seed)
            os.chdir(entry.parent)
            results.append((entry, description, outcome(entry, folder / f"run{seed}", strategy)))
    finally:
        os.chdir(here)
        recorder.Checkpoints = original
        signal.signal(signal.SIGALRM, handler)
        gin.clear_config()
    return results


def test_mutated_files_give_a_line_or_a_model(mutants, peak_before):
    escaped = [f"{description}\n  {outcome!r}" for _, description, outcome in mutants if isinstance(outcome, Exception)]
    assert not escaped, "\n".join(escaped)
    lines = [outcome for _, _, outcome in mutants if outcome is not None]
    for line in lines:
        assert line.strip()
        assert "\n" not in line
        assert "Traceback" not in line
    # The mutations are neither harmless nor all of one kind.
    assert len(lines) > len(mutants) / 2
    assert len({re.sub(r"'[^']*'|\d+", "", line)[:30] for line in lines}) > 10
    # Other tests of this process may have had more before.
    assert _peak_memory() < peak_before + 3_000_000, "kB: something large was allocated"


def test_the_command_prints_that_line(mutants, run_command):
    """The same path as a user takes it, for ten of them of different kinds."""
    chosen = {}
    for entry, _, outcome in mutants:
        if outcome is not None:
            chosen.setdefault(outcome[:12], (entry, outcome))
    chosen = list(chosen.values())[:10]
    assert len(chosen) == 10
    for entry, line in chosen:
        result = run_command("train", f"--gin_file={entry.name}", "--run_dir=run", cwd=entry.parent)
        assert result.returncode == 2, result.stderr
        printed = [text for text in result.stderr.splitlines() if text.strip()]
        # Addresses differ, and names that other tests of this process have registered.
        differ = r"0x[0-9a-f]+|did you mean .*?\?"
        assert [re.sub(differ, "", text) for text in printed] == [re.sub(differ, "", f"error: {line}")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include 'a.gin'", "a.gin is included by itself"),
        ("include 'a.gin'\ninclude 'a.gin'\ninclude 'a.gin'", "a.gin is included by itself"),
        ("x/train.batch_size = 7", "nothing uses the scope of x/train: refer to it, as @x/train, or leave it out."),
        (
            "y = @x/Adam\nx/Adam.beta_1 = 0.5\nTrainer.critic_optimizer = %y\nTrainer.critic_optimizer = @Adam\ny = 3",
            None,
        ),
        ("include '.'", "no gin file '.'"),
        ("import nowhere", "a.gin, line 1: `import nowhere` would run code"),
        ("train.seed = %a\na = %b\nb = %a", None),
        ("train.num_steps = 1", "the configuration has no train.dataset: add --gin_param=train.dataset"),
        (
            "train.model = @train()",
            "train.model = @train() is not possible: it takes a function, as @NAME,",
        ),
        ("train.seed = 1\0", "the configuration cannot be read"),
    ],
)
def test_particular_mistakes(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.gin").write_text(text + "\n")
    monkeypatch.setattr(recorder, "Checkpoints", _NoTraining)
    try:
        line = outcome(tmp_path / "a.gin", tmp_path / "run", tf.distribute.MirroredStrategy(["/cpu:0"]))
    finally:
        gin.clear_config()
    assert expected is None or line.startswith(expected)
    assert isinstance(line, str)


def test_a_folder_named_like_an_included_one_does_no_harm(tmp_path, monkeypatch):
    """gin would take it for a Python package."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    loading.parse_gin(["demo.gin"])
    assert gin.query_parameter("RealNVP.width") == 16
    gin.clear_config()


def test_binary_files_are_no_configurations(tmp_path):
    (tmp_path / "x.gin").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(UserError, match=r"^cannot read .*x\.gin: it is not text\.$"):
        loading.parse_gin([str(tmp_path / "x.gin")])


NONSENSE = [
    *(
        "Trainer.beta_1=2",
        "Trainer.moving_average_decay=2.0",
        "PiVAE.observation_noise=-1",
        "GradientPenalty.weight=-1",
    ),
    *("train.class_conditional='no'", "train.flip='no'", "train.shown_temperature=-1.0", "Trainer.critic_loss=None"),
    *("train.eval_importance_samples=100000000000", "Trainer.learning_rate=@bundled", "train.model=@residual_vae"),
    *("train.dataset=@plain_critic", "RealNVP.num_couplings=1024", "batch_size=1000000", "seed=-1"),
    *("Trainer.regularizer=@bundled", "PiVAE.flow=@logistic_loss", "residual_vae.widths=()", "num_steps=2.0"),
]


@pytest.mark.parametrize("binding", NONSENSE)
def test_nonsense_is_refused_before_anything_is_built_or_read(binding):
    name = binding.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{re.escape(name)} = .* is not possible: it takes [^\n]+\.$"):
        loading.parse_gin(["demo.gin"], [binding])
    gin.clear_config()


@pytest.mark.parametrize(("word", "meant"), [("learning_rat", "Trainer.learning_rate"), ("num_step", "num_steps")])
def test_what_was_meant(word, meant):
    with pytest.raises(UserError, match=rf"nothing uses the macro '{word}'; did you mean {re.escape(meant)}[? ]"):
        loading.parse_gin(["demo.gin"], [f"{word}=0.1"])
    gin.clear_config()


@pytest.mark.parametrize("setting", ["train.num_steps=5", "train.seed=1", "Trainer.adversarial_weight=3.0"])
def test_a_setting_by_its_own_name_replaces_the_macro_that_a_file_gives_it(setting):
    name, value = setting.split("=")
    loading.parse_gin(["demo.gin"], [setting])
    assert gin.query_parameter(name) == float(value)
    macro = name.rpartition(".")[2]
    with pytest.raises(UserError, match=f"^{macro} is not a setting by itself"):  # It would have no effect.
        loading.parse_gin(["demo.gin"], [setting, f"{macro}={value}"])
    gin.clear_config()
