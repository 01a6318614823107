"""When a signal raises, when it waits, and whom it does not concern."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lightning_r1.parallel.interruption import Interrupted, alone_with_ctrl_c, first_of_job, interruption

ALL = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_raises_where_it_comes_and_waits_where_it_may(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name) as left, interruption.listening():
        signal.raise_signal(number)
    assert left.value.requeue
    with interruption.listening(), interruption.waiting():
        signal.raise_signal(number)
        with pytest.raises(Interrupted, match=number.name), interruption.at_once():
            pass
        with pytest.raises(Interrupted, match=number.name):
            interruption.look()
    interruption.look()  # forgotten
    assert signal.getsignal(number) is before


def test_within_a_long_wait_it_raises() -> None:
    reached = []
    with interruption.listening(), interruption.waiting():
        with pytest.raises(Interrupted), interruption.at_once():
            reached.append(signal.raise_signal(signal.SIGUSR1))
        signal.raise_signal(signal.SIGUSR1)
        reached.append("waits again")
    assert reached == ["waits again"]


def test_another_thread_leaves_the_main_one_in_peace() -> None:
    def wait() -> None:
        with interruption.at_once():
            begun.set()
            over.wait()

    begun, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=wait)
    with interruption.listening(), interruption.waiting():
        thread.start()
        begun.wait()
        signal.raise_signal(signal.SIGUSR1)  # the main thread may be in an update
        over.set()
        thread.join()


def test_one_signal_goes_up_and_the_next_does_not_disturb() -> None:
    closed = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)
            closed.append(True)

    with pytest.raises(Interrupted), interruption.listening():
        work()
    assert closed == [True]


def test_the_first_ctrl_c_waits_and_the_second_does_not() -> None:
    with interruption.listening():
        with interruption.waiting():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(Interrupted, match=r"^Ctrl-C$") as left:
                interruption.look()
            assert not left.value.requeue
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_fork_is_not_asked() -> None:
    with interruption.listening():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.raise_signal(signal.SIGTERM)
                status = 3 if not interruption.cause else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_processes_that_belong_to_it_are_asked_by_sigterm() -> None:
    wait = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(5)); print('ready', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE) as child, interruption.listening():
        assert child.stdout is not None
        child.stdout.readline()
        interruption.children |= {child.pid}
        with interruption.waiting():
            signal.raise_signal(signal.SIGINT)
        assert child.wait() == 5


def test_ranks_that_are_started_never_see_ctrl_c() -> None:
    class Launcher:
        def _call_children_scripts(self) -> None:
            asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
            self.told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True).stdout

    launcher = Launcher()
    alone_with_ctrl_c(launcher)
    alone_with_ctrl_c(None)
    launcher._call_children_scripts()
    assert launcher.told == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_only_the_first_rank_hears_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with interruption.listening(), interruption.waiting():
        signal.raise_signal(signal.SIGINT)
        interruption.look()
    monkeypatch.delenv("LOCAL_RANK")
    with interruption.listening(), interruption.waiting():
        signal.raise_signal(signal.SIGINT)
        assert interruption.wanted
    assert "once more, and it ends at once" in capfd.readouterr().err


def test_behind_the_deadline_it_is_wanted() -> None:
    with interruption.listening(), interruption.waiting():
        interruption.stop_at = time.time() + 1000
        interruption.look()
        interruption.stop_at = time.time() - 1
        with pytest.raises(Interrupted, match="the time limit is near"):
            interruption.look()


def test_no_handler_is_kept_from_what_deals_with_errors() -> None:
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_speaks(environment: dict[str, str], first: bool) -> None:
    assert first_of_job(environment) is first
