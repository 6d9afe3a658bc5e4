"""A GPU's day: where there is none; cut off, failed, gone on with; its parts on two halves of the processor."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forking
import pytest

from benchmarks import cases, process
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import hours, parts, steps
from benchmarks.gpu.page import render
from benchmarks.gpu.parts import Failed, Result
from benchmarks.options import PEERS, Options
from benchmarks.process import Pool
from tf_pivae.paper.numbers import TABLES

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"accelerators": "a GPU of the tests", "CUDA": "12.5.1", "driver": "570.1"}


def _never(*_):
    raise AssertionError("not to be called")


# Without a GPU.


@pytest.mark.parametrize("driver", [False, True], ids=["no driver", "no TensorFlow for it"])
def test_without_a_gpu_it_ends_with_one_line(driver, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "visible", lambda: driver)
    monkeypatch.setattr(command, "machine", (lambda: (0, FACTS)) if driver else _never)
    assert command.main([f"--output_dir={tmp_path / 'day'}", f"--page={tmp_path / 'gpu.md'}"]) == 2
    output, errors = capsys.readouterr()
    assert not output
    assert errors == (command.BLIND if driver else command.NO_GPU) + "\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    command.visible() or shutil.which("make") is None, reason="here it would begin, or there is no make"
)
def test_make_gpu_ends_with_one_line_and_installs_nothing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    make = ["make", "gpu", f"VENV={tmp_path / 'environment'}"]
    result = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert not result.stdout
    assert re.fullmatch(r"Makefile:\d+: \*\*\* no NVIDIA GPU is visible here; .*\n", result.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("output", "there"), [("GPU 0: A100 (UUID: GPU-1)", True), ("NVIDIA-SMI has failed", False)])
def test_a_driver_is_believed_if_it_lists_a_gpu(output, there, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(command.glob, "glob", lambda _: [])
    assert command.visible() == there


# The day's order, with parts that do nothing.


@pytest.fixture
def day(tmp_path, monkeypatch):
    """Parts a, b and c that write down their names; what they do can be changed. A function that runs the command."""
    done = []
    behaviour = {}

    def part(name):
        def run(day):
            done.append(name)
            assert day.devices == 4
            return behaviour.get(name, lambda: Result(f"## Part {name}\n\n| table |\n|---|\n| of {name} |\n"))()

        return parts.Part(f"Part {name}", f"what {name} does", lambda rates: 2.5, run)

    monkeypatch.setattr(parts, "PARTS", {name: part(name) for name in "abc"})
    monkeypatch.setattr(command, "visible", lambda: True)
    monkeypatch.setattr(command, "machine", lambda: (4, FACTS))
    page = tmp_path / "gpu.md"

    def run():
        done.clear()
        status = command.main([f"--output_dir={tmp_path / 'day'}", f"--page={page}"])
        return status, "".join(done), page.read_text()

    run.behaviour = behaviour
    run.page = page
    run.done = done
    return run


def test_every_part_is_run_once_and_its_table_is_in_the_page(day, capsys):
    status, done, page = day()
    assert (status, done) == (0, "abc")
    for name in "abc":
        assert f"## Part {name}\n\n| table |\n|---|\n| of {name} |\n" in page
    assert page.count("accelerators a GPU of the tests, CUDA 12.5.1, driver 570.1") == 3
    assert "== b: Part b; about 2.5 hours" in capsys.readouterr().err
    assert day() == (0, "", page)
    assert "== b: finished on 20" in capsys.readouterr().err


def test_it_goes_on_where_it_was_cut_off(day):
    def cut():
        raise KeyboardInterrupt

    day.behaviour["b"] = cut
    with pytest.raises(KeyboardInterrupt):
        day()
    page = day.page.read_text()
    assert "| of a |" in page
    assert "| `b` | what b does | 2.5 | to do |" in page
    del day.behaviour["b"]
    status, done, page = day()
    assert (status, done) == (0, "bc")
    assert page.index("| of a |") < page.index("| of b |") < page.index("| of c |")


def _breaks():
    raise ZeroDivisionError("a defect")


def _fails():
    raise Failed("no such data")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (_breaks, "ZeroDivisionError: a defect"),
        (_fails, "no such data"),
        (
            lambda: Result("## Part b\n\n| half |\n|---|\n| a table |\n", "a column is missing"),
            "a column is missing",
        ),
    ],
    ids=["a defect", "a failure", "half a table"],
)
def test_a_part_that_fails_is_recorded_and_tried_again_while_the_others_stand(day, behaviour, reason):
    day.behaviour["b"] = behaviour
    for expected in ("abc", "b"):
        status, done, page = day()
        assert (status, done) == (1, expected)
        assert f"**Not whole: {reason}.**" in page
        assert ("| a table |" in page) == ("column" in reason)
        assert "| of c |" in page
    del day.behaviour["b"]
    status, done, page = day()
    assert (status, done) == (0, "b")
    assert "Not whole" not in page


def test_a_command_that_was_stopped_is_not_a_failure(tmp_path, monkeypatch):
    """SIGTERM reached the command: its exit status is that of the day, which then goes on with the same part."""
    program = tmp_path / "python"
    python = sys.executable
    monkeypatch.setattr(parts.sys, "executable", str(program))

    def run(text):
        program.write_text(f"#!{python} -IS\nimport os, sys\n{text}\n")
        program.chmod(0o755)
        return parts._run(["tf_pivae.paper"])

    for text, status in (("sys.exit(143)", 143), ("os.kill(os.getpid(), 15)", 143), ("sys.exit(130)", 130)):
        with pytest.raises(SystemExit) as stopped:
            run(text)
        assert stopped.value.code == status
    assert run("sys.exit('step 1\\rstep 2\\nerror: a mistake')") == (1, "a mistake")


@pytest.mark.parametrize("argument", ["--parts=nothing", "--parts=tests,table3"])
def test_mistakes_end_in_one_line(argument, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([argument])
    assert stopped.value.code == 2
    assert "there are tests, steps, table1, table2" in capsys.readouterr().err


# What is expected, and the page.


def test_the_page_is_that_of_the_parts(tmp_path):
    """That in docs/: of what was measured on a GPU, or of nothing."""
    markers = json.loads((ROOT / "docs/gpu.json").read_text())
    page = (ROOT / "docs/gpu.md").read_text()
    assert render(markers) == page
    assert ("nothing has been measured" in page) == (not markers)
    assert command.main(["--parts=none", f"--output_dir={tmp_path / 'day'}", f"--page={tmp_path / 'gpu.md'}"]) == 0
    assert "nothing has been measured" in (tmp_path / "gpu.md").read_text()


def test_hours_are_arithmetic_over_a_rate():
    assert f"num_steps = {hours.NUM_STEPS}\n" in (ROOT / "gin/training/paper.gin").read_text()
    flops = hours.step_flops()
    assert set(flops) >= {row.name for table in TABLES.values() for row in table.rows}
    # GAN and its second training, VAE, PiVAE, CQG, CQFG.
    first = 0.23 + 0.12 + 0.12 + 0.18 + 0.37 + 0.46
    assert hours.training_hours("1", {}) == pytest.approx(200_000 * first / 15.6 / 3600)
    # Without the GAN and the CQFG that Table 1 has trained.
    second = 0.39 + 0.66 + 0.73 + 2.30
    rates = hours.measured_rates({"tests": {"rates": None}, "steps": {"rates": {"table1": 3e13, "iaf_res": 2e13}}})
    assert hours.training_hours("1", rates) == pytest.approx(200_000 * first / 30.0 / 3600)
    assert hours.training_hours("2", rates) == pytest.approx(200_000 * second / 20.0 / 3600)


@pytest.mark.parametrize(
    ("devices", "before", "after"),
    [(1, None, "0"), (3, None, "0,1"), (8, None, "0,1,2,3,4,5,6,7"), (3, "5,6,7", "5,6")],
)
def test_a_batch_is_split_among_as_many_gpus_as_divide_it(devices, before, after, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert parts.dividing_devices(devices) == {"CUDA_VISIBLE_DEVICES": after}


# Data.


def test_data_are_the_first_that_can_be_had_and_stay_so(tmp_path, monkeypatch):
    asked = []

    def prepare(words):
        asked.append(words)
        return (2, "no network") if len(asked) == 1 else (0, "")

    monkeypatch.setattr(parts, "_run", prepare)
    day = parts.Day(tmp_path / "day", False, 1, sys.executable)
    data, why = parts._data(day)
    assert data.name == "complete Fashion-MNIST at 32x32"
    assert why == " (CIFAR-10 could not be had: no network)"
    assert asked[1] == ["tf_pivae.prepare", "--gin_file=paper/cqfg.gin", *data.flags]
    assert parts._data(day) == (data, why)
    assert len(asked) == 2


@pytest.mark.slow
@pytest.mark.parametrize("row", ["gan", "cqg", "cqfg", "cqfg_iaf_res"])
def test_full_size_nets_fit_the_images_that_come_along(row):
    result = forking.run("train", f"--gin_file=paper/{row}.gin", *parts.DATA[-1].flags, "--describe")
    assert result.returncode == 0, result.stderr
    assert "32x32x1" in result.stdout


# What is measured with: the device, and clocks that stop when it has finished.


def test_gpus_are_hidden_from_what_is_measured_on_the_processor(monkeypatch):
    started = []
    monkeypatch.setattr(process.subprocess, "Popen", lambda words, **options: started.append((words, options["env"])))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for device in ("cpu", "gpu"):
        pool = Pool(2, device, "another/python")
        for system in ("ours", "eager"):
            pool.worker(system)
    assert [words[0] for words, _ in started] == [sys.executable, "another/python"] * 2
    assert [words[-1] for words, _ in started] == ["cpu", "cpu", "gpu", "gpu"]
    assert [environment.get("CUDA_VISIBLE_DEVICES") for _, environment in started] == ["-1", "-1", None, None]


class _Worker:
    """Answers at once: a call takes so many seconds."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.case = None

    def prepare(self, case):
        self.case = case
        if self.seconds is None:
            raise process.WorkerFailed("compile: no compiler")
        return 5.0, 7.0

    def ask(self, do, **request):
        return {
            "peak": {"bytes": 3 * 10**9, "libraries": 0},
            "flops": {"flops": 8e11},
            "time": {"seconds": self.seconds * request.get("calls", 0)},
        }[do]


class _Pool:
    """Workers by system and copy."""

    device = "gpu"

    def __init__(self):
        seconds = {("ours", 0): 0.05, ("ours", 1): 0.1, ("ours", 2): 0.04, ("ours", 3): 0.06}
        seconds |= {("eager", 0): 0.2, ("compile", 0): None}
        self.workers = {key: _Worker(value) for key, value in seconds.items()}

    def worker(self, system, logical_cpus=1, copy=0):
        assert logical_cpus == 1
        return self.workers[system, copy]

    def discard(self, worker):
        pass

    def close(self):
        pass


def test_step_times_are_those_of_the_workers():
    pool = _Pool()
    names = dict.fromkeys(Options._fields)
    options = Options(**names)._replace(kinds=["table1"], factors=[1.0], batches=[64], side=32, peers=PEERS)
    options = options._replace(rounds=3, budget=100.0)
    (title, _, header, (row,), notes, *_), rates = steps.measure(pool, options, devices=4)
    assert title == steps.TITLE
    cells = dict(zip(header, row, strict=True))
    assert cells["ours"] == "50 ms"
    assert cells["images/s"] == "1280"
    assert cells["TFLOP/s"] == "16"
    ratios = {name: cell for name, cell in cells.items() if name.endswith("/ ours")}
    assert ratios == {
        "without XLA / ours": "2.00 (2.00-2.00)",
        "bfloat16 / ours": "0.80 (0.80-0.80)",
        "eager PyTorch / ours": "4.00 (4.00-4.00)",
        "torch.compile / ours": "failed",
        "4 devices, 4 times the batch / ours": "1.20 (1.20-1.20)",
    }
    assert cells["memory, MB: ours, eager, compile"] == "3000, 3000, -"
    assert notes == ("`compile` failed: compile: no compiler",)
    assert rates == {"table1": pytest.approx(1.6e13)}
    ours = [pool.workers["ours", copy].case for copy in range(4)]
    assert [case.get("xla", False) for case in ours] == [True, False, True, False]
    assert [case.get("convolutions") for case in ours] == [None, None, "bfloat16", None]
    assert (ours[3]["replicas"], ours[3]["batch"]) == (4, 256)


_LAZY = """
import time
pending = 0
def setup(*_): pass
def forget(): pass
def device_peak(): return 42
def prepare(system, case): return call, None
def call():
    global pending
    pending += 1
def wait():
    global pending
    time.sleep(0.1 * pending)
    pending = 0
"""


def test_clocks_stop_when_the_device_has_finished(tmp_path):
    (tmp_path / "lazy.py").write_text(_LAZY)
    program = "from benchmarks import worker; worker.MODULES['lazy'] = 'lazy'; worker.main('lazy', 1, 1, 'gpu')"
    requests = [{"do": "prepare", "case": {}}, {"do": "time", "calls": 3}, {"do": "peak"}]
    result = subprocess.run(
        [sys.executable, "-c", program],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    prepared, timed, peak = map(json.loads, result.stdout.splitlines())
    assert prepared["seconds"] >= 0.1
    assert timed["seconds"] >= 0.3
    assert peak == {"bytes": 42, "libraries": 0}


@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_whole_twin_is_on_the_device(kind, monkeypatch):
    """PyTorch's device without memory stands for a GPU: it refuses tensors of the processor beside its own."""
    torch = pytest.importorskip("torch", reason="the twin is in PyTorch (the extra `bench`)")
    from benchmarks import peer

    monkeypatch.setattr(peer, "_device", lambda: torch.device("meta"))
    trainers = []
    trainer = peer.training.Trainer
    monkeypatch.setattr(peer.training, "Trainer", lambda *args, **kwargs: trainers.append(trainer(*args, **kwargs)))
    case = cases.case("train", kind, cases.TINY, 2, 16)
    peer.prepare("eager", case)
    with peer._device():
        images = peer._images(case)
    noise = peer._noise(case)
    bound = trainers[0].bound(images, noise)
    fake = trainers[0].sample((3, 16, 16), noise)
    penalty = peer.training.gradient_penalty(trainers[0].critic, fake, fake, noise.uniform("mix", ()))
    (penalty - bound.mean()).backward()
    assert {t.device.type for t in (bound, fake, penalty)} == {"meta"}
    parameters = [*trainers[0].model.parameters(), *trainers[0].critic.parameters()]
    assert {p.grad.device.type for p in parameters if p.grad is not None} == {"meta"}


@pytest.mark.slow
def test_a_whole_day_on_two_halves_of_the_processor(tmp_path):
    """By its command; what it prints and writes are numbers of every part."""
    quick = ["benchmarks.gpu", "--quick", f"--output_dir={tmp_path}"]
    result = forking.run(*quick, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "gpu.md").read_text()
    assert "| `test_convolutions_are_those_of_the_processor[bfloat16]` | passed |" in page
    assert "| table1 | 0.0625 | 2 | " in page
    assert page.count("On the bundled subset of Fashion-MNIST at 32x32. The published") == 2
    assert page.count("\n| CQFG | ") == 2
    assert page.count("| finished 20") == 4
    again = forking.run(*quick, cwd=ROOT)
    assert again.stderr.count(": finished on") == 4
