"""A conversation in the terminal, with a model that says what the test tells it to."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from helpers.prompts import mini_codec, mini_template
from lightning_r1.config.errors import ConfigError
from lightning_r1.models.answering import Answered, Habits
from lightning_r1.models.asked import Message
from lightning_r1.serve import chat as chat_module
from lightning_r1.serve.batch import answer_lines
from lightning_r1.serve.chat import Chat
from lightning_r1.serve.turn import printable
from lightning_r1.text.tags import Tags

OPTIONS = {"max_new_tokens": None, "system": None, "seed": None}
DIM, END = "\x1b[2m", "\x1b[0m"


class Scripted:
    """Says the next of some answers, a character at a time; ``^C`` in one is where a person presses it."""

    def __init__(self, *answers: str, remembers: bool = True, system: bool = True, context: int = 1000) -> None:
        self.answers, self.context = list(answers), context
        self.tokenizer = mini_codec().tokenizer
        self.tokenizer.chat_template = mini_template(
            turn_end=";" if remembers else None, system="{system}" if system and remembers else None
        ).chat_template()
        self.asked: list[list[Message]] = []
        self.how: list[Habits] = []
        self.model = SimpleNamespace(parameters=lambda: iter(()), device=SimpleNamespace(type="cpu"))

    def prompt(self, messages: Sequence[Message]) -> str:
        return f"{messages[-1]['content']}<think>"

    def room(self, messages: Sequence[Message]) -> int:
        return self.context - sum(len(message["content"]) for message in messages)

    def answer(
        self, messages: Sequence[Message], tell: Callable[[str], None], habits: Habits, *, max_new_tokens: int
    ) -> Answered:
        self.asked.append(list(messages))
        self.how.append(habits)
        text = self.answers.pop(0)
        for character in text[:max_new_tokens]:
            if character == "^":
                raise KeyboardInterrupt
            tell(character)
        return Answered(min(len(text), max_new_tokens), "stop" if len(text) <= max_new_tokens else "length")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal would show."""
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, color_system="standard", highlight=False, width=100)
    monkeypatch.setattr(chat_module, "console", terminal)
    return shown


def talk(monkeypatch: pytest.MonkeyPatch, model: Scripted, *lines: str | type[BaseException], **options: Any) -> None:
    """The conversation in which a person types these lines, and then Ctrl-D."""
    typed: Iterator[str | type[BaseException]] = iter([*lines, EOFError])

    def next_line(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", next_line)
    Chat(model, Tags(), Habits(0.6, 0.95), {**OPTIONS, **options}, title="mini").run()  # type: ignore[arg-type]


def test_thinking_is_dim_and_the_answer_plain(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    talk(monkeypatch, Scripted("hm</think>42"), "6*7")
    assert "mini: 0 parameters on cpu, temperature 0.6, top-p 0.95" in screen.getvalue()
    assert f"{DIM}h{END}{DIM}m{END}\n42\n" in screen.getvalue()
    assert "12 tokens" in screen.getvalue()
    assert "</think>" not in screen.getvalue()


def test_later_turns_see_the_answers_but_not_the_thinking(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted("hm</think>42", "a</think>43", "b</think>1")
    talk(monkeypatch, model, "6*7", "plus 1", "/reset", "0+1")
    assert [message["content"] for message in model.asked[1]] == ["6*7", "42", "plus 1"]
    assert [message["role"] for message in model.asked[1]] == ["user", "assistant", "user"]
    assert [message["content"] for message in model.asked[2]] == ["0+1"]


def test_who_knows_single_questions_is_asked_them(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted("</think>1", "</think>2", remembers=False)
    talk(monkeypatch, model, "one", "two")
    assert [message["content"] for message in model.asked[1]] == ["two"]
    assert "each stands alone" in screen.getvalue()


def test_ctrl_c_ends_an_answer_and_not_the_program(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted("a</think>4^2", "b^</think>", "c</think>7")
    talk(monkeypatch, model, "6*7", "again", KeyboardInterrupt, "and now")
    assert screen.getvalue().count("(ended)") == 2
    assert "Ctrl-D or /exit leaves" in screen.getvalue()
    # what was said counts; what was only thought does not
    assert [message["content"] for message in model.asked[2]] == ["6*7", "4", "and now"]


def test_commands(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted(*["hm</think>1"] * 4)
    talk(
        monkeypatch, model, "/help", "/system be brief", "/temperature 0", "a", "/temperature -1", "/temperature x",
        "/thinking", "b", "/system", "c", "/nonsense", "/exit", "never asked",
    )  # fmt: skip
    assert model.asked[0] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]
    assert model.asked[1][0]["role"] == "system"
    assert [message["content"] for message in model.asked[2]] == ["c"]
    assert [habits.temperature for habits in model.how] == [0, 0, 0]
    assert model.how[0].top_p == 0.95
    shown = screen.getvalue()
    assert "/temperature -1: expected a number" in shown
    assert "/nonsense: there is no such command" in shown
    assert shown.count(f"{DIM}h{END}{DIM}m{END}") == 1  # hidden from the second answer on
    for command in ("/reset", "/system", "/temperature", "/thinking", "/exit"):
        assert command in shown.partition("expected")[0]


def test_no_place_for_a_system_message(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted("</think>1", system=False)
    talk(monkeypatch, model, "/system be brief", "a")
    assert "no place for a system message" in screen.getvalue()
    assert len(model.asked[0]) == 1


def test_a_full_context_is_said(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> None:
    model = Scripted("</think>1", context=5)
    talk(monkeypatch, model, "six***", "one")
    assert "fills the model's context of 5 tokens; /reset begins anew" in " ".join(screen.getvalue().split())
    assert "ended by the limit of tokens; the thinking was not closed" in screen.getvalue()  # two tokens were left
    assert [message["content"] for message in model.asked[0]] == ["one"]


def test_a_model_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2J\x07\x9b1mb\r\n\tc 对") == "a[2J1mb\n\tc 对"


def test_a_pipe_is_answered_line_by_line() -> None:
    model, answers = Scripted("hm</think> 42\n", "</think>7\x1b"), io.StringIO()
    lines = ["6*7\n", "\n", "7\n"]
    answer_lines(lines, answers, model, Tags(), Habits(0), {**OPTIONS, "system": "s"})  # type: ignore[arg-type]
    assert answers.getvalue() == "42\n7\n"
    assert [message["content"] for message in model.asked[1]] == ["s", "7"]  # each alone


def test_a_reader_that_has_read_enough_ends_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as head does
    model = Scripted("</think>1", "</think>2")
    with os.fdopen(writer, "w") as answers:
        answer_lines(["a", "b"], answers, model, Tags(), Habits(0), OPTIONS)  # type: ignore[arg-type]
    assert model.answers == ["</think>2"]


def test_bytes_that_are_no_text_can_be_asked() -> None:
    model = Scripted("</think>1")
    line = b"2+2\xff\n".decode("utf-8", "surrogateescape")
    answer_lines([line], io.StringIO(), model, Tags(), Habits(0), OPTIONS)  # type: ignore[arg-type]
    assert model.asked[0][0]["content"] == "2+2\ufffd"


def test_a_line_that_is_too_long_is_named() -> None:
    with pytest.raises(ConfigError, match="line 2: the conversation fills the model's context of 10 tokens"):
        answer_lines(
            ["a", "b" * 10], io.StringIO(), Scripted("</think>1", context=10), Tags(), Habits(0), OPTIONS  # type: ignore[arg-type]
        )  # fmt: skip
