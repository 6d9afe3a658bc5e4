"""Signals while steps are taken, and after the last one."""

import os
import signal
import threading

import pytest

from tf_pivae.training.stopping import Stopped, Stopping


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_under_nohup_a_closed_terminal_is_none():
    """Whoever ignores the signal hands that on to its commands."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.check()
    finally:
        signal.signal(signal.SIGHUP, handler)


def test_nothing_happens_without_one():
    with Stopping() as stopping:
        with stopping.at_once():
            stopping.check()
            done = True
        assert done
        assert stopping.signal is None
    assert not issubclass(Stopped, Exception)


def test_in_a_thread_of_a_program_what_is_requested_is_noted():
    """Python takes handlers of signals in its main thread alone."""
    noted = []

    def work():
        with Stopping() as stopping:
            stopping.request()
            with stopping.at_once():
                stopping.check()
        noted.append(stopping.signal)

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == handler
