"""Mixed requests over many connections: every row is right, and the server's memory stays where it is."""

import load
import pytest


@pytest.mark.parametrize(("requests", "connections"), [(2000, 100), pytest.param(20_000, 200, marks=pytest.mark.slow)])
def test_many_requests(server, requests, connections):
    result = load.ask_all(server, requests, connections)
    print(result)
    counts = result.counts
    assert counts["wrong"] == counts["failed"] == 0
    assert sum(counts.values()) == requests
    assert counts["right"] > 0.8 * requests
    assert counts["refused"] > 0.02 * requests
    half = len(result.memory) // 2
    assert max(result.memory[half:]) - result.memory[half] < 30  # MiB; every request's input alone would be as many KB.
