"""The chat client against a real server: answers, tries, refusals, the cache."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from helpers.endpoint import Answer, endpoint, http, reply_body, skip_waits
from lightning_r1.remote.chat import ChatClient, ChatError, ChatRefused

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(url: str, **options: Any) -> ChatClient:
    return ChatClient(base_url=url, model="m", **{"first_wait_s": 0.0, "deadline_s": 20.0, **options})


def in_turn(*answers: Answer) -> Callable[[dict[str, Any]], Answer]:
    turns: Iterator[Answer] = iter(answers)
    return lambda body: next(turns)


def echo(body: dict[str, Any]) -> str:
    return "echo " + body["messages"][-1]["content"]


def test_question_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with endpoint(echo) as server:
        answer = client(server.url + "/", api_key_env="MY_KEY", temperature=0.5, max_tokens=7).ask(HELLO)
    assert answer == "echo hello"
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "m", "messages": HELLO, "temperature": 0.5, "max_tokens": 7}


def test_without_a_key_none_is_sent() -> None:
    with endpoint(echo) as server:
        client(server.url).ask(HELLO)
    assert "Authorization" not in server.requests[0][1]
    assert "max_tokens" not in server.requests[0][2]


@pytest.mark.parametrize("failure", [429, 500, 503, 408, b"no json", b"", (429, {"Retry-After": "0"})], ids=str)
def test_another_try_when_it_may_help(failure: Answer) -> None:
    with endpoint(in_turn(failure, failure, "at last")) as server:
        assert client(server.url).ask(HELLO) == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_is_not_asked_again(status: int) -> None:
    with endpoint(in_turn(status)) as server, pytest.raises(ChatRefused, match=rf"HTTP {status}: told to"):
        client(server.url).ask(HELLO)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_is_no_matter_of_the_question(status: int) -> None:
    with endpoint(in_turn(status)) as server, pytest.raises(ChatError, match=rf"HTTP {status}") as caught:
        client(server.url).ask(HELLO)
    assert not isinstance(caught.value, ChatRefused)
    assert len(server.requests) == 1


def test_a_redirection_does_not_carry_the_key_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with endpoint(echo) as other:
        with (
            endpoint(lambda body: (302, {"Location": other.url})) as server,
            pytest.raises(ChatError, match="HTTP 302"),
        ):
            client(server.url).ask(HELLO)
        assert other.requests == []


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, [1]], ids=str)
def test_a_reply_without_content(reply: Any) -> None:
    with endpoint(lambda body: json.dumps(reply).encode()) as server, pytest.raises(ChatRefused, match="no choices"):
        client(server.url).ask(HELLO)


def test_the_deadline_ends_the_tries() -> None:
    with endpoint(lambda body: 503) as server, pytest.raises(ChatError, match=r"no answer within 0\.2 s; last: "):
        client(server.url, deadline_s=0.2, first_wait_s=0.05).ask(HELLO)
    assert len(server.requests) < 5  # not before 0.05 and 0.15 seconds


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    with (
        endpoint(lambda body: (429, {"Retry-After": "3600"})) as server,
        pytest.raises(ChatError, match="no answer within"),
    ):
        client(server.url).ask(HELLO)
    assert len(server.requests) == 1


def test_an_endpoint_that_asked_for_an_hour_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_r1.remote.pace.LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr("lightning_r1.remote.pace.PROBE_S", 0.0)
    with endpoint(in_turn((503, {"Retry-After": "3600"}), "at last")) as server:
        one = client(server.url)
        with pytest.raises(ChatError, match="no answer within"):
            one.ask(HELLO)
        assert one.ask([*HELLO, *HELLO]) == "at last"


@pytest.mark.parametrize("form", ["0.3", "date"])
def test_a_pause_is_kept_by_all_threads(form: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    after = form if form != "date" else format_datetime(until, usegmt=True)
    asked: list[float] = []

    def answer(body: dict[str, Any]) -> Answer:
        asked.append(time.monotonic())
        return (429, {"Retry-After": after}) if len(asked) == 1 else "at last"

    with endpoint(answer) as server:
        one = client(server.url)
        started = time.monotonic()
        assert one.ask(HELLO) == "at last"
        least = 0.3 if form != "date" else 0.5  # a date has no fractions of a second
        assert asked[1] - started >= least
        one._pace.pause(0.2)
        paused_at = time.monotonic()
        assert one.ask([*HELLO, *HELLO]) == "at last"
    assert asked[2] - paused_at >= 0.2


def test_waits_double_and_are_shortened_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lightning_r1.remote.chat.time.sleep", waits.append)
    state = random.getstate()
    with endpoint(in_turn(*[503] * 9, "fine")) as server:
        client(server.url, first_wait_s=8.0, deadline_s=1e6).ask(HELLO)
    retries = [wait for wait in waits if wait]
    assert len(retries) == 9
    for wait, longest in zip(retries, [8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
        assert longest / 2 <= wait <= longest
    assert len({wait / 60 for wait in retries[3:]}) == 6
    assert random.getstate() == state  # the run's own randomness is not spent


def test_the_own_pace_is_no_fault_of_the_endpoint() -> None:
    def takes_its_time(connection: socket.socket, ended: threading.Event) -> None:
        ended.wait(0.1)
        connection.sendall(http(reply_body("well")))

    with endpoint(lambda body: takes_its_time) as server:
        slow = client(server.url, requests_per_minute=20, deadline_s=2.8)
        started = time.monotonic()
        for number in range(2):
            assert slow.ask([*HELLO] * (number + 1)) == "well"
    assert time.monotonic() - started >= 3.0


def test_one_that_is_away_is_tried_once_and_then_trusted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_waits(monkeypatch)

    def asks(number: int) -> tuple[str | ChatError, int]:
        before = len(server.requests)
        [answer] = asking.ask_all([[*HELLO] * number])
        return answer, len(server.requests) - before

    said: list[Answer] = [503]
    with endpoint(lambda body: said[0]) as server:
        asking = client(server.url, deadline_s=20.0, first_wait_s=0.01)
        answer, tries = asks(1)
        assert isinstance(answer, ChatError)
        assert tries > 1
        assert asks(2)[1] == 0
        asking._presence._probe_at = 0.0  # half a minute later
        assert asks(3)[1] == 1
        asking._presence._probe_at = 0.0
        said[0] = "here"
        assert asks(4) == ("here", 1)
        said[0] = 503
        assert asks(5)[1] > 1


def test_half_a_surrogate_pair_does_not_spoil_an_answer() -> None:
    with endpoint(lambda body: b'{"choices": [{"message": {"content": "so \\ud800!"}}]}') as server:
        assert client(server.url).ask(HELLO) == "so ?!"


def test_tokens_are_counted_as_the_endpoint_counts_them() -> None:
    answers = iter([{"usage": {"total_tokens": 50}}, {"usage": {"total_tokens": True}}, {"usage": [1]}, {}])
    with endpoint(lambda body: reply_body("hm", **next(answers))) as server:
        counting = client(server.url, tokens_per_minute=1e6, max_tokens=1000)
        booked: list[float] = []
        counting._pace.correct = booked.append  # type: ignore[method-assign]
        for number in range(4):
            counting.ask([*HELLO] * (number + 1))
    assert booked[0] == pytest.approx(50 - 1000, abs=50)
    assert booked[1:] == [0, 0, 0]


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ChatError, match=r"no answer within 20 s; last: URLError"):
        client(url, deadline_s=20, first_wait_s=100.0).ask(HELLO)


def test_answers_are_kept(tmp_path: Path) -> None:
    with endpoint(echo) as server:
        first = client(server.url, cache=tmp_path).ask(HELLO)
        again = client(server.url, cache=tmp_path).ask(HELLO)
        assert len(server.requests) == 1
        client(server.url, cache=tmp_path, temperature=1.0).ask(HELLO)
        client(server.url, cache=tmp_path).ask([*HELLO, *HELLO])
        assert len(server.requests) == 3
    assert first == again == "echo hello"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json"}
    assert len(files) == 3


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    with endpoint(in_turn(400, "fine")) as server:
        with pytest.raises(ChatRefused):
            client(server.url, cache=tmp_path).ask(HELLO)
        assert client(server.url, cache=tmp_path).ask(HELLO) == "fine"


def test_many_at_once_in_order() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        number = int(body["messages"][0]["content"])
        return 400 if number % 10 == 3 else str(number * number)

    told: list[tuple[int, int]] = []
    with endpoint(answer) as server:
        asked = [[{"role": "user", "content": str(number)}] for number in range(40)]
        answers = client(server.url, at_once=8).ask_all(asked, lambda done, total: told.append((done, total)))
    for number, given in enumerate(answers):
        if number % 10 == 3:
            assert isinstance(given, ChatRefused)
        else:
            assert given == str(number * number)
    assert told == [(done, 40) for done in range(1, 41)]
    assert client("http://127.0.0.1:1").ask_all([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "file:///etc/passwd"}, "base_url='file:///etc/passwd': expected an address like"),
        ({"base_url": "localhost:8000"}, "base_url='localhost:8000'"),
        ({"timeout_s": 0}, "timeout_s=0: expected > 0"),
        ({"deadline_s": -1.0}, "deadline_s=-1.0"),
        ({"at_once": 0}, "at_once=0"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatClient(**{"base_url": "http://127.0.0.1", "model": "m", **options})
