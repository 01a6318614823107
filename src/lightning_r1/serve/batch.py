"""Questions from a pipe, one a line, each asked alone; answers on standard output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import torch

from lightning_r1.config.errors import ConfigError
from lightning_r1.models.answering import Answerer, Habits
from lightning_r1.serve.turn import Turn, asked, printable, readable
from lightning_r1.text.tags import Tags


def answer_lines(
    questions: Iterable[str],
    answers: TextIO,
    answerer: Answerer,
    tags: Tags,
    habits: Habits,
    options: Mapping[str, Any],
) -> None:
    """Write an answer for every line that is not empty, without its thinking; each ends with a line's end.

    Raises:
        ConfigError: for a question that fills the model's context.
    """
    if options["seed"] is not None:
        torch.manual_seed(options["seed"])
    for number, line in enumerate(questions, 1):
        if not (question := readable(line).strip()):
            continue
        turn = Turn(answerer, asked(question, options["system"]), tags, lambda part: None)
        try:
            turn.write(habits, options)
        except ValueError as error:
            raise ConfigError(f"line {number}: {error}; ask it in fewer words") from error
        try:
            answers.write(f"{printable(turn.answer)}\n")
            answers.flush()
        except BrokenPipeError:  # a program like head has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
            return
