"""docs/gpu.md."""

from benchmarks.gpu import parts
from benchmarks.gpu.hours import ASSUMED_RATE, NUM_STEPS, measured_rates, step_flops

_START = """# A GPU's day

Written by `python -m benchmarks.gpu`; do not edit. On a machine with one or more NVIDIA GPUs

```sh
make gpu
```

installs TensorFlow with its CUDA libraries, and PyTorch with its own into an environment beside, goes through the parts
below in order, and writes this page after each. Cut off or killed, the same command goes on: a finished part is not run
again, a table continues from its last checkpoint, and a part that failed or lacks numbers is tried again while the
others stand. `runs/gpu/` keeps all of it. Where there is no GPU, the command ends at once with one line.

FID needs the Inception network's weights, which `make gpu` installs; the Inception Score needs its logits, too: set
TF_PIVAE_INCEPTION to the file with the official network (see the README), or the tables lack that column.
"""
_NOTHING_YET = """**No GPU was at hand so far, and nothing has been measured on one.** Every part is tested on two
halves of a processor.
"""
_HOURS = """
The hours of a table are those of its trainings on one GPU: the arithmetic of a step ({flops:.2f} TFLOP for Table 1's
CQFG, the other rows in [architectures](architectures.md)) times {steps:,} steps,
over {rate}.
Once `steps` has measured a rate, that one counts. Evaluations are not in it, nor the rows of Table 2 that Table 1 has
trained. The hours of the first two parts are an allowance, mostly for compilers.
"""
_DATA = """The tables' data are the first of these that the machine has or can download: {names}.
"""


def render(markers: dict[str, dict]) -> str:
    """docs/gpu.md from what is kept of the parts, a dict of a part's name -> what its file holds."""
    rates = measured_rates(markers)
    lines = [_START]
    if not markers:
        lines += [_NOTHING_YET]
    lines += ["| part | what | expected hours | state |", "|---|---|---|---|"]
    for name, part in parts.PARTS.items():
        lines.append(f"| `{name}` | {part.what} | {part.hours(rates):.2g} | {_state(markers.get(name))} |")
    flops = step_flops()["cqfg"] / 1e12
    rate = f"an assumed {ASSUMED_RATE / 1e12:.1f} TFLOP/s, a tenth of what NVIDIA states for an A100 in TensorFloat-32"
    if rates:
        rate = ", ".join(f"{rate / 1e12:.3g} TFLOP/s ({kind})" for kind, rate in rates.items())
        rate = f"what `steps` has measured: {rate}"
    names = "; otherwise ".join(data.name for data in parts.DATA)
    lines += [_HOURS.format(flops=flops, steps=NUM_STEPS, rate=rate), _DATA.format(names=names)]
    for name, part in parts.PARTS.items():
        marker = markers.get(name)
        if marker is None:
            continue
        lines += [marker["markdown"].rstrip() or f"## {part.title}", ""]
        if marker["missing"]:
            lines += [f"**Not whole: {marker['missing']}.** The same command tries again.", ""]
        on = ", ".join(f"{what} {value}" for what, value in marker["machine"].items())
        lines += [f"{marker['date']}, {marker['hours']:.2f} hours: {on}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _state(marker):
    if marker is None:
        return "to do"
    return f"not whole ({marker['date']})" if marker["missing"] else f"finished {marker['date']}"
