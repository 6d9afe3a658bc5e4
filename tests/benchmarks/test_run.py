"""The program that measures: turns, ratios, and a run of it on tiny models."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import forking
import pytest

from benchmarks import cases, process, starting
from benchmarks.parts import runtimes
from benchmarks.process import Competitor, Timing, compare, ratio
from benchmarks.report import FINDINGS, Section, Target, how_measured, load_sections, render, worst_of
from benchmarks.run import PARTS, _parse, main

ROOT = Path(__file__).resolve().parents[2]


def _needs_torch():
    pytest.importorskip("torch", reason="the peers are in PyTorch (the extra `bench`)")


class _Worker:
    """Answers at once, and writes down what it was asked."""

    def __init__(self, requests, name, seconds, fails=False):
        self.requests = requests
        self.name = name
        self.seconds = list(seconds)
        self.fails = fails

    def prepare(self, case):
        if self.fails:
            raise process.WorkerFailed(f"{self.name}: out of memory")
        return 5.0, 7.0

    def ask(self, do, **request):
        if do == "peak":
            return {"bytes": 10**9, "libraries": 10**8}
        self.requests.append((self.name, request["calls"]))
        return {"seconds": request["calls"] * self.seconds.pop(0)}


class _Pool:
    def __init__(self, **workers):
        self.workers = workers

    def worker(self, system, logical_cpus=1, copy=0):
        return self.workers[system]

    def discard(self, worker):
        pass


def test_competitors_take_turns():
    requests = []
    pool = _Pool(
        a=_Worker(requests, "a", [0.0, 0.25, 0.1, 0.2, 0.3]),
        b=_Worker(requests, "b", [0.0, 2.0, 0.4, 0.4, 0.9]),
        c=_Worker(requests, "c", [], fails=True),
    )
    case = cases.case("train")
    results = compare(pool, {name: Competitor(name, case) for name in "abc"}, rounds=3, budget=100.0)
    # A quarter of a second a call: two make up a turn.
    assert requests[4:] == [("a", 2), ("b", 1)] * 3
    assert results["a"].seconds == pytest.approx([0.1, 0.2, 0.3])
    assert results["a"].first == 5.0
    assert results["a"].since_start == 7.0
    assert results["c"] == "c: out of memory"
    # Round by round: 4, 2, 3.
    assert tuple(ratio(results["b"], results["a"])) == pytest.approx((3.0, 2.5, 3.5))


def test_a_long_comparison_ends_after_three_rounds():
    requests = []
    pool = _Pool(a=_Worker(requests, "a", [1.0] * 99))
    results = compare(pool, {"a": Competitor("a", {})}, rounds=20, budget=-1.0)
    assert len(results["a"].seconds) == 3


@pytest.mark.parametrize(("at_least", "worst", "met"), [(True, "0.9 s (b)", False), (False, "1.4 s (a)", True)])
def test_a_target_is_judged_by_its_worst_case(at_least, worst, met):
    measured = [(1.4, "a"), (0.9, "b"), (1.2, "c")]
    limit = 1.0 if at_least else 1.5
    assert worst_of("fast", limit, measured, at_least, " s") == [Target("fast", worst, met)]
    assert worst_of("fast", limit, []) == []


@pytest.mark.parametrize(
    ("wanted", "met", "verdict"),
    [("fast", True, "yes"), ("fast", False, "no"), ("two replicas / one at most 1.05", False, "withdrawn")],
)
def test_a_target_is_met_or_missed_or_withdrawn(wanted, met, verdict):
    section = Section("Title", "text", [], [], targets=(Target(wanted, "2", met),))
    assert f"| {wanted} | 2 | {verdict} |" in render([section], SimpleNamespace(quick=False))


def test_each_table_tells_the_load_before_its_measurement(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    options = SimpleNamespace(threads=2, arguments="--parts=memory")
    quiet = how_measured(options, 0.125)
    assert quiet.startswith("With `--parts=memory`, 20")
    assert quiet.endswith("2 cores, as many threads, load before the start 0.12.")
    assert how_measured(options, 0.7).endswith("load before the start 0.70. **The machine was busy.**")
    assert "load" not in how_measured(options, None)


def test_a_competitor_that_fails_on_the_way_is_left_out():
    requests = []
    pool = _Pool(a=_Worker(requests, "a", [1.0] * 9), b=_Worker(requests, "b", [1.0] * 3))
    pool.workers["b"].ask = _failing_after(3, pool.workers["b"].ask)
    competitors = {name: Competitor(name, {}) for name in "ab"}
    results = compare(pool, competitors, rounds=5, budget=100.0)
    assert len(results["a"].seconds) == 5
    assert results["b"] == "b: killed"
    pool.workers["b"] = _Worker(requests, "b", [], fails=True)
    pool.workers["a"].seconds = [1.0] * 9
    with pytest.raises(process.WorkerFailed, match="b: out of memory"):
        process.compare_all(pool, competitors, rounds=1, budget=100.0)


def _failing_after(calls, ask):
    count = itertools.count()

    def failing(do, **request):
        if do == "time" and next(count) >= calls:
            raise process.WorkerFailed("b: killed")
        return ask(do, **request)

    return failing


def test_ratio_of_one_round():
    assert tuple(ratio(Timing([3.0], 0.0, 0.0, 0, 0), Timing([2.0], 0.0, 0.0, 0, 0))) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--parts=nothing", "no part 'nothing'"), ("--batches=0", "must be positive"), ("--factors=a", "must be numbers")],
)
def test_mistakes_end_in_one_line(argument, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([argument])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_runtime_that_needs_more_memory_than_the_twin_counts_where_no_other_is_there():
    """Of one runtime both are wanted: its speed and its memory."""

    def timing(seconds, size):
        return Timing([seconds], 0.0, 0.0, size, 0)

    case = cases.case("log_prob", "iaf_res", 0.25, side=16, importance_samples=16) | {"batch": 2}
    results = {"tensorflow": timing(1.0, 7), "openvino": timing(2.0, 3), "eager": timing(4.0, 6)}
    speed, memory = runtimes._targets([(case, results)])
    assert (speed.worst, speed.met) == ("2 (width 0.25, K = 16, batch 2, OpenVINO)", True)
    assert (memory.worst, memory.met) == ("0.5 (width 0.25, K = 16, batch 2, OpenVINO)", True)
    del results["openvino"]
    speed, memory = runtimes._targets([(case, results)])
    assert (speed.worst, speed.met) == ("4 (width 0.25, K = 16, batch 2, TensorFlow)", True)
    assert (memory.worst, memory.met) == ("1.17 (width 0.25, K = 16, batch 2, TensorFlow)", False)


def test_compiling_is_measured_for_the_narrowest_models_at_some_batches():
    options = _parse(["--compile_batches=2,16", "--factors=0.5,1"])[0]
    assert options.peers_at(0.5, 16) == ["eager", "compile"]
    assert options.peers_at(0.5, 64) == options.peers_at(1.0, 16) == ["eager"]


def test_parts_measured_earlier_stay_in_the_report(tmp_path, monkeypatch):
    output = tmp_path / "performance.md"
    for part in ("growth", "start"):
        section = Section(f"Title of {part}", "text", ["a"], [["1"]], targets=(Target(f"fast {part}", "2 s", True),))
        monkeypatch.setitem(PARTS, part, lambda pool, options, section=section: section)
    for parts in ("start", "growth", "none"):
        assert main(["--quick", f"--parts={parts}", f"--output={output}"]) == 0
        text = output.read_text()
        assert "fast start" in text
        assert f"--parts={parts}" in text or parts == "none"
    assert text.index("Title of growth") < text.index("Title of start")  # In the order of the parts, not of measuring.


def test_the_page_is_that_of_its_numbers():
    """What was measured is kept as JSON; everything but the versions of the libraries is in the page as it is there."""
    sections = load_sections(ROOT / "docs/performance.json")
    assert sections
    assert set(sections) <= set(PARTS)
    page = (ROOT / "docs/performance.md").read_text()
    for section in sections.values():
        for row in section.rows:
            assert "| " + " | ".join(row) + " |" in page
        assert section.text in page
        assert section.how in page
    assert FINDINGS.read_text() in page


@pytest.mark.slow
def test_quick_run_writes_a_report(tmp_path):
    """By its command, with real workers: every cell of the table is a number, and memory is that of a process."""
    _needs_torch()
    output = tmp_path / "docs/performance.md"
    command = ["benchmarks.run", "--quick", "--tasks=train,sample", f"--output={output}"]
    command.append("--parts=table1,table1_alone,flows,operations,start")
    result = forking.run(*command, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    tables = _tables(output.read_text().replace(FINDINGS.read_text(), ""))  # Whose tables are not of this run.
    assert [len(table) for table in tables] == [12, 2, 1, 5, 8, 4 + len(starting.PARTS)]
    worst = {row["target"]: row["worst case"] for row in tables[0]}
    for head, title in (("head", "head"), ("squeezed head", "head, squeezed")):
        where = worst[f"{head}: every peer / ours at least 1"]
        assert re.fullmatch(rf"\S+ \({title}: [^,]+, width [^,]+, batch \d+, \w+\)", where)
    assert {row["met"] for row in tables[0]} <= {"yes", "no", "withdrawn"}
    assert [row["task"] for row in tables[2]] == ["sample"]
    for row in [*tables[1], *tables[2]]:
        assert float(row["images/s"]) > 0.0
        assert float(row["eager / ours"].split()[0]) > 0.0
        memory = re.fullmatch(r"(\d+) \((\d+)\), (\d+) \((\d+)\)", row["peak memory (libraries), MB: ours, eager"])
        peaks, libraries = ([int(memory[i]) for i in pair] for pair in ((1, 3), (2, 4)))
        assert all(50 < before < peak < 20000 for before, peak in zip(libraries, peaks, strict=True))
    for row in [*tables[3], *tables[4]]:
        assert all(float(cell.split()[0]) > 0.0 for name, cell in row.items() if "/" in name)
    assert all(0.0 < float(row["s"]) < 100.0 for row in tables[5])


@pytest.mark.slow
def test_runtimes_of_an_export(tmp_path):
    """All of them run the same model: float32 agrees, bfloat16 nearly; OpenVINO does without TensorFlow's memory."""
    pytest.importorskip("openvino", reason="a runtime that is measured (the extra `openvino`)")
    _needs_torch()
    output = tmp_path / "performance.md"
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--parts=runtimes", f"--output={output}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    targets, rows = _tables(output.read_text().replace(FINDINGS.read_text(), ""))
    speed, memory = targets
    assert memory["met"] == "yes"
    assert "OpenVINO" in memory["worst case"]  # Whichever was the fastest: TensorFlow needs more than the twin.
    assert speed["met"] == ("yes" if float(speed["worst case"].split()[0]) >= 1.5 else "no")  # Of one call each.
    assert all(row["target"].startswith("exported, log_prob: ") for row in targets)
    names = ["TensorFlow", "OpenVINO", "OpenVINO, bfloat16", "PyTorch twin"]
    assert [(row["K"], row["runtime"]) for row in rows] == [("16", name) for name in names]
    tensorflow, float32, bfloat16, twin = rows
    assert float(float32["memory, MB"]) < 0.5 * float(tensorflow["memory, MB"])
    assert float(float32["difference"]) < 1e-5
    assert float(bfloat16["difference"]) < 1e-2
    assert tensorflow["difference"] == twin["difference"] == "-"
    assert all(float(row[column].split()[0]) >= 0 for row in rows for column in ("start, s", "a call", "images/s"))


def _tables(text):
    """Markdown tables as lists of rows, dicts by header."""
    tables = []
    header = None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
            tables.append([])
        elif not set(line) <= set("|-"):
            tables[-1].append(dict(zip(header, cells, strict=True)))
    return tables


def test_the_package_does_without():
    """Nothing installed imports the benchmarks."""
    sources = [path for folder in ("tf_pivae", "export") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 50
    imports = re.compile(r"^\s*(from|import) benchmarks\b", re.MULTILINE)
    assert not [path for path in sources if imports.search(path.read_text())]
