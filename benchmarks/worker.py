"""A process that times one system: it takes requests from standard input, a line of JSON each, and answers likewise.

    {"do": "prepare", "case": {...}}    builds the case, runs it once       -> {"seconds": s}
    {"do": "time", "calls": n}          runs it n times                     -> {"seconds": s of all calls}
    {"do": "peak"}                      highest memory since `prepare`      -> {"bytes": b, or null where unknown,
                                        and that of the libraries alone;        "libraries": b, or null}
                                        on a GPU, that which tensors had
    {"do": "values"}                    what a call computes, where it says -> {"values": list of numbers}
    {"do": "flops"}                     arithmetic of a call                -> {"flops": n}
    {"do": "profile", "calls": n}       per-operation totals of n calls     -> {"seconds": {type: s of a call}}

Started by `benchmarks.process.Worker`.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MODULES = {
    "ours": "benchmarks.ours",
    "eager": "benchmarks.peer",
    "compile": "benchmarks.peer",
    "normflows": "benchmarks.libraries",
    "nflows": "benchmarks.libraries",
    "tensorflow": "benchmarks.deployed",
    "openvino": "benchmarks.deployed",
    "openvino_bf16": "benchmarks.deployed",
}


def main(system: str, threads: int, logical_cpus: int, device: str) -> None:
    """Answers until standard input ends; `device` is "cpu" or "gpu"."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print must not get between the answers.
    module = importlib.import_module(MODULES[system])
    module.setup(system, threads, logical_cpus, device)
    libraries = _memory("VmRSS")
    call: Callable[[], Any] = None
    flops: Callable[[], int] = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            call = None
            flops = None
            module.forget()
            gc.collect()
            _reset_peak()
            started = time.perf_counter()
            call, flops = module.prepare(system, request["case"])
            call()
            module.wait()
            answer = {"seconds": time.perf_counter() - started}
        elif request["do"] == "time":
            started = time.perf_counter()
            for _ in range(request["calls"]):
                call()
            module.wait()
            answer = {"seconds": time.perf_counter() - started}
        elif request["do"] == "peak":
            answer = {"bytes": _memory("VmHWM"), "libraries": libraries}
            if device == "gpu":
                answer = {"bytes": module.device_peak(), "libraries": 0}
        elif request["do"] == "values":
            answer = {"values": call()}
        elif request["do"] == "profile":
            answer = {"seconds": module.profile(call, request["calls"])}
        else:
            answer = {"flops": flops()}
        print(json.dumps(answer), file=answers, flush=True)


def _reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Linux: the highest resident size starts again from the current one.
    except OSError:
        pass


def _memory(column):
    """The resident size in bytes, now ("VmRSS") or the highest ("VmHWM"); None where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines[column].split()[0])
    except (OSError, KeyError):
        return None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
