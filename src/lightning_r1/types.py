"""The nouns of the project, and the letters that name tensor shapes everywhere in it.

=======  =============================================================
letter   meaning
=======  =============================================================
B        prompts in one rollout
G        ``group_size``: completions of one prompt
N        sequences (rows); a whole rollout has N = B * G
P, T     longest prompt, longest completion of the rows at hand (tokens)
L        P + T, the padded row
M        counted completion tokens, flattened
V, H     vocabulary size, hidden size
K        reward functions
=======  =============================================================

A mask's ``True`` always means "counts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
ReplyKind = Literal["ok", "error", "timeout", "crash"]
"""How an environment answered a call: with a result; with what was wrong with the call; not in time; not at all."""
Domain = Literal["reasoning", "helpful", "harmless"]
"""What a prompt asks for: ``reasoning`` has rules; the other two are general, and have preferences."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One problem, rendered and tokenised once by the template; nobody re-tokenises it later.

    Example: ``Prompt(id="operators/2?5?1=9", question="2?5?1=9", text="2?5?1=9<think>",
    token_ids=(9, 115, 12, 115, 8, 110, 16, 3), answer={"kind": "expression", "numbers": [2, 5, 1],
    "target": 9, "ordered": True})``
    """

    id: str
    question: str
    text: str
    """The rendered prompt, exactly what the policy sees (the template's prefill included)."""
    token_ids: tuple[int, ...]
    answer: Mapping[str, Any]
    """What a grader needs; ``kind`` names the grader (see :mod:`lightning_r1.rewards.accuracy`)."""
    source: str = ""
    domain: Domain = "reasoning"
    language: str = "en"
    """ISO 639-1 code of the language to think and answer in; fixed when the data is prepared."""
    token_budget: int | None = None
    """Most tokens of each of its completions, if fewer than ``Sampling.max_new_tokens``."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A question with a completion worth learning from: what SFT and distillation read.

    ``completion`` is the whole text as rewards read it, ``<think>`` included wherever the template
    puts it, without EOS. Example: ``Trace(id="operators/2?5?1=9/3", question="2?5?1=9",
    completion="<think>2*5=10-1=9!</think><answer>(2*5)-1</answer>", answer={"kind": "expression",
    ...}, provenance={"model": "outputs/mini/r1_zero/model", "step": 250})``
    """

    id: str
    question: str
    completion: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    domain: Domain = "reasoning"
    language: str = "en"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from: model, sampling, filters passed, what was rewritten by whom."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to a question, of which one was found better: what a helpfulness model learns from.

    Example: ``Preference(id="notes/17", question="Name a river.", chosen="The Rhine.", rejected="Yes!")``
    """

    id: str
    question: str
    chosen: str
    rejected: str
    domain: Domain = "helpful"
    language: str = "en"


@dataclass(frozen=True, slots=True)
class SafetyLabel:
    """A response that was found safe or not: what a harmlessness model learns from, one by one."""

    id: str
    question: str
    response: str
    safe: bool
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote after one prompt.

    ``token_ids`` ends with the stop token if there was one; ``text`` is the completion as rewards
    read it: the template's prefill put back, special stop tokens removed.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The sampler's own log-probabilities, one for each token; 0 for a token that it did not sample."""
    finish_reason: FinishReason
    text: str = ""
    policy_version: int = 0
    """``global_step`` of the weights that sampled it."""
    sampled: tuple[bool, ...] | None = None
    """Which tokens the policy wrote; an environment (:mod:`lightning_r1.rollout.environment`) put the others there,
    and they are never learned from. None without an environment: the policy wrote them all."""
    replies: tuple[ReplyKind, ...] = ()
    """Of an environment, in order."""

    @property
    def length(self) -> int:
        """Tokens that the policy wrote."""
        return len(self.token_ids) if self.sampled is None else sum(self.sampled)


@dataclass(frozen=True, slots=True)
class Group:
    """The G completions of one prompt."""

    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. ``temperature=0`` is greedy."""

    group_size: int = 8
    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    """Texts that end a completion, beside the template's stop tokens. It ends with the token that completes one."""

    def __post_init__(self) -> None:
        """Refuse what no sampler can do, naming the key, the value and the range."""
        if isinstance(self.stop, str):
            raise ValueError(f"sampling.stop={self.stop!r}: expected a list of texts, e.g. ['{self.stop}']")
        object.__setattr__(self, "stop", tuple(self.stop))  # a config has lists
        ranges = {
            "group_size": (self.group_size >= 1, ">= 1"),
            "max_new_tokens": (self.max_new_tokens >= 1, ">= 1"),
            "temperature": (self.temperature >= 0, ">= 0 (0 is greedy)"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1] (1 keeps every token)"),
            "top_k": (self.top_k >= 0, ">= 0 (0 keeps every token)"),
            "min_p": (0 <= self.min_p < 1, "in [0, 1) (0 keeps every token)"),
            "stop": (all(isinstance(text, str) and text for text in self.stop), "texts that are not empty"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"sampling.{name}={getattr(self, name)}: expected {expected}")

    def plain(self) -> dict[str, Any]:
        """Its fields as a JSON file gives them back: lists, no tuples."""
        return {**asdict(self), "stop": list(self.stop)}

    def budget(self, prompt: Prompt) -> int:
        """Most tokens of a completion of this prompt."""
        return min(self.max_new_tokens, prompt.token_budget or self.max_new_tokens)


class Outcome(StrEnum):
    """How the scoring of one completion ended. Only the first two are honest rewards."""

    OK = "ok"
    WRONG_FORMAT = "wrong_format"
    """Scored, and there was nothing to score: no answer where one had to stand."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    UNSCORABLE = "unscorable"
    """The gold answer itself cannot be used."""

    @property
    def counts(self) -> bool:
        """Whether the value is an honest reward; the others are left out of their group."""
        return self in (Outcome.OK, Outcome.WRONG_FORMAT)


@dataclass(frozen=True, slots=True)
class RewardScore:
    """One reward function's verdict on one completion."""

    value: float
    outcome: Outcome = Outcome.OK
    detail: str = ""
    """For people: what was extracted, or why it could not be scored."""


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group with its rewards: ``breakdown[name][g]`` and their weighted sum ``rewards[g]``.

    ``rewards[g]`` is NaN where any part could not be scored: that completion is left out of the
    group's statistics and gets advantage 0, and is never taken for an honest 0.
    """

    group: Group
    rewards: tuple[float, ...]
    breakdown: Mapping[str, Sequence[RewardScore]] = field(default_factory=dict)
