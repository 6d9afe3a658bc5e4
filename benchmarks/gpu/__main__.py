"""A GPU's day: python -m benchmarks.gpu, or make gpu.

On a machine with NVIDIA GPUs, in order: the tests that need a device, step times beside the twin, Tables 1 and 2 of the
paper at full size on the data that the machine has. DIR/PART.json says that a part is finished, what it came to and on
what; the same command goes on where it was cut off, and tries again what failed. Writes docs/gpu.md after every part.
Exit status 1: a part failed, or lacks numbers; 2: no GPU is here.

--quick goes through every part with tiny models on two halves of the processor: a test of the program.
"""

import argparse
import datetime
import glob
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import hours, parts
from benchmarks.gpu.page import render
from benchmarks.gpu.parts import Day, Failed, Result
from benchmarks.process import ROOT
from tf_pivae.files import write_atomically

NO_GPU = "error: no NVIDIA GPU is visible here; `make gpu` is for a machine with one: see docs/gpu.md"
BLIND = "error: TensorFlow does not see the GPU that the driver shows: is the driver one for CUDA 12?"
_FACTS = """
import json
import tensorflow as tf
from tf_pivae.system.environment import describe_environment
build = tf.sysconfig.get_build_info()
versions = {"CUDA": build.get("cuda_version", "none"), "cuDNN": build.get("cudnn_version", "none")}
print(json.dumps([len(tf.config.list_physical_devices("GPU")), {**describe_environment(), **versions}]))
"""


def main(arguments: Sequence[str]) -> int:
    """Goes through the parts that are not finished yet; returns the exit status."""
    chosen = _parse(arguments)
    day = Day(chosen.output_dir, chosen.quick, 2, chosen.peer_python)
    facts = {}
    if chosen.parts:
        if not day.quick and not visible():
            return _refuse(NO_GPU)
        devices, facts = machine()
        if not day.quick:
            if not devices:
                return _refuse(BLIND)
            day = day._replace(devices=devices)
    markers = {
        name: json.loads(file.read_text("utf-8")) for name in parts.PARTS if (file := _marker(day, name)).exists()
    }
    for name in chosen.parts:
        if name in markers and not markers[name]["missing"]:
            _say(f"== {name}: finished on {markers[name]['date']}")
            continue
        part = parts.PARTS[name]
        rates = hours.measured_rates(markers)
        _say(f"== {name}: {part.title}; about {part.hours(rates):.2g} hours, {_basis(rates)}")
        markers[name] = _taken(name, day, facts)
        day.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(_marker(day, name), _json(markers[name]))
        _write_page(chosen.page, markers)
    _write_page(chosen.page, markers)
    print(chosen.page)
    return int(any(markers[name]["missing"] for name in chosen.parts))


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n\n")[1])
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/gpu", help="of parts, runs and tables")
    parser.add_argument(
        "--parts",
        default=",".join(parts.PARTS),
        help=f"of {', '.join(parts.PARTS)}, or none, which only writes the page",
    )
    parser.add_argument(
        "--peer_python", default=sys.executable, help="an interpreter that has PyTorch; default this one"
    )
    parser.add_argument("--page", type=Path, help="default docs/gpu.md (quick: DIR/gpu.md)")
    parser.add_argument("--quick", action="store_true", help="tiny models on the processor: a test of the program")
    chosen = parser.parse_args(arguments)
    chosen.parts = () if chosen.parts == "none" else tuple(chosen.parts.split(","))
    for name in chosen.parts:
        if name not in parts.PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(parts.PARTS)}.")
    chosen.page = chosen.page or (chosen.output_dir if chosen.quick else ROOT / "docs") / "gpu.md"
    return chosen


def visible() -> bool:
    """Whether the driver shows a GPU; nothing is imported for it."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        listed = ""
    return listed.startswith("GPU") or bool(glob.glob("/dev/nvidia[0-9]*"))


def machine() -> tuple[int, dict[str, str]]:
    """The GPUs that TensorFlow sees, asked in a process that then lets go of them, and facts about the machine."""
    result = subprocess.run([sys.executable, "-c", _FACTS], capture_output=True, text=True, check=True, cwd=ROOT)
    devices, facts = json.loads(result.stdout.splitlines()[-1])
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    except OSError:
        driver = ""
    return devices, {**facts, "driver": driver or "none"}


def _refuse(why):
    print(why, file=sys.stderr)
    return 2


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _marker(day, name):
    return day.folder / f"{name}.json"


def _json(content):
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _taken(name, day, facts):
    """Runs a part; what is kept of it."""
    started = time.monotonic()
    try:
        result = parts.PARTS[name].run(day)
    except Failed as failure:
        result = Result("", str(failure))
    except Exception as error:
        traceback.print_exc()
        result = Result("", f"{type(error).__name__}: {error}")
    if result.missing:
        _say(f"error: {name}: {result.missing}")
    hours = (time.monotonic() - started) / 3600.0
    return {"date": f"{datetime.date.today()}", "hours": hours, **result._asdict(), "machine": facts}


def _basis(rates):
    return "the tables' at the rate that was measured" if rates else "estimated without a measurement"


def _write_page(page, markers):
    """The page, and beside it what it is made of."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page_markers = {name: markers[name] for name in parts.PARTS if name in markers}
    write_atomically(page, render(page_markers))
    write_atomically(page.with_suffix(".json"), _json(page_markers))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        _say("stopped: the same command goes on")
        sys.exit(130)
