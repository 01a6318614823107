"""Rewards in worker processes: hostile ones, lying ones, many at once, and nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers import hostile
from helpers.hostile import DEEDS, VERDICTS, Together, heavy_package, obey, obey_later, say, slow
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import InProcessScorer, Item, Reward, RewardError
from lightning_r1.rewards.dispatch import Dispatcher
from lightning_r1.rewards.format import Format
from lightning_r1.rewards.language import LanguageConsistency
from lightning_r1.rewards.workers import WorkerPool
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

TIMEOUT_S = 0.75  # of what hangs; the rest has half a minute, for the machine may be loaded
HANGS = {"loop", "stubborn", "power", "regex", "sleep"}
DIES = {
    "segfault": "died of SIGSEGV: Fatal Python error: Segmentation fault",
    "abort": "died of SIGABRT: Fatal Python error: Aborted",
    "exit": "left with exit status 3",
    "exit 0": "left with exit status 0",
    "kill group": "died of SIGKILL (out of memory?)",
    "close everything": "left with exit status 1",
    "stderr": "left with exit status 1: the last words",
    "leave a flood": "left with exit status 3",
    "forge": 'wrote b\'["answer", 0, 1.0, "ok", "forged"]\'',
}
RAISES = {
    "memory": "MemoryError: more than reward.workers.memory_mib",
    "slow memory": "MemoryError: more than reward.workers.memory_mib",
    "sys.exit": "SystemExit: ",
    "interrupt": "KeyboardInterrupt: ",
    "base exception": "BaseException: not an Exception",
    "recursion": "RecursionError: maximum recursion depth exceeded",
    "raise": "ValueError: broken",
    "socket": "ConnectionRefusedError: ",
}
SURVIVES = {"fork", "fork and stay", "daemon", "subprocess", "streams", "print", "alarm", "thread"}


def item(text: str, question: str = "q") -> Item:
    return Prompt(f"test/{question}", question, question, (1,), {"kind": "number", "value": 1}), Completion(
        (1, 2), (-0.5, -0.25), "stop", text
    )


@contextlib.contextmanager
def pool_of(**options: Any) -> Iterator[WorkerPool]:
    pool = WorkerPool(**{"timeout_s": 30.0, **options})
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with pool_of() as pool:
        yield pool


@pytest.fixture(scope="module")
def hasty() -> Iterator[WorkerPool]:
    with pool_of(timeout_s=TIMEOUT_S) as pool:
        yield pool


def processes() -> set[int]:
    """All processes below this one, whoever they have for a parent now."""
    found, waiting = set(), [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                children = {int(one) for one in Path(f"/proc/{pid}/task/{task}/children").read_text().split()}
                waiting += children - found
                found |= children
    return found


def gone(pids: set[int], seconds: float = 20.0) -> bool:
    """Whether all of them end in time; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(alive(pid) for pid in pids):
            return True
        threading.Event().wait(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_deed_has_its_end() -> None:
    assert set(DEEDS) == HANGS | set(DIES) | set(RAISES) | SURVIVES | {"kill the nursery"}


@pytest.mark.parametrize("deed", sorted(HANGS))
def test_one_hanging_answer_is_alone_in_that(hasty: WorkerPool, deed: str) -> None:
    bad = alone_in_that(hasty, deed)
    assert (bad.outcome, bad.detail) == (Outcome.TIMEOUT, "no answer after 0.75 s")
    assert math.isnan(bad.value)


@pytest.mark.parametrize("deed", sorted(set(DIES) | set(RAISES) | SURVIVES))
def test_one_bad_answer_is_alone_in_that(pool: WorkerPool, deed: str) -> None:
    bad = alone_in_that(pool, deed)
    if deed in SURVIVES:
        assert (bad.value, bad.outcome) == (len(deed), Outcome.OK)
        return
    assert math.isnan(bad.value)
    assert bad.outcome is Outcome.CRASH
    assert {**DIES, **RAISES}[deed] in bad.detail
    assert len(bad.detail) < 1000


def alone_in_that(pool: WorkerPool, deed: str) -> RewardScore:
    """The score of a bad answer among good ones, which have theirs."""
    before, bad, *after = pool.score("obey", obey, [item("a"), item(deed), item("bb"), item("ccc")])
    assert [(score.value, score.outcome) for score in (before, *after)] == [(v, Outcome.OK) for v in (1.0, 2.0, 3.0)]
    return bad


def test_a_hang_costs_its_limit_and_no_more() -> None:
    with pool_of(workers=1, timeout_s=TIMEOUT_S) as pool:
        pool.start([("obey", obey)])
        started = time.monotonic()
        scores = pool.score("obey", obey, [item("sleep") if place % 4 == 1 else item("aa") for place in range(16)])
        assert time.monotonic() - started < 4 * TIMEOUT_S + 5
    assert [score.outcome for score in scores] == [Outcome.OK, Outcome.TIMEOUT, Outcome.OK, Outcome.OK] * 4


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_come_back_as_they_would_be_here(pool: WorkerPool, name: str) -> None:
    (here,), (there,) = InProcessScorer().score("say", say, [item(name)]), pool.score("say", say, [item(name)])
    assert (there.outcome, there.detail) == (here.outcome, here.detail)
    assert there.value == here.value or (math.isnan(there.value) and math.isnan(here.value))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_neither_order_nor_number_of_workers_matters(workers: int) -> None:
    texts = [str(random.Random(place).randrange(8)) for place in range(120)]
    groups = [[item(text, "q" * place) for text in texts[place * 6 : place * 6 + 6]] for place in range(20)]
    with pool_of(workers=workers, recycle_after=17) as pool:
        pending = [(pool.begin("slow", slow, group), pool.begin("obey", obey, group)) for group in groups]
        for group, (of_slow, of_obey) in reversed(list(zip(groups, pending, strict=True))):
            assert [score.value for score in of_slow.result()] == [
                float(one.text) + len(prompt.question) for prompt, one in group
            ]
            assert [score.value for score in of_obey.result()] == [1.0] * 6


def test_our_rules_say_the_same_there_as_here(pool: WorkerPool) -> None:
    texts = ["<think>so</think><answer>1</answer>", "<think>so</think><answer>2</answer>", "x", "</think> 1/1"]
    rules = {"accuracy": Accuracy(Tags()), "format": Format(Tags()), "language": LanguageConsistency(Tags())}
    items = [item(text) for text in texts]
    for name, rule in rules.items():
        assert pool.score(name, rule, items) == InProcessScorer().score(name, rule, items)


def test_several_threads_may_ask(pool: WorkerPool) -> None:
    results: dict[int, list[RewardScore]] = {}

    def ask(number: int) -> None:
        results[number] = pool.score("obey", obey, [item("x" * (number + place)) for place in range(10)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, scores in results.items():
        assert [score.value for score in scores] == [number + place for place in range(10)]


def test_nothing_to_score(pool: WorkerPool) -> None:
    assert pool.score("obey", obey, []) == []


def test_a_worker_sees_no_secret_no_torch_and_no_console(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("MY_TABLE", "here")
    with pool_of(environment=["MY_TABLE"]) as pool:
        (score,) = pool.score("environment", hostile.environment, [item("x")])
        assert score.value == 0  # heavy modules
        assert "MY_TABLE" in score.detail.split()
        assert set(score.detail.split()) <= {
            "MY_TABLE", "PATH", "PYTHONPATH", "PYTHONHASHSEED", "OMP_NUM_THREADS", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
            "TMPDIR", "LD_LIBRARY_PATH",
        }  # fmt: skip
        pool.score("obey", obey, [item("print"), item("stderr")])
    assert capfd.readouterr() == ("", "")


def test_workers_are_replaced_in_time() -> None:
    with pool_of(workers=1, recycle_after=10) as pool:
        answered = [int(score.value) for score in pool.score("process", hostile.process, [item("x")] * 35)]
    assert max(answered.count(pid) for pid in answered) <= 10
    assert len(set(answered)) >= 4


def test_a_reward_is_sent_once_and_imported_beforehand() -> None:
    reward = hostile.NeedsKey(2.5)
    with pool_of(workers=2, recycle_after=3) as pool:
        pool.start([("key", reward)])
        scores = pool.score("key", reward, [item("x")] * 12)
    assert {score.value for score in scores} == {2.5}


def test_a_late_reward_is_known_to_workers_that_are_there_already(pool: WorkerPool) -> None:
    pool.score("obey", obey, [item("x")] * 4)
    assert [score.value for score in pool.score("late", partial(obey), [item("xx")] * 4)] == [2.0] * 4


def test_an_import_does_not_count_as_hanging(tmp_path: Path) -> None:
    folder = heavy_package(tmp_path, modules=8, seconds=0.3)
    with pool_of(workers=1, timeout_s=1.5) as pool:
        (score,) = pool.score("imports", hostile.Imports(folder), [item("x")])
    assert (score.value, score.outcome) == (7.0, Outcome.OK)


@pytest.mark.parametrize("lie", [lambda prompt, completion: 1.0, hostile.CannotBeSent()], ids=["lambda", "lock"])
def test_what_cannot_be_sent_is_named(lie: Reward) -> None:
    with pool_of() as pool, pytest.raises(RewardError, match=r"^reward\.rewards\.mine: it cannot be sent .* at_once="):
        pool.start([("mine", lie)])


def test_what_cannot_be_imported_there_is_named() -> None:
    with pool_of() as pool:
        with pytest.raises(RewardError, match=r"^reward\.rewards\.mine: a worker cannot import it \(RuntimeE"):
            pool.start([("obey", obey), ("mine", hostile.CannotBeMadeThere())])
        assert pool.score("obey", obey, [item("xx")])[0].value == 2.0  # the others can


def test_a_reward_that_does_nothing_but_hang_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_r1.rewards import asks

    monkeypatch.setattr(asks, "HANGS_AFTER_ANSWERS", 4)
    monkeypatch.setattr(asks, "HANGS_AFTER_PROMPTS", 3)
    with pool_of(workers=2, timeout_s=0.5) as pool:
        # one prompt may be hard for whatever grades it
        scores = pool.score("obey", obey, [item("sleep")] * 5)
        assert {score.outcome for score in scores} == {Outcome.TIMEOUT}
        assert pool.score("obey", obey, [item("xx")])[0].value == 2.0
        pending = [pool.begin("obey", obey, [item("sleep", str(number))]) for number in range(30)]
        told = r"^reward\.rewards\.obey: its last 4 answers, about [34] prompts, all took more"
        with pytest.raises(RewardError, match=told):
            [one.result() for one in pending]


def test_async_rewards_wait_together(pool: WorkerPool) -> None:
    together = Together()
    with pool_of(at_once=6) as pool:
        values = [score.value for score in pool.score("together", together, [item("x")] * 12)]
    assert max(values) == 6


def test_one_bad_async_answer_is_alone_in_that() -> None:
    deeds = ["a", "wait", "bb", "raise", "loop", "ccc", "segfault", "sys.exit", "dddd", "exit"]
    with pool_of(timeout_s=1.0, at_once=16) as pool:
        scores = pool.score("later", obey_later, [item(deed) for deed in deeds])
    expected = {"wait": Outcome.TIMEOUT, "loop": Outcome.TIMEOUT}
    for deed, score in zip(deeds, scores, strict=True):
        outcome = expected.get(deed, Outcome.CRASH if deed in DEEDS else Outcome.OK)
        assert (deed, score.outcome) == (deed, outcome)
        assert score.value == len(deed) or not outcome.counts


def test_closing_leaves_nothing() -> None:
    gc.collect()
    before, fds, threads = processes(), set(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        pool = WorkerPool(timeout_s=30.0)
        pool.score("obey", obey, [item(deed) for deed in sorted(SURVIVES)])
        assert len(processes()) > len(before)
        started = processes() - before
        pool.close()
        assert gone(started)
        pool.close()  # again it does nothing
        with pytest.raises(RewardError, match="closed"):
            pool.score("obey", obey, [item("x")])
    assert set(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads


def test_closing_does_not_wait_for_a_hanging_answer() -> None:
    pool = WorkerPool(timeout_s=600.0)
    pool.start([("obey", obey)])
    pending = pool.begin("obey", obey, [item("loop")])
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 10
    with pytest.raises(RewardError, match="closed"):
        pending.result()


def test_a_pool_that_is_forgotten_ends() -> None:
    before = processes()
    pool = WorkerPool(timeout_s=30.0)
    pool.score("obey", obey, [item("x")])
    started = processes() - before
    del pool
    gc.collect()
    assert gone(started)


def test_without_its_nursery_nothing_waits_for_ever() -> None:
    with pool_of() as pool:
        with pytest.raises(RewardError, match="the process above the reward workers ended: exit status -9"):
            pool.score("obey", obey, [item("a"), item("kill the nursery")])
        with pytest.raises(RewardError, match="exit status -9"):
            pool.score("obey", obey, [item("a")])


def test_what_a_worker_writes_when_nobody_asked_costs_the_worker_alone() -> None:
    with pool_of(workers=1) as pool:
        (before,) = pool.score("process", hostile.process, [item("x")])
        pool.score("forge", hostile.forge_later, [item("x")])
        time.sleep(0.5)
        (after,) = pool.score("process", hostile.process, [item("x")])
        assert before.value != after.value


def test_a_worker_that_never_begins_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_r1.rewards.asks.FIRST_WORD_S", 1.0)
    with pool_of(workers=1) as pool:
        assert pool.score("mine", hostile.HangsAfterFork(1), [item("x")])[0].value == 1.0
        told = r"^reward\.workers: workers said nothing in time before their first answer"
        with pytest.raises(RewardError, match=told):
            pool.score("other", hostile.HangsAfterFork(9), [item("x")])


def test_what_is_asked_in_the_last_moment_is_told_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    end, asked = Dispatcher._end, []

    def ask_then(dispatcher: Dispatcher) -> None:
        end(dispatcher)
        asked.append(pool.begin("obey", obey, [item("a")]))  # the thread is still alive

    monkeypatch.setattr(Dispatcher, "_end", ask_then)
    with pool_of() as pool:
        pool.start([("obey", obey)])
    assert asked[0].done.wait(10)
    with pytest.raises(RewardError, match="closed"):
        asked[0].result()


OWNER = """
import os, sys, time
from helpers.hostile import obey
from lightning_r1.rewards.workers import WorkerPool
from unit.rewards.test_workers import item, processes

pool = WorkerPool(timeout_s=600.0)
pool.score("obey", obey, [item(deed) for deed in ("a", "fork and stay", "subprocess", "daemon")])
pending = pool.begin("obey", obey, [item("loop"), item("sleep")])
copy = os.fork()  # as a loader of data might: it holds a copy of the sockets
if copy == 0:
    time.sleep(600)
    os._exit(0)
print(copy, *processes(), flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
if sys.argv[1] == "raise":
    raise KeyError("gone")
"""


@pytest.mark.parametrize("ending", ["kill", "raise", "leave"])
def test_nothing_outlives_the_trainer(ending: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, "wait" if ending == "kill" else ending],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout is not None
    copy, *pids = (int(pid) for pid in owner.stdout.readline().split())
    assert len(pids) >= 5
    if ending == "kill":
        owner.send_signal(signal.SIGKILL)
    owner.wait(timeout=60)
    try:
        assert gone(set(pids) - {copy})
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        owner.stdout.close()


def test_signals_for_the_trainer_do_not_reach_workers() -> None:
    with pool_of() as pool:
        (worker,) = pool.score("process", hostile.process, [item("x")])
        nursery = int(worker.detail)
        assert os.getsid(nursery) == nursery != os.getsid(0)
        assert os.getsid(int(worker.value)) == int(worker.value)
        for pid in (nursery, int(worker.value)):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(pid, number)
        (again,) = pool.score("process", hostile.process, [item("x")])
        assert again.detail == worker.detail


def test_much_is_scored_in_little_time() -> None:
    items: Sequence[Item] = [item("x" * 50)] * 20_000
    with pool_of(recycle_after=100_000) as pool:
        pool.start([("obey", obey)])
        started = time.monotonic()
        scores = pool.score("obey", obey, items)
        seconds = time.monotonic() - started
    assert [score.value for score in scores] == [50.0] * len(items)
    assert seconds < 20  # 0.3 s on an idle core


def test_long_completions_get_through() -> None:
    prompt, _ = item("x")
    completion = Completion(tuple(range(200_000)), (-0.5,) * 200_000, "length", "y" * 1_000_000)
    with pool_of() as pool:
        scores = pool.score("obey", obey, [(prompt, completion)] * 6)
    assert [score.value for score in scores] == [1_000_000.0] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, r"reward\.workers\.workers=0: expected >= 1"),
        ({"timeout_s": 0.0}, r"reward\.workers\.timeout_s=0\.0: expected > 0"),
        ({"memory_mib": 64}, r"reward\.workers\.memory_mib=64: expected >= 128"),
        ({"recycle_after": 0}, r"reward\.workers\.recycle_after=0"),
        ({"at_once": 0}, r"reward\.workers\.at_once=0"),
    ],
)
def test_options_that_leave_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerPool(**options)
