"""The template contract: one object owns how a question becomes a prompt and a text is read back.

Prompt, ``<think>`` prefill, stop strings and tags are decided here, once, for data, rollouts,
rewards, SFT masks, evaluation and the exported chat template. The fingerprint is stored in every
checkpoint and export, so that a later phase can refuse a model made under another template.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from lightning_r1.text.reflection import ENGLISH_MARKERS
from lightning_r1.text.tags import Tags

_SLOT, _SYSTEM_SLOT = "{question}", "{system}"


@dataclass(frozen=True, slots=True)
class Template:
    """How a question is asked and how the completion is read.

    Example: ``Template(name="mini", prompt="{question}", prefill="<think>")`` renders
    ``2?5?1=9`` as ``2?5?1=9<think>``, and gives the completion ``...</think>...`` back to rewards as
    ``<think>...</think>...``: prefilled and unprefilled completions are read alike.
    """

    name: str
    prompt: str
    """Holds ``{question}`` exactly once; other braces are plain text."""
    prefill: str = ""
    """Start of the completion, given to the policy instead of sampled."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion besides EOS; each must be a single token of the tokenizer."""
    tags: Tags = field(default_factory=Tags)
    reflection_markers: tuple[str, ...] = ENGLISH_MARKERS
    turn_end: str | None = None
    """What ends an answer that another question follows, in a chat; None: the model is asked single questions."""
    system: str | None = None
    """How a chat's system message is shown, with ``{system}`` exactly once; None: it has no place."""

    def __post_init__(self) -> None:
        """Refuse a prompt without exactly one slot."""
        if self.prompt.count(_SLOT) != 1:
            raise ValueError(f"template.prompt={self.prompt!r}: expected {_SLOT} exactly once in it")
        if self.system is not None and self.system.count(_SYSTEM_SLOT) != 1:
            raise ValueError(f"template.system={self.system!r}: expected {_SYSTEM_SLOT} exactly once in it, or null")

    def render(self, question: str, *, prefill: bool = True) -> str:
        """The prompt as the policy sees it, prefill included unless it is to be learned.

        >>> Template(name="t", prompt="User: {question} Assistant:", prefill=" <think>").render("2+2?")
        'User: 2+2? Assistant: <think>'
        """
        return self.prompt.replace(_SLOT, question) + (self.prefill if prefill else "")

    def completion_text(self, sampled: str) -> str:
        """A sampled text as rewards read it: with the prefill put back."""
        return self.prefill.lstrip() + sampled

    def chat_template(self, *, bos: str = "") -> str:
        """A Jinja chat template that renders a question as this template does.

        Without it an evaluation harness or a server would wrap a base model's prompt in a chat
        format the model has never seen, and its scores would mean nothing. With ``turn_end`` earlier turns are
        shown too, their thinking left out, as DeepSeek-R1's own does; else the last question alone.

        Args:
            bos: stands in front, for a tokenizer that puts it there: chat templates are tokenised without that habit.
        """
        question = f"{{{{- {self._around_question()} -}}}}"
        if self.turn_end is None:
            last = "{%- set message = messages | selectattr('role', 'equalto', 'user') | list | last -%}"
            body = last + question
        else:
            close = _literal(self.tags.think_close)
            answer = f"(message['content'].split({close}) | last) + {_literal(self.turn_end)}"
            body = (
                "{%- for message in messages -%}"
                f"{{%- if message['role'] == 'user' -%}}{question}"
                f"{{%- elif message['role'] == 'assistant' -%}}{{{{- {answer} -}}}}"
                f"{self._system_branch()}"
                "{%- endif -%}{%- endfor -%}"
            )
        opening = f"{{{{- {_literal(bos)} -}}}}" if bos else ""
        return f"{opening}{body}{{%- if add_generation_prompt -%}}{{{{- {_literal(self.prefill)} -}}}}{{%- endif -%}}"

    def _around_question(self) -> str:
        before, after = map(_literal, self.prompt.split(_SLOT))
        return f"{before} + message['content'] + {after}"

    def _system_branch(self) -> str:
        if self.system is None:
            return ""
        before, after = map(_literal, self.system.split(_SYSTEM_SLOT))
        shown = f"{before} + message['content'] + {after}"
        return f"{{%- elif message['role'] == 'system' -%}}{{{{- {shown} -}}}}"

    def response_template(self, ends: Sequence[str]) -> dict[str, object]:
        """How a program takes a completion apart: what transformers keeps in ``tokenizer_config.json``.

        Thinking and what follows it, whether the prompt's prefill has opened the thinking or the completion does.

        Args:
            ends: special tokens that end a completion and are no part of it.
        """
        return {
            "defaults": {"role": "assistant"},
            # a parser reads from here on: from the prefill, which is the completion's beginning
            "start_anchor_pattern": rf"(?={re.escape(self.prefill)}\Z)" if self.prefill else r"\Z",
            "fields": {
                "thinking": {"open": self.tags.think_open, "close": self.tags.think_close, "content": "text"},
                "content": {"close": list(ends), "content": "text"},
            },
        }

    def turns_template(self, *, bos: str = "", eos: str = "") -> str:
        """A Jinja chat template of a question and its response: what a reward model reads.

        Without prefill, for a response is given whole; ``bos`` and ``eos`` stand at the ends.
        """
        before, between = self.prompt.split(_SLOT)
        before, between, after = map(_literal, (bos + before, between, eos))
        return (
            "{%- set user = messages | selectattr('role', 'equalto', 'user') | list | last -%}"
            "{%- set assistant = messages | selectattr('role', 'equalto', 'assistant') | list | last -%}"
            f"{{{{- {before} + user['content'] + {between} + assistant['content'] + {after} -}}}}"
        )

    def fingerprint(self) -> str:
        """Twelve hex digits over everything that changes what the policy sees or how it is read."""
        contract = asdict(self)
        for name in ("name", "reflection_markers", "turn_end", "system"):  # training asks single questions
            del contract[name]
        return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()[:12]


def _literal(text: str) -> str:
    # a JSON string is a Jinja string too, as long as it is not escaped to surrogate pairs
    return json.dumps(text, ensure_ascii=False)
