"""The gin files as files: all of them read, each row as the paper has it, comments that agree with the tables."""

import re

import gin
import gin_tree
import pytest

from tf_pivae import loading
from tf_pivae.describe import architecture
from tf_pivae.paper import numbers
from tf_pivae.paper.row_runs import PRESETS, gin_files

ROWS = {row.name: row for table in numbers.TABLES.values() for row in table.rows}


def test_every_file_is_used():
    used = {name for files, _ in gin_tree.configurations() for name in files}
    used |= gin_tree.included() | set(gin_tree.EVALUATION)
    assert set(gin_tree.names()) == used
    assert set(gin_tree.parts_of_others()) <= gin_tree.included()


@pytest.mark.parametrize("configuration", gin_tree.configurations(), ids=lambda c: c[0][-1])
def test_every_configuration_can_be_read(configuration):
    loading.parse_gin(*configuration)
    assert callable(gin.get_bindings("train")["dataset"])


@pytest.mark.parametrize("name", gin_tree.EVALUATION)
def test_every_evaluation_can_be_read(name):
    from tf_pivae.metrics.gan_classification import ClassifierConfig

    loading.parse_gin([name])
    assert ClassifierConfig().num_steps < 64_000


def test_a_folder_of_the_same_name_is_in_nobodys_way(tmp_path, monkeypatch):
    for name in ("models", "paper", "training"):
        (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    loading.parse_gin(["paper/cqfg.gin"])
    assert gin.query_parameter("RealNVP.num_couplings") == 3


def test_every_row_has_its_file_and_every_file_its_row():
    assert {path.stem for path in (gin_tree.GIN / "paper").glob("*.gin")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_in_ten_lines(name):
    text = (gin_tree.GIN / f"paper/{name}.gin").read_text()
    assert sum(1 for line in text.splitlines() if line and not line.startswith("#")) <= 10


@pytest.mark.parametrize("name", ROWS)
def test_a_rows_comment_agrees_with_the_tables(name):
    row = ROWS[name]
    comment = (gin_tree.GIN / f"paper/{name}.gin").read_text().partition("\ninclude")[0]
    (head,) = re.findall(r"Published: (.*)\.$", comment, re.MULTILINE)
    published = [
        f"{numbers.METRICS[metric]} {f'[{value}]' if row.approximate and metric == 'bits_per_dim' else value}"
        for metric, value in row.numbers.items()
        if value is not None
    ]
    assert head == ", ".join(published)
    assert f"--gin_file=paper/{name}.gin\n" in comment
    (line,) = re.findall(rf"^\| {name} \|.*$", (gin_tree.ROOT / "docs/architectures.md").read_text(), re.MULTILINE)
    cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
    weights = [sum(map(int, cells[3:6])) / 1e6, int(cells[6]) / 1e6]
    critic = f", {weights[1]:.1f} M in the critic" if weights[1] else ""
    step, batch = re.fullmatch(r"([\d.]+) \((\d+)\)", cells[10]).groups()
    cost = f"Cost: {weights[0]:.1f} M weights{critic}; {step} TFLOP a step of batch {batch}, 200,000 steps; about "
    assert cost + f"{cells[11]} GB." in comment


def _parameters(files):
    loading.parse_gin(files)
    return architecture.count_parameters(architecture.configured()[0])


@pytest.mark.parametrize("preset", ["full", "small"])
def test_cqg_has_as_many_weights_as_cqfg(preset):
    cqfg, cqg = (_parameters(gin_files(name, preset)) for name in ("cqfg", "cqg"))
    assert cqg.head == 0
    assert cqg.vae == pytest.approx(cqfg.vae + cqfg.head, rel=0.005)
    assert cqg.critic == cqfg.critic


@pytest.mark.parametrize("name", ["pivae", "cqfg"])
def test_the_head_adds_1_4_percent(name):
    parameters = _parameters([f"paper/{name}.gin"])
    assert parameters.vae == _parameters(["paper/vae.gin"]).vae
    assert 100 * parameters.head / parameters.vae == pytest.approx(1.4, abs=0.05)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["gan", "gan_res", "gan_conditional"])
def test_gans_learn_from_the_critic_alone_and_have_no_latents_but_the_top(name, preset):
    loading.parse_gin(gin_files(name, preset))
    trainer = architecture.configured()[0]
    assert trainer.likelihood_weight == 0.0
    assert trainer.pivae.vae.group_names == ["top"]
    assert trainer.pivae.flow is None


def test_presets_keep_what_distinguishes_the_rows():
    bindings = {}
    for name in ROWS:
        loading.parse_gin(gin_files(name, "small"))
        # Where the preset's data are the same, so is the row: `Row.elsewhere`.
        lines = [line for line in gin.config_str().splitlines() if not line.startswith("tfds_images.")]
        bindings[name] = "\n".join(lines)
    apart = [name for name, row in ROWS.items() if not row.elsewhere]
    # Table 8's CQFG (1, 2) is Table 2's row, trained by likelihood first.
    texts = {(bindings[name], ROWS[name].likelihood_first) for name in apart}
    assert len(texts) == len(apart), "two rows became one"
    for name, row in ROWS.items():
        if row.elsewhere:
            assert bindings[name] == bindings[row.elsewhere]


def test_cifar_is_its_row():
    loading.parse_gin(["cifar.gin"])
    here = gin.config_str()
    loading.parse_gin(["paper/cqfg_iaf_res.gin"])
    assert gin.config_str() == here
