"""Programs sent to an executor: the protocol both ways, patience, and answers that nobody should believe."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.executor import answer_with, executor
from helpers.sandboxes import QUICK
from lightning_r1.sandbox.base import Limits, Program, Sandbox, SandboxError, Status
from lightning_r1.sandbox.open import open_sandbox
from lightning_r1.sandbox.remote import RemoteSandbox

DOUBLE = Program("print(int(input()) * 2)")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("SANDBOX_API_KEY", raising=False)


def ok(printed: bytes = b"2\n", **changes: Any) -> dict[str, Any]:
    return {"status": "ok", "output": base64.b64encode(printed).decode(), "seconds": 0.1, "detail": "", **changes}


def body(*runs: Any) -> bytes:
    return json.dumps({"runs": list(runs)}).encode()


def test_it_proves_itself_and_runs_programs(sandbox: Sandbox) -> None:
    with executor(answer_with(sandbox)) as (url, questions):
        remote = open_sandbox("remote", url=url, languages=("python", "cpp"))
        runs = remote.run(DOUBLE, ["1", "2", "3", "4"], QUICK)
        assert [run.output for run in runs] == [b"2\n", b"4\n", b"6\n", b"8\n"]
        assert [len(question["inputs"]) for question in questions[-3:]] == [1, 2, 1]
        value = remote.run(Program("def f(x): return x", function="f"), ['["é"]'], QUICK)[0]
        assert json.loads(value.output) == "é"
        assert [run.status for run in remote.run(Program("print("), ["", ""], QUICK)] == [Status.COMPILE_ERROR]
        assert [run.status for run in remote.run(Program("print("), [], QUICK)] == [Status.COMPILE_ERROR]


def test_it_ends_early() -> None:
    with executor(lambda question: body(*[ok()] * len(question["inputs"]))) as (url, questions):
        runs = RemoteSandbox(url).run(DOUBLE, ["1"] * 10, go_on=lambda place, run: place < 1)
        assert len(runs) == 2
        assert [len(question["inputs"]) for question in questions] == [1, 2]


def test_a_busy_executor_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_r1.sandbox.remote._FIRST_WAIT_S", 0.0)
    monkeypatch.setenv("SANDBOX_API_KEY", "k")
    answers = iter([429, 503, 500, b"{cut", body(ok())])
    with executor(lambda question: next(answers)) as (url, questions):
        runs = RemoteSandbox(url).run(DOUBLE, ["1"])
        assert [run.output for run in runs] == [b"2\n"]
        assert len(questions) == 5
        assert questions[0]["headers"]["Authorization"] == "Bearer k"


@pytest.mark.parametrize("answer", [503, b"[]x"])
def test_patience_ends(answer: int | bytes) -> None:
    with executor(lambda question: answer) as (url, _):
        runs = RemoteSandbox(url, patience_s=0.2).run(DOUBLE, ["1", "2"])
        assert [run.status for run in runs] == [Status.BROKEN]
        assert "no answer within 0.2 s" in runs[0].detail


def test_an_answer_that_drips_ends_with_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_r1.sandbox.remote._COMPILE_S", 0.1)

    def drips() -> Iterator[bytes]:
        for _ in range(1000):
            time.sleep(0.02)  # well within the socket's own timeout, which begins anew
            yield b" "

    with executor(lambda question: drips()) as (url, _):
        started = time.monotonic()
        runs = RemoteSandbox(url, patience_s=0.5).run(DOUBLE, ["1"], Limits(wall_s=0.1))
    assert [run.status for run in runs] == [Status.BROKEN]
    assert "nothing whole in time" in runs[0].detail
    assert time.monotonic() - started < 15


def test_an_executor_that_is_away_breaks_nothing_else() -> None:
    with executor(lambda question: body(ok())) as (url, _):
        pass
    runs = RemoteSandbox(url, patience_s=0.2).run(DOUBLE, ["1"])
    assert [run.status for run in runs] == [Status.BROKEN]


LIES = {
    "refused": 403,
    "no object": b"[1]",
    "no runs": b"{}",
    "too few": body(),
    "too many": body(ok(), ok()),
    "no status of ours": body(ok(status="great")),
    "no base64": body(ok(output="*")),
    "no seconds": body(ok(seconds="soon")),
    "too long": body(ok(b"x" * (QUICK.output_bytes + 1))),
    "endless": b" " * (5 << 20),
}


@pytest.mark.parametrize("name", LIES)
def test_an_answer_out_of_the_protocol_is_nobodys_result(name: str) -> None:
    with executor(lambda question: LIES[name]) as (url, questions):
        runs = RemoteSandbox(url).run(DOUBLE, ["1"])
        assert [run.status for run in runs] == [Status.BROKEN]
        assert len(questions) == 1


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "http://", "host:80"])
def test_an_address_is_checked(url: str) -> None:
    with pytest.raises(SandboxError, match="expected an address"):
        open_sandbox("remote", url=url)


def test_an_executor_without_walls_is_refused() -> None:
    everything = executor(lambda question: body(*[ok(b"42\n")] * len(question["inputs"])))
    with everything as (url, _), pytest.raises(SandboxError, match="canary"):
        open_sandbox("remote", url=url)
