"""Signals while steps are taken, and after the last one."""

import os
import signal

import pytest

from tf_pivae.training.stopping import Stopped, Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_later_ends_what_goes_on(number):
    handler = signal.getsignal(number)
    with Stopping() as stopping:
        stopping.check()
        os.kill(os.getpid(), number)
        assert stopping.signal == number
        reached = False
        with stopping.at_once():
            stopping.check()
            reached = True
        assert not reached
    with Stopping() as stopping:
        with stopping.at_once():
            try:
                os.kill(os.getpid(), number)
                for _ in range(10**6):  # The handler runs between two instructions.
                    pass
                reached = True
            except Exception:  # As whatever is on the way might.
                reached = True
        assert stopping.signal == number
        assert not reached
        os.kill(os.getpid(), number)  # Afterwards it is noted again.
    assert signal.getsignal(number) == handler


def test_nothing_happens_without_one():
    with Stopping() as stopping:
        with stopping.at_once():
            stopping.check()
            done = True
        assert done
        assert stopping.signal is None
    assert not issubclass(Stopped, Exception)
