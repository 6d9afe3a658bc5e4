"""How long the trainings of a table are expected to take."""

import re

from benchmarks.process import ROOT
from tf_pivae.paper.numbers import TABLES

# Where nothing is measured yet: a tenth of the 156 TFLOP/s that NVIDIA states for an A100 in TensorFloat-32.
ASSUMED_RATE = 15.6e12
NUM_STEPS = 200_000  # Of a row, gin/training/paper.gin.


def step_flops() -> dict[str, float]:
    """FLOP of a training step of each row of the paper, from docs/architectures.md."""
    text = (ROOT / "docs/architectures.md").read_text("utf-8")
    return {row: 1e12 * float(n) for row, n in re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \(\d+\) \|", text, re.MULTILINE)}


def training_hours(table: str, rates: dict[str, float]) -> float:
    """Hours to train the rows of a table that no table before it has; `rates` as in `Result`."""
    flops = step_flops()
    first = [row.name for row in TABLES["1"].rows]
    rows = [row for row in TABLES[table].rows if table == "1" or row.name not in first]
    # The bits per dimension of a GAN are a second training, of about a VAE's arithmetic.
    total = NUM_STEPS * sum(flops[row.name] + row.approximate * flops["vae"] for row in rows)
    return total / rates.get("table1" if table == "1" else "iaf_res", ASSUMED_RATE) / 3600.0


def measured_rates(markers: dict[str, dict]) -> dict[str, float]:
    """The rates that the finished parts have measured."""
    return {kind: rate for marker in markers.values() for kind, rate in (marker["rates"] or {}).items()}
