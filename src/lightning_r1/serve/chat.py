"""A conversation in the terminal: thinking dimmed, the answer plain, several turns where the model knows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from rich.text import Text

from lightning_r1.callbacks.console import console
from lightning_r1.models.answering import Answerer, Habits
from lightning_r1.models.asked import Message, shows_earlier_turns, shows_system_message
from lightning_r1.serve.turn import Turn, asked, readable
from lightning_r1.text.streaming import Part
from lightning_r1.text.tags import Tags

_HELP = {
    "/reset": "forget the conversation",
    "/system TEXT": "begin anew with a system message; without TEXT with none",
    "/temperature X": "sample at this temperature from now on; 0 is greedy",
    "/thinking": "show the thinking, or no longer",
    "/exit": "leave, as Ctrl-D does",
}


class Chat:
    """A conversation.

    Args:
        answerer: answers.
        tags: around its thinking.
        habits: how it samples at first.
        options: ``conf/serve.yaml``'s ``chat``.
        title: what the model is called.
    """

    def __init__(
        self, answerer: Answerer, tags: Tags, habits: Habits, options: Mapping[str, Any], *, title: str
    ) -> None:
        self.answerer, self.tags, self.habits, self.options, self.title = answerer, tags, habits, options, title
        self.remembers, self.has_system = (
            shows_earlier_turns(answerer.tokenizer),
            shows_system_message(answerer.tokenizer),
        )
        self.system: str | None = options["system"]
        self.messages: list[Message] = []
        self.shows_thinking = True
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/system": self._system,
            "/temperature": self._temperature,
            "/thinking": self._thinking,
        }

    def run(self) -> None:
        """Talk until Ctrl-D or /exit."""
        with suppress(ImportError):
            import readline  # noqa: F401  (input() then edits lines and remembers them)
        self._greet()
        if self.options["seed"] is not None:
            torch.manual_seed(self.options["seed"])
        while True:
            try:
                line = readable(input("> ")).strip()
            except EOFError:
                console.print()
                return
            except KeyboardInterrupt:
                console.print("\nCtrl-D or /exit leaves", style="dim")
                continue
            if line == "/exit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._answer(line)

    def _greet(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.answerer.model.parameters())
        device, habits = self.answerer.model.device.type, self.habits
        sampling = f"temperature {habits.temperature:g}, top-p {habits.top_p:g}" if habits.temperature else "greedy"
        console.print(Text(f"{self.title}: {parameters:,} parameters on {device}, {sampling}", style="bold"))
        if not self.remembers:
            console.print("It was trained on single questions: each stands alone.", style="dim")
        console.print("/help lists commands; Ctrl-C ends an answer, Ctrl-D leaves.", style="dim")

    def _answer(self, question: str) -> None:
        earlier = self.messages if self.remembers else []
        said: Message = {"role": "user", "content": question}
        messages = [*earlier, said] if earlier else asked(question, self.system)
        turn, started = Turn(self.answerer, messages, self.tags, self._show), time.perf_counter()
        self._last_thought: bool | None = None
        try:
            done = turn.write(self.habits, self.options)
        except ValueError as error:
            console.print(Text(f"{error}; /reset begins anew", style="red"))
            return
        except KeyboardInterrupt:
            console.print("\n(ended)", style="dim")
            if turn.answer:
                self.messages = [*messages, {"role": "assistant", "content": turn.answer}]
            return
        seconds = time.perf_counter() - started
        end = "" if done.finish_reason == "stop" else "; ended by the limit of tokens"
        end += "" if turn.answer else "; the thinking was not closed, so there is no answer"
        console.print(f"\n{done.tokens} tokens in {seconds:.1f} s{end}", style="dim")
        self.messages = [*messages, {"role": "assistant", "content": turn.answer}]

    def _show(self, part: Part) -> None:
        thinking, text = part
        if thinking and not self.shows_thinking:
            return
        if self._last_thought and not thinking:
            text = "\n" + text.lstrip("\n")
        self._last_thought = thinking
        console.print(Text(text, style="dim" if thinking else ""), end="", soft_wrap=True)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name in self._commands:
            self._commands[name](rest.strip())
        else:
            console.print(Text(f"{name}: there is no such command; /help lists them", style="red"))

    def _help(self, _: str) -> None:
        for command, meaning in _HELP.items():
            console.print(Text(f"{command:<16}{meaning}", style="dim"))

    def _reset(self, _: str) -> None:
        self.messages = []

    def _system(self, text: str) -> None:
        if not self.has_system:
            console.print("this model's chat template has no place for a system message", style="red")
            return
        self.system, self.messages = text or None, []

    def _temperature(self, value: str) -> None:
        try:
            temperature = float(value)
        except ValueError:
            temperature = -1.0
        if not 0 <= temperature < float("inf"):
            console.print(Text(f"/temperature {value}: expected a number, 0 or above", style="red"))
            return
        self.habits = replace(self.habits, temperature=temperature)

    def _thinking(self, _: str) -> None:
        self.shows_thinking = not self.shows_thinking
        console.print(f"thinking is {'shown' if self.shows_thinking else 'hidden'}", style="dim")
