"""The numbers of docs/results.md are those of the files that the command wrote."""

import json
from pathlib import Path

from tf_pivae import paper_table

DOCS = Path(__file__).resolve().parents[2] / "docs"
CARD = DOCS.parent / "tf_pivae/pretrained/fashion_mnist/evaluation.json"


def _rows():
    return json.loads((DOCS / "results/table_1_fashion_mnist.json").read_text())["rows"]


def test_every_line_of_the_tables_is_on_the_page():
    page = (DOCS / "results.md").read_text().splitlines()
    for name in ("table_1_fashion_mnist", "table_1_two_seeds"):
        lines = [line for line in (DOCS / f"results/{name}.md").read_text().splitlines() if line.startswith("|")]
        assert len(lines) > 3
        assert set(lines) <= set(page)


def test_the_table_is_that_of_its_numbers():
    text = (DOCS / "results/table_1_fashion_mnist.md").read_text()
    fields = set(paper_table.Cell._fields)
    for row in _rows():
        cells = [
            paper_table.Cell(**{key: value for key, value in row[metric].items() if key in fields})
            for metric in ("bits_per_dim", "fid")
        ]
        numbers = [part for cell in cells for part in (cell.text, cell.published_text)]
        assert f"| {row['label']} | {' | '.join(numbers)} |" in text


def test_the_packaged_model_is_the_one_of_the_table():
    (cqfg,) = [row for row in _rows() if row["label"] == "CQFG"]
    values = {row["metric"]: row["value"] for row in json.loads(CARD.read_text())["rows"]}
    assert cqfg["bits_per_dim"]["values"] == [values["bits/dim, K=1"]]
    assert cqfg["fid"]["values"] == [values["FID"]]
