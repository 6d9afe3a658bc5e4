"""What the suite costs: at pytest's end, the most memory that a process held, and the processor time of all.

A process that held more than `MOST_BYTES` fails the run: something keeps the graphs and models of tests that are over.
Full-size networks, which the slow tests train, take more by themselves, and so does one process for all tests.
It is imported before pytest could rewrite it, and asserts nothing: PYTEST_DONT_REWRITE.
"""

import resource
from pathlib import Path
from typing import Any

import pytest

MOST_BYTES = 2.5e9
MOST_BYTES_OTHERWISE = 5.5e9
_costs: dict[str, str] = {}
_peaks: dict[str, float] = {}
_highest: tuple[int, str] = (0, "")


def held() -> int:
    """The memory that this process holds, in bytes; where it cannot be known, the most that it has held."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else peak()


def peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def saw(file: str, peak: int) -> None:
    """A process had held `peak` bytes at most when a test of `file` was over."""
    global _highest
    _highest = max(_highest, (peak, file))


def _cost() -> str:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return f"{_highest[0] / 1e9:.2f} GB at most, in {_highest[1] or 'no file'}; processor: {seconds:.0f} s"


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(location: tuple[str, int | None, str]) -> None:
    saw(location[0], peak())


def _most(config: pytest.Config) -> float:
    in_workers = bool(config.getoption("numprocesses", None))
    return MOST_BYTES if in_workers and config.option.markexpr == "not slow" else MOST_BYTES_OTHERWISE


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker.update(cost=_cost(), peak=_highest[0])
        return
    _costs.setdefault("this process", _cost())
    _peaks["this process"] = _highest[0] if len(_costs) == 1 else 0  # With workers it runs no test.
    if session.exitstatus == pytest.ExitCode.OK and max(_peaks.values()) > _most(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: a worker has ended."""
    output = getattr(node, "workeroutput", {})
    _costs[node.gateway.id] = output.get("cost", "broke off")
    _peaks[node.gateway.id] = output.get("peak", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("memory and processor")
    most = _most(terminalreporter.config)
    for name in sorted(_costs):
        terminalreporter.write_line(f"{name}: {_costs[name]}")
        if _peaks[name] > most:
            terminalreporter.write_line(f"FAILED {name}: more than {most / 1e9:.1f} GB, see tests/usage.py", red=True)
