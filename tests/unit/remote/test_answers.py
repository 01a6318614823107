"""Answers on disk: made once, whoever asks, and asked for anew where they cannot be read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.remote.answers import Answers, Record


class Maker:
    """Counts; waits until the test lets it go."""

    def __init__(self, *, free: bool = True) -> None:
        self.made, self.go = 0, threading.Event()
        self.begun = threading.Event()
        if free:
            self.go.set()

    def __call__(self) -> Record:
        self.begun.set()
        assert self.go.wait(20)
        self.made += 1
        if self.made == 13:
            raise OSError("unlucky")
        return {"answer": self.made}


@pytest.mark.parametrize("key", ["text", ["a", {"b": 1, "a": None}], 7], ids=str)
def test_it_is_made_once(key: Any, tmp_path: Path) -> None:
    make = Maker()
    assert Answers(tmp_path).once(key, make) == Answers(tmp_path).once(key, make) == {"answer": 1}
    assert Answers(tmp_path).get(key) == {"answer": 1}
    assert Answers(tmp_path).once([key, key], make) == {"answer": 2}


def test_without_a_folder_nothing_is_kept() -> None:
    make, answers = Maker(), Answers(None)
    assert [answers.once("key", make)["answer"] for _ in range(3)] == [1, 2, 3]
    answers.put("key", {"answer": 0})
    assert answers.get("key") is None


@pytest.mark.parametrize("found", [b"", b'{"answer"', b"[1]", b"\xff"])
def test_what_cannot_be_read_is_made_anew(found: bytes, tmp_path: Path) -> None:
    make = Maker()
    Answers(tmp_path).once("key", make)
    [file] = [file for file in tmp_path.rglob("*") if file.is_file()]
    file.write_bytes(found)
    assert Answers(tmp_path).once("key", make) == {"answer": 2}
    assert Answers(tmp_path).once("key", make) == {"answer": 2}


@pytest.mark.parametrize("folder", [True, False])
def test_who_asks_meanwhile_waits_for_the_same(folder: bool, tmp_path: Path) -> None:
    make, answers = Maker(free=False), Answers(tmp_path if folder else None)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(answers.once, "key", make)]
        assert make.begun.wait(20)
        asked += [threads.submit(answers.once, "key", make) for _ in range(3)]
        while len(threads._threads) < 4 or threads._work_queue.qsize():
            pass
        make.go.set()
        results = [one.result(20) for one in asked]
    assert results[0] == {"answer": 1}
    if folder:
        assert results == [{"answer": 1}] * 4


def test_an_error_is_everybodys_and_is_not_kept(tmp_path: Path) -> None:
    make, answers = Maker(), Answers(tmp_path)
    make.made = 12
    with pytest.raises(OSError, match="unlucky"):
        answers.once("key", make)
    assert answers.once("key", make) == {"answer": 14}


def test_half_a_surrogate_pair_is_no_reason_to_lose_an_answer(tmp_path: Path) -> None:
    Answers(tmp_path).put("key", {"request": "\ud800", "answer": "fine"})
    kept = Answers(tmp_path).get("key")
    assert kept is not None
    assert kept["answer"] == "fine"
