"""An exported model as users may run it: TensorFlow, OpenVINO in float32 and bfloat16, and the PyTorch twin."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import cases
from benchmarks.process import ROOT, Competitor, Timing, compare
from benchmarks.report import Section, failures, milliseconds

if TYPE_CHECKING:
    from benchmarks.process import Pool
    from benchmarks.run import Options

SYSTEMS = {
    "tensorflow": "TensorFlow",
    "openvino": "OpenVINO",
    "openvino_bf16": "OpenVINO, bfloat16",
    "eager": "PyTorch twin",
}
_SAMPLES = (1, 16)  # K
_BUDGET = 8.0  # seconds of a comparison at most
_EXPORT = """
import json, sys
from benchmarks import ours
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
for case in json.loads(sys.argv[1]):
    write_saved_model(ours.model_of(case), case["folder"], Options(importance_samples=case["importance_samples"]))
"""


def run(pool: Pool, options: Options) -> Section:
    """Start, memory, latency, throughput and difference for each K and batch size; a process for each."""
    rows = []
    notes = []
    systems = [name for name in SYSTEMS if name != "eager" or name in options.peers]
    counts = _SAMPLES[1:] if options.quick else _SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        model = dict(kind="iaf_res", factor=min(options.factors), side=16)
        exports = [
            cases.case("log_prob", **model, importance_samples=samples) | {"folder": f"{folder}/{samples}"}
            for samples in counts
        ]
        subprocess.run([sys.executable, "-c", _EXPORT, json.dumps(exports)], cwd=ROOT, check=True, stdout=sys.stderr)
        for samples, case in zip(counts, exports, strict=True):
            for batch in options.batches:
                pool.close()
                competitors = {name: Competitor(name, case | {"batch": batch}) for name in systems}
                results = compare(pool, competitors, options.rounds, min(options.budget, _BUDGET))
                exact = _values(pool, results, "tensorflow")
                for name, result in results.items():
                    values = _values(pool, results, name) if name != "eager" else None
                    rows.append(_row(samples, batch, name, result, values, exact))
                    options.say(" | ".join(rows[-1]))
                notes += failures(results)
    text = (
        f"`log_prob` of an export (16x16 colour images, IAF, residual blocks, width {min(options.factors):g}) "
        "through `tf_pivae.export.load`, each in a process of its own; the PyTorch twin (`benchmarks/twin`) is the "
        "same model with weights and noise of its own, eager. Start is from the start of the process to the first "
        "result, imports included; memory the highest resident size from the first call on, libraries included; the "
        "difference the largest of an image's from TensorFlow's, relative."
    )
    header = ["K", "batch", "runtime", "start, s", "memory, MB", "a call", "images/s", "difference"]
    return Section("Runtimes of an exported model", text, header, rows, tuple(dict.fromkeys(notes)))


def _values(pool, results, name):
    """What a system computes, float64 [batch], or None where it failed."""
    if not isinstance(results.get(name), Timing):
        return None
    return np.array(pool.worker(name).ask("values")["values"])


def _row(samples, batch, name, timing, values, exact):
    row = [str(samples), str(batch), SYSTEMS[name]]
    if not isinstance(timing, Timing):
        return [*row, *["failed"] * 5]
    is_comparable = name != "tensorflow" and values is not None and exact is not None
    difference = f"{np.max(np.abs(values / exact - 1.0)):.0e}" if is_comparable else "-"
    memory = "-" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e6:.0f}"
    numbers = [f"{timing.since_start:.1f}", memory, milliseconds(timing.median), f"{batch / timing.median:.0f}"]
    return [*row, *numbers, difference]
