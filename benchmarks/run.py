"""Measures everything and writes docs/performance.md: python -m benchmarks.run, or make bench.

Takes about an hour on two cores; --quick goes through every part with tiny models in a minute or two and is a test of
the program, not a measurement.
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import cases
from benchmarks.options import PEERS, Options
from benchmarks.parts import flows, growth, model, operations, overheads, profile, roofline, runtimes
from benchmarks.process import ROOT, Pool, WorkerFailed
from benchmarks.report import Section, how_measured, load_average, load_sections, render, save_sections

PARTS: dict[str, Callable[..., Section]] = {
    "table1": functools.partial(model.run, "table1"),
    "table1_alone": functools.partial(model.run_alone, "table1"),
    "iaf_res": functools.partial(model.run, "iaf_res"),
    "runtimes": runtimes.run,
    "flows": flows.run,
    "roofline": roofline.run,
    "profile": profile.run,
    "operations": operations.run,
    "growth": growth.run,
    "replicas": overheads.replicas,
    "xla": overheads.xla,
    "bfloat16": overheads.mixed_precision,
    "input": overheads.input_pipeline,
    "start": overheads.start,
}
_WITH_PEERS = {"table1", "iaf_res", "table1_alone", "flows", "operations", "runtimes", "bfloat16"}


def main(arguments: Sequence[str]) -> int:
    """Measures the chosen parts and writes the report; returns the exit status, 1 if a part could not be measured.

    What was measured lies beside the report as JSON. Parts that are not chosen stay there as they are.
    """
    options, parts, output = _parse(arguments)
    load = load_average()
    pool = Pool(options.threads)
    status = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    record = output.with_suffix(".json")
    measured = load_sections(record) if record.exists() else {}
    try:
        for part in parts:
            options.say(f"== {part}")
            try:
                section = PARTS[part](pool, options)
            except WorkerFailed as failure:
                print(f"error: {part}: {failure}", file=sys.stderr)
                section = Section(part.capitalize(), f"Not measured: {failure}", [], [])
                status = 1
            measured[part] = section._replace(how=how_measured(options, load))
            if not options.quick:
                pool.close()
            # After every part: an hour of measuring is not lost with the last one.
            save_sections(measured, record)
    finally:
        pool.close()
    output.write_text(render([measured[part] for part in PARTS if part in measured], options), encoding="utf-8")
    print(output)
    return status


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, one round: a test of the program")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, or none; default all")
    parser.add_argument("--peers", help=f"of {', '.join(PEERS)}; default both (quick: eager)")
    parser.add_argument("--kinds", default=",".join(cases.KINDS), help="models of the roofline; default both")
    parser.add_argument("--factors", help="factors on the paper's widths; default 0.25,1")
    parser.add_argument("--batches", help="default 1,16,64")
    parser.add_argument("--compile_batches", default="16", help="those at which compile is measured; default 16")
    parser.add_argument("--tasks", default=",".join(cases.TASKS), help=f"of {', '.join(cases.TASKS)}; default all")
    parser.add_argument("--threads", type=int, default=2, help="cores, and threads on them; default 2")
    parser.add_argument("--rounds", type=int, help="turns of each system; default 7")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds of a comparison; 3 rounds at least")
    parser.add_argument("--output", type=Path, help="default docs/performance.md (quick: runs/performance.md)")
    values = parser.parse_args(arguments)

    def names(text, choices, kind):
        result = tuple(text.split(","))
        for name in result:
            if name not in choices:
                parser.error(f"no {kind} {name!r}; there are {', '.join(choices)}.")
        return result

    def numbers(text, kind, option):
        try:
            result = tuple(kind(number) for number in text.split(","))
        except ValueError:
            parser.error(f"--{option} must be numbers with commas between them; got {text!r}.")
        if min(result) <= 0:
            parser.error(f"--{option} must be positive; got {text!r}.")
        return result

    quick = values.quick
    if values.threads < 1 or (values.rounds is not None and values.rounds < 1):
        parser.error("--threads and --rounds must be at least 1.")
    parts = () if values.parts == "none" else names(values.parts, PARTS, "part")
    if not importlib.util.find_spec("torch") and _WITH_PEERS & set(parts):
        part_names = ", ".join(name for name in PARTS if name in _WITH_PEERS)
        parser.error(f"the parts {part_names} need PyTorch: pip install -c constraints.txt -e .[bench]")
    options = Options(
        arguments=" ".join(arguments),
        quick=quick,
        threads=values.threads,
        rounds=values.rounds or (1 if quick else 7),
        budget=0.0 if quick else values.budget,
        kinds=names(values.kinds, cases.KINDS, "kind"),
        factors=numbers(values.factors or (f"{cases.TINY}" if quick else "0.25,1"), float, "factors"),
        batches=numbers(values.batches or ("2" if quick else "1,16,64"), int, "batches"),
        side=16 if quick else 32,
        tasks=names(values.tasks, cases.TASKS, "task"),
        compile_batches=numbers(values.compile_batches, int, "compile_batches"),
        peers=names(values.peers or ("eager" if quick else ",".join(PEERS)), PEERS, "peer"),
    )
    return options, parts, values.output or ROOT / ("runs" if quick else "docs") / "performance.md"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
