"""The day's parts: tests, step times, two tables."""

import importlib.util
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks import cases
from benchmarks.gpu import steps
from benchmarks.gpu.hours import training_hours
from benchmarks.options import PEERS, Options
from benchmarks.process import ROOT, Pool
from benchmarks.report import Section, section_lines
from tf_pivae.files import write_atomically
from tf_pivae.system import children


class Failed(Exception):
    """A part that came to nothing: the message says why."""


class Result(NamedTuple):
    """What a part came to."""

    markdown: str  # from its heading on
    missing: str = ""  # what is not as it should be; the part is taken up again by the next call
    rates: dict | None = None  # FLOP/s of training steps: kind of model -> number


class Day(NamedTuple):
    """What the parts need to know."""

    folder: Path
    quick: bool
    devices: int  # GPUs; with `quick`, halves of the processor
    peer_python: str


class Part(NamedTuple):
    """One of the day's parts."""

    title: str
    what: str
    hours: Callable[[dict], float]  # expected, from what rates are measured already
    run: Callable[[Day], Result]


class Data(NamedTuple):
    """Images for the tables."""

    name: str
    flags: tuple  # of every training


# In this order: the first that can be had. lambda_adv = 100 belongs to D = 3072, see gin/presets/small.gin.
_GREY = "--gin_param=adversarial_weight=33.3"
DATA = (
    Data("CIFAR-10, as in the paper", ()),
    Data("complete Fashion-MNIST at 32x32", ("--gin_file=datasets/fashion_mnist.gin", _GREY)),
    Data(
        "the bundled subset of Fashion-MNIST at 32x32",
        ("--gin_param=train.dataset=@bundled", "--gin_param=bundled.image_size=32", _GREY),
    ),
)


def _tests(day):
    """Those with the mark `device`, as a table of pytest's own report."""
    report = day.folder.resolve() / "tests.xml"
    report.unlink(missing_ok=True)
    options = f"-n 0 -p no:cacheprovider -o junit_family=xunit1 -m device --junitxml={shlex.quote(str(report))} "
    options += "-k convolutions tests/training/test_devices.py" if day.quick else "tests"
    command = [sys.executable, "-m", "pytest", *shlex.split(options)]
    # Commands that tests start share the GPUs with the tests.
    environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    status = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode
    _stop_where_it_was_stopped(status)
    if not report.exists():
        raise Failed(f"pytest ended with status {status} and without a report")
    rows = []
    failed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        failed += outcome in ("failure", "error")
        measured = ", ".join(f"{p.get('name')} {p.get('value')}" for p in case.iter("property"))
        rows.append([f"`{case.get('name')}`", outcome, f"{float(case.get('time')):.1f}", measured or "-"])
    text = (
        "What a device computes beside the processor's float32: a convolution with its gradients and a whole training "
        "step, in float32, TensorFloat-32 and bfloat16, within the error of each format; two replicas beside one, on "
        "two GPUs or on two halves of the only one; the step that XLA compiles beside the one that it does not."
    )
    missing = f"{failed} tests failed" if failed else f"pytest ended with status {status}" if status else ""
    section = Section(PARTS["tests"].title, text, ["test", "outcome", "s", "measured"], rows)
    return Result("\n".join(section_lines(section)), missing)


def _steps(day):
    options = Options(
        arguments="",
        quick=day.quick,
        threads=os.cpu_count() or 1,
        rounds=1 if day.quick else 7,
        budget=0.0 if day.quick else 15.0,
        kinds=cases.KINDS[:1] if day.quick else cases.KINDS,
        factors=(cases.TINY if day.quick else cases.FULL,),
        batches=(2,) if day.quick else (16, 64),
        side=16 if day.quick else 32,
        tasks=("train",),
        peers=PEERS[:1] if day.quick else PEERS,
        compile_batches=(),
    )
    if day.quick and importlib.util.find_spec("torch") is None:
        options = options._replace(peers=())
    pool = Pool(options.threads, "cpu" if day.quick else "gpu", day.peer_python)
    try:
        section, rates = steps.measure(pool, options, day.devices)
    finally:
        pool.close()
    missing = "not everything could be measured: the notes say why" if section.notes else ""
    return Result("\n".join(section_lines(section)), missing, rates)


def _table(number):
    def run(day):
        data, why = _data(day)
        folder = day.folder.resolve() / "tables"
        written = folder / f"table_{number}.md"
        written.unlink(missing_ok=True)
        size = ["--preset=tiny", "--rows=cqfg", "--only_metrics=bits_per_dim", "--gin_param=num_steps=2"]
        size = size if day.quick else ["--preset=full"]
        command = ["tf_pivae.paper", f"--table={number}", f"--output_dir={folder}", "--retry", *size, *data.flags]
        status, error = _run(command, **({} if day.quick else dividing_devices(day.devices)))
        if not written.exists():
            raise Failed(error or f"`python -m {' '.join(command)}` ended with status {status}")
        title, _, rest = written.read_text("utf-8").partition("\n")
        other = " The published numbers are those of CIFAR-10." if data.flags else ""
        text = f"#{title}\n\nOn {data.name}{why}.{other}\n{rest}"
        return Result(text, "" if status == 0 else error or f"status {status}")

    return run


def _data(day):
    """The `Data` of the tables, the same for all of them, and why they are not the ones before."""
    choice_file = day.folder / "data.json"
    if choice_file.exists():
        chosen, why = json.loads(choice_file.read_text("utf-8"))
        return DATA[chosen], why
    reasons = []
    for i, data in enumerate(DATA):
        last = i == len(DATA) - 1
        if day.quick and not last:
            continue
        status, error = _run(["tf_pivae.prepare", "--gin_file=paper/cqfg.gin", *data.flags])
        if status == 0:
            why = f" ({'; '.join(reasons)})" if reasons else ""
            day.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(choice_file, json.dumps([i, why]))
            return data, why
        reasons.append(f"{data.name.split(',')[0]} could not be had: {error or f'status {status}'}")
    raise Failed("; ".join(reasons))


def dividing_devices(devices: int) -> dict[str, str]:
    """The variable that leaves a training so many of the visible GPUs as divide its batch of 64."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
    return {"CUDA_VISIBLE_DEVICES": ",".join(chosen[: min(64, 1 << (devices.bit_length() - 1))])}


def _run(command, **variables):
    """Runs a command of the package, which ends with this process; its exit status, and its error if it says one."""
    arguments = [sys.executable, "-m", *command]
    environment = children.environment() | variables
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=sys.stderr, stderr=subprocess.PIPE, env=environment)
    error = ""
    try:
        # A bar goes back to the start of its line: each of its states is handed on when the next one comes.
        for line in io.TextIOWrapper(process.stderr, newline=""):
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
            sys.stderr.write(line)
    finally:
        status = process.wait()  # The terminal has interrupted it, too.
    _stop_where_it_was_stopped(status)
    return status, error


def _stop_where_it_was_stopped(status):
    """A part that was told to stop is not a part that failed."""
    if status in (130, 143) or status < 0:
        sys.exit(status if status > 0 else 128 - status)


PARTS = {
    "tests": Part(
        "The tests that need a device",
        "replicas over GPUs, XLA, TensorFloat-32 and bfloat16 against the processor's float32",
        lambda rates: 0.25,
        _tests,
    ),
    "steps": Part(
        steps.TITLE, "training steps at full size beside PyTorch's on the same GPU", lambda rates: 0.5, _steps
    ),
    "table1": Part(
        "Table 1",
        "`tf_pivae.paper` with `--preset=full`: GAN, VAE, PiVAE, CQG, CQFG",
        lambda rates: training_hours("1", rates),
        _table("1"),
    ),
    "table2": Part(
        "Table 2",
        "the same: residual layers, IAF, the larger critic",
        lambda rates: training_hours("2", rates),
        _table("2"),
    ),
}
