"""What the suite costs: at pytest's end, each process' peak of memory and its processor time.

A process that held more than `MOST_BYTES` fails the run: something keeps the graphs and models of tests that are over.
"""

import resource
from typing import Any

import pytest

MOST_BYTES = 5.5e9
_costs: dict[str, str] = {}
_peaks: dict[str, float] = {}
_highest: tuple[int, str] = (0, "")


def _peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cost() -> str:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = [usage.ru_utime + usage.ru_stime for usage in (own, children)]
    return (
        f"{_highest[0] / 1e9:.2f} GB at most, reached in {_highest[1] or 'no file'}; "
        f"processor: {seconds[0]:.0f} s, its commands {seconds[1]:.0f} s"
    )


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(location: tuple[str, int | None, str]) -> None:
    global _highest
    if _peak() > _highest[0]:
        _highest = _peak(), location[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker.update(cost=_cost(), peak=_highest[0])
        return
    _costs.setdefault("this process", _cost())
    _peaks["this process"] = _highest[0] if len(_costs) == 1 else 0  # With workers it runs no test.
    if session.exitstatus == pytest.ExitCode.OK and max(_peaks.values()) > MOST_BYTES:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: a worker has ended."""
    output = getattr(node, "workeroutput", {})
    _costs[node.gateway.id], _peaks[node.gateway.id] = output.get("cost", "broke off"), output.get("peak", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("memory and processor")
    for name in sorted(_costs):
        terminalreporter.write_line(f"{name}: {_costs[name]}")
        if _peaks[name] > MOST_BYTES:
            terminalreporter.write_line(
                f"FAILED {name}: more than {MOST_BYTES / 1e9:.1f} GB, see tests/usage.py", red=True
            )
