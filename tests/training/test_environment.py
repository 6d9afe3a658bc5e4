"""What a run notes about its machines."""

import importlib.metadata
import json

from tf_pivae.runs.records import load_environments
from tf_pivae.system.environment import describe_environment
from tf_pivae.training.recorder import Recorder


def test_facts_are_plain_and_name_no_one():
    facts = describe_environment()
    assert json.loads(json.dumps(facts)) == facts
    assert all(isinstance(value, str) and value for value in facts.values())
    assert facts["tensorflow"] == importlib.metadata.version("tensorflow")
    assert {"processor", "memory", "accelerators", "system", "Python"} <= set(facts)


def test_each_start_is_noted_once(tmp_path):
    """Starts whose steps were lost to a crash before the next checkpoint are forgotten, like their metrics."""
    assert load_environments(tmp_path) == []
    for from_step in (0, 40, 80, 40):
        recorder = Recorder(tmp_path, 1, [])
        recorder.claim({})
        recorder.start(from_step, 100, 8)
        recorder.close()
    assert [start["from_step"] for start in load_environments(tmp_path)] == [0, 40]
    (tmp_path / "environment.json").write_text("{half")
    assert load_environments(tmp_path) == []
