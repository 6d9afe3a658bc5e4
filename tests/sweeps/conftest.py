"""A stand-in for Python that behaves as a trial's configuration says, and starts at once."""

import sys

import pytest

from tf_pivae.sweep.trials import Trial

_SCRIPT = """#!/bin/sh
# Called as: -m tf_pivae.MODULE --run_dir=DIR ...
dir=${3#--run_dir=}
echo "$2 threads $OMP_NUM_THREADS slot $SLOT$TF_CONFIG" >> "$dir/calls"
case "$2 $(cat "$dir/trial.gin")" in
  *train*fails*) echo before; echo "error: it went wrong." >&2; echo after; exit 2;;
  *train*crashes*) echo "Traceback (most recent call last):"; echo "  File x"; echo "KeyError: 'x'"; exit 1;;
  *train*dies*) kill -9 $$;;
  *train*waits*) trap 'echo saved >> "$dir/calls"; exit 143' TERM; touch "$dir/up"; while :; do sleep 0.02; done;;
  *train*naps*) sleep 0.3;;
esac
echo "$2 ended" >> "$dir/calls"
"""


@pytest.fixture
def make_trial(tmp_path, monkeypatch):
    """A function (behaviour, **settings) -> `Trial` that claimed its folder; its commands are those of the script."""
    script = tmp_path / "python"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    def make(behaviour, **settings):
        trial = Trial(tuple(sorted({"kind": behaviour, **settings}.items())), str(tmp_path / "sweep"))
        trial.claim(behaviour)
        return trial

    return make
