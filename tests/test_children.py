"""A command that another one started ends with it, however that was killed."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

from tf_pivae.system import children

_PARENT = """
    import subprocess, sys, time
    from tf_pivae.system import children
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=children.environment())
    child.wait()
"""
_CHILD = """
    import os, signal, sys, time
    from tf_pivae.system import children
    children.end_with_parent()
    assert "TF_PIVAE_PARENT" not in os.environ
    def save(*_):
        print("saved", flush=True)
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    print("up", flush=True)
    time.sleep(100)
"""


def test_a_child_of_a_killed_command_saves_and_ends():
    command = [sys.executable, "-c", textwrap.dedent(_PARENT), textwrap.dedent(_CHILD)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.wait()
    # The pipe ends when the child, which holds it too, has ended.
    assert parent.stdout.read() == "saved\n"
    parent.stdout.close()


def test_a_child_that_comes_up_after_its_parent_is_gone_ends_at_once():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {**os.environ, "TF_PIVAE_PARENT": str(gone.pid)}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(_CHILD)], env=environment, check=False)
    assert result.returncode == 128 + signal.SIGTERM


def test_a_command_started_by_hand_outlives_its_shell():
    environment = {name: value for name, value in os.environ.items() if name != "TF_PIVAE_PARENT"}
    code = "from tf_pivae.system import children; children.end_with_parent(); print('alone')"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "alone\n"


def test_waits_for_whoever_holds_the_run(tmp_path):
    children.wait_for_lock(tmp_path / "new")  # Nobody does.
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        started = time.monotonic()
        children.wait_for_lock(tmp_path)
        assert time.monotonic() - started >= 0.4
        fcntl.flock(lock, fcntl.LOCK_EX)
        children.wait_for_lock(tmp_path, stopped=lambda: True)
