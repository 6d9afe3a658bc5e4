"""Tests of pytest-xdist's workers run in forked processes, each renewed at a file's end once it holds much memory.

TensorFlow, oneDNN and XLA keep something of every graph, kernel and shape that they have seen, out of Python's reach. A
worker collects the tests, which runs nothing of TensorFlow, and forks a process that runs them. After a file's last
test, one that holds more than `RENEW_BYTES` ends with all its fixtures, and the next file begins in a new one. A test
that crashes its process fails, and the next one goes on. Without workers (`-n 0`) pytest's own process runs the tests.
"""

import gc
import os
import signal
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import forking
import pytest
import usage
from _pytest.runner import runtestprotocol

RENEW_BYTES = 0.85e9
_running: list[tuple[int, Connection]] = []  # The process that runs tests now and the line to it, if there is one.


def _fork(items: dict[str, pytest.Item]) -> tuple[int, Connection]:
    context = sys.modules.get("tensorflow.python.eager.context")
    unused = context is None or context.context()._context_handle is None
    assert unused, "a file of tests runs TensorFlow when it is imported"
    forking.python()  # What commands are forked from is the worker's, and outlives the processes that run tests.
    here, there = Pipe()
    number = os.fork()
    if number:
        there.close()
        return number, here
    here.close()
    status = 1
    try:
        _run_tests(items, there)
        status = 0
    finally:
        os._exit(status)


def _run_tests(items: dict[str, pytest.Item], line: Connection) -> None:
    """Receives the names of a test and of the next; sends its reports, this process' peak, and whether it goes on."""
    goes_on = True
    while goes_on:
        name, next_name = line.recv()
        item = items[name]
        following = items.get(next_name)
        if following is not None and following.path != item.path and usage.held() > RENEW_BYTES:
            following = None
        goes_on = following is not None
        hook = item.config.hook
        reports = [
            hook.pytest_report_to_serializable(config=item.config, report=report)
            for report in runtestprotocol(item, log=False, nextitem=following)
        ]
        line.send((reports, usage.peak(), goes_on))


def _end() -> int:
    """The exit status of the process that has run tests."""
    number, line = _running.pop()
    line.close()
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not hasattr(item.config, "workerinput"):
        return None
    if not _running:
        gc.freeze()
        _running.append(_fork({item.nodeid: item for item in item.session.items}))
    line = _running[0][1]
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        line.send((item.nodeid, nextitem and nextitem.nodeid))
        reports, peak, goes_on = line.recv()
    except (EOFError, OSError):
        status = _end()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        call = pytest.CallInfo.from_call(lambda: pytest.fail(f"the process ended: {how}", pytrace=False), "call")
        reports = [pytest.TestReport.from_item_and_call(item, call)]
        goes_on = True
    else:
        usage.saw(item.location[0], peak)
        reports = [hook.pytest_report_from_serializable(config=item.config, data=data) for data in reports]
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if not goes_on:
        _end()
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    if _running:
        _end()
    forking.close()
