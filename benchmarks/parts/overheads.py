"""What should cost nothing: a second replica, the input pipeline, the start; what XLA and bfloat16 make of a step."""

import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import cases, starting
from benchmarks.options import Options
from benchmarks.process import ROOT, Competitor, Pool, compare_all, ratio
from benchmarks.report import Section, milliseconds, worst_of

BFLOAT16_GAINS = {0.25: 1.4, 1.0: 2.0}  # By width: how many times as fast a step in bfloat16 is to be.


def replicas(pool: Pool, options: Options) -> Section:
    """Two logical replicas beside one at the same global batch, and beside two steps of half of the batch."""
    rows = []
    ratios = []
    for factor, batch in itertools.product(options.factors, [batch for batch in options.batches if batch > 1]):
        pool.close()  # TensorFlow takes the collectives of a process's models for the same; these have other shapes.
        case = cases.case("train", factor=factor, batch=batch, side=options.side)
        competitors = {
            "one": Competitor("ours", case),
            "two": Competitor("ours", case | {"replicas": 2}, logical_cpus=2),
            "half": Competitor("ours", case | {"batch": batch // 2}, copy=1),
        }
        results = compare_all(pool, competitors, options.rounds, options.budget)
        ratios.append((ratio(results["two"], results["one"]).median, f"width {factor:g}, batch {batch}"))
        halves = results["half"]._replace(seconds=[2.0 * seconds for seconds in results["half"].seconds])
        rows.append([f"{factor:g}", str(batch), milliseconds(results["one"].median)])
        rows[-1] += [str(ratio(timing, results["one"])) for timing in (results["two"], halves)]
        rows[-1].append(str(ratio(results["two"], halves)))
        options.say(" | ".join(rows[-1]))
    text = (
        "A training step of `iaf_res` on two replicas that share the same cores and the same threads, beside one "
        "replica with the whole batch; and beside one replica that takes two steps, each with half of the batch: what "
        "small batches cost by themselves, whoever computes them."
    )
    header = ["width", "global batch", "one replica", "two / one", "two halves / one", "two / two halves"]
    targets = worst_of("two replicas / one at most 1.05", 1.05, ratios, at_least=False)
    return Section("Two replicas", text, header, rows, targets=tuple(targets))


def xla(pool: Pool, options: Options) -> Section:
    """A training step compiled by XLA beside one that is not."""
    rows = []
    for batch in options.batches:
        case = cases.case("train", "table1", options.factors[0], batch, options.side)
        competitors = {
            "graph": Competitor("ours", case),
            "xla": Competitor("ours", case | {"xla": True}, copy=1),
        }
        results = compare_all(pool, competitors, options.rounds, options.budget)
        compiled = results["xla"]
        graph = results["graph"]
        rows.append([str(batch), milliseconds(graph.median), str(ratio(compiled, graph)), f"{compiled.first:.1f}"])
        options.say(" | ".join(rows[-1]))
    text = (
        f"A training step of `table1` (width {options.factors[0]:g}) with `train.jit_compile = True` beside one "
        "without, on processors, where the default is without. On a GPU it is with."
    )
    header = ["batch", "step without", "with / without", "s to the first compiled step"]
    return Section("XLA on processors", text, header, rows)


def mixed_precision(pool: Pool, options: Options) -> Section:
    """A training step in float32 and with bfloat16 convolutions, ours and the twin's under `torch.autocast`."""
    rows = []
    gains: dict[float, list] = {factor: [] for factor in BFLOAT16_GAINS}
    ahead = []
    for factor, batch in itertools.product(options.factors, options.batches):
        pool.close()
        case = cases.case("train", "table1", factor, batch, options.side)
        rounded = case | {"convolutions": "bfloat16"}
        competitors = {"ours": Competitor("ours", case), "ours, rounded": Competitor("ours", rounded, copy=1)}
        if "eager" in options.peers:
            competitors |= {"twin": Competitor("eager", case), "twin, rounded": Competitor("eager", rounded, copy=1)}
        results = compare_all(pool, competitors, options.rounds, options.budget)
        ours = results["ours, rounded"]
        gain = ratio(results["ours"], ours)
        place = f"width {factor:g}, batch {batch}"
        gains.get(factor, []).append((gain.median, place))
        rows.append([f"{factor:g}", str(batch), milliseconds(ours.median), str(gain)])
        if "eager" in options.peers:
            twin = ratio(results["twin, rounded"], ours)
            ahead.append((twin.median, place))
            rows[-1] += [str(ratio(results["twin"], results["twin, rounded"])), str(twin)]
        options.say(" | ".join(rows[-1]))
    text = (
        "A training step of `table1` with bfloat16 convolutions (`options/mixed_precision.gin`) beside one in float32, "
        "the same of the PyTorch twin, eager, under `torch.autocast`, and the twin's under `torch.autocast` beside "
        "ours."
    )
    header = ["width", "batch", "step", "float32 / bfloat16"]
    if "eager" in options.peers:
        header += ["the twin's float32 / autocast", "the twin's autocast / bfloat16"]
    targets = [
        target
        for factor, aim in BFLOAT16_GAINS.items()
        for target in worst_of(f"bfloat16, width {factor:g}: float32 / bfloat16 at least {aim:g}", aim, gains[factor])
    ]
    targets += worst_of("bfloat16: the twin's autocast / ours at least 1", 1.0, ahead)
    return Section("bfloat16", text, header, rows, targets=tuple(targets))


def input_pipeline(pool: Pool, options: Options) -> Section:
    """Training from the pipeline beside training on one batch over and over."""
    rows = []
    ratios = []
    for batch in options.batches:
        case = cases.case("train", factor=options.factors[0], batch=batch, side=options.side)
        results = compare_all(
            pool,
            {
                "fixed": Competitor("ours", case),
                "input": Competitor("ours", case | {"task": "train_from_input"}, copy=1),
            },
            options.rounds,
            options.budget,
        )
        step = results["fixed"].median
        ratios.append((ratio(results["input"], results["fixed"]).median, f"batch {batch}"))
        input_only = Competitor("ours", case | {"task": "input"})
        input_only = compare_all(pool, {"alone": input_only}, options.rounds, options.budget)["alone"]
        rows.append(
            [
                str(batch),
                milliseconds(step),
                str(ratio(results["input"], results["fixed"])),
                f"{100.0 * input_only.median / step:.2f} %",
            ]
        )
        options.say(" | ".join(rows[-1]))
    text = (
        f"A training step of `iaf_res` (width {options.factors[0]:g}) fed by the input pipeline, beside one on a batch "
        "that is already there; and how long the pipeline takes for a batch when nothing else runs."
    )
    header = ["batch", "step on a fixed batch", "fed / fixed", "a batch alone, of a step"]
    targets = worst_of("step fed by the input pipeline / on a fixed batch at most 1.02", 1.02, ratios, at_least=False)
    return Section("The input pipeline", text, header, rows, targets=tuple(targets))


def start(pool: Pool, options: Options) -> Section:
    """Commands from their start to what they are there for, and where the start of a training goes."""
    pool.close()  # Each has the machine for itself.
    train = ["tf_pivae.train", "--gin_file=demo.gin"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = f"{folder}/run"
        one_step = [*train, f"--run_dir={run_dir}", "--gin_param=num_steps=1", "--gin_param=train.eval_examples=0"]
        _seconds(one_step, options.threads)
        evaluate = ["tf_pivae.evaluate", f"--run_dir={run_dir}", "--num_examples=1"]
        logged = [*train, "--gin_param=train.log_every=1"]
        wrong = [*train, f"--run_dir={folder}/wrong", "--gin_param=RealNVP.widht=16"]
        timed = (
            ("`train --gin_file=demo.gin` to its first step", 8.0, functools.partial(_seconds_to_first_step, logged)),
            ("`evaluate` of one image of such a run", 6.0, functools.partial(_seconds, evaluate)),
            ("`train` with a wrong name in gin", 3.0, functools.partial(_seconds, wrong, status=2)),
            ("`train --help`", 0.5, functools.partial(_seconds, ["tf_pivae.train", "--help"])),
        )
        rows = []
        targets = []
        for what, aim, measure in timed:
            seconds = [measure(threads=options.threads) for _ in range(1 if options.quick else 3)]
            median = statistics.median(seconds)
            rows.append([what, f"{median:.3g}", f"{min(seconds):.3g} to {max(seconds):.3g}", f"{aim:g}"])
            options.say(" | ".join(rows[-1]))
            targets += worst_of(f"start, {what}: at most {aim:g} s", aim, [(median, "median")], False, " s")
    parts = [_parts_of_a_start(options.threads) for _ in seconds]
    num_operations = {part.pop("operations") for part in parts}
    for part, what in starting.PARTS.items():
        own = [measured[part] for measured in parts]
        rows.append([f"the first again: {what}", f"{statistics.median(own):.3g}"])
        rows[-1] += [f"{min(own):.3g} to {max(own):.3g}", ""]
        options.say(" | ".join(rows[-1]))
    text = (
        "From the start of the process to the end of the first step, or of the command: the median of "
        f"{len(seconds)}, the lowest and the highest. Each run of the first row has a new folder. The last rows "
        "are the parts of such a start, of processes of their own (`benchmarks/starting.py`); the step is a graph of "
        f"{', '.join(f'{number:,}' for number in sorted(num_operations))} operations when it has been traced."
    )
    header = ["command", "s", "lowest and highest", "aim, s"]
    return Section("Start", text, header, rows, targets=tuple(targets))


def _seconds(command, threads, status=0):
    """Of a command from its start to its end with this exit status."""
    started = time.perf_counter()
    with _running(command, threads) as process:
        if process.wait() != status:
            raise RuntimeError(f"{' '.join(command)} ended with exit status {process.returncode}.")
    return time.perf_counter() - started


def _seconds_to_first_step(command, threads):
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with _running([*command, f"--run_dir={folder}/run"], threads) as process:
            while not _has_a_line(f"{folder}/run/metrics.jsonl"):
                if process.poll() is not None:
                    raise RuntimeError("the demo ended before its first step.")
                time.sleep(0.02)
            return time.perf_counter() - started


def _parts_of_a_start(threads):
    """What `benchmarks.starting` prints."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.starting", f"{folder}/run"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            preexec_fn=lambda: _stay_on(threads),
        )
    return json.loads(process.stdout)


@contextlib.contextmanager
def _running(command, threads):
    """A command without output, which ends with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: _stay_on(threads),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _stay_on(threads):
    import os

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _has_a_line(path):
    try:
        with open(path) as file:
            return "\n" in file.read()
    except FileNotFoundError:
        return False
