"""Lessons: traces with what a teacher thinks of every token, as ``teach`` stores and ``distill_kd`` reads them.

A folder of lessons holds shards, ``00000.safetensors`` and so on, and ``index.json``. A shard is made from
a fixed part of the traces, on its own, and holds its lessons' tensors one behind the other:

================ ==================== ============================================================
tensor           shape                what
================ ==================== ============================================================
lengths          ``[lessons, 2]``     tokens of prompt and completion
prompt_ids       ``[prompt tokens]``
completion_ids   ``[tokens]``         each completion ends with EOS
top_ids          ``[tokens, k]``      the teacher's likeliest ids at each token, the likeliest first
top_logprobs     ``[tokens, k + 1]``  of these ids, and of all the others together
================ ==================== ============================================================

Log-probabilities are float16 or float32, all else is int32. What a shard was made from stands in its header.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_r1.data.rows import DataError
from lightning_r1.data.traces import TraceDataModule
from lightning_r1.models.codec import Codec
from lightning_r1.models.identity import vocabulary_hash
from lightning_r1.text.records import write_whole
from lightning_r1.types import Trace

INDEX = "index.json"
_OF_TOKENS = ("completion_ids", "top_ids", "top_logprobs")
_OPEN_SHARDS = 64  # at once: there may be more of them than a process may hold open


@dataclass(frozen=True, slots=True)
class Lesson:
    """A trace in tokens, with a teacher's log-probabilities at each token of its completion."""

    id: str
    prompt_ids: Tensor
    """``[P]``."""
    completion_ids: Tensor
    """``[T]``."""
    top_ids: Tensor
    """``[T, k]``."""
    top_logprobs: Tensor
    """``[T, k + 1]``, the tail last."""

    def __len__(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """What decides every number in a folder of lessons, besides the traces."""

    teacher: str
    """Where it lies, for people; ``weights`` knows it."""
    weights: str
    """:func:`.weights_hash` of the teacher."""
    vocabulary: str
    """:func:`.vocabulary_hash` of its tokenizer."""
    ids: int
    """The distributions are over the ids below this one: those of the tokenizer."""
    template: str
    """Fingerprint of the template that asked the questions."""
    top_k: int
    temperature: float
    logprobs_dtype: str
    max_tokens: int
    """Longer traces are left out."""
    traces_a_shard: int


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a shard's header says."""

    made_from: MadeFrom
    traces: str
    """:func:`traces_hash` of the traces it was made from."""
    left_out: int
    ids: list[str]
    """Of its lessons."""
    tokens: int
    """Of its completions."""
    teacher_entropy: float
    """Over the whole vocabulary, in nats, summed over tokens."""
    tail: float
    """Probability outside the top, summed over tokens."""


def traces_hash(traces: Sequence[Trace]) -> str:
    """Twelve hex digits over questions and completions."""
    texts = [(trace.id, trace.question, trace.completion) for trace in traces]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]


def write_shard(path: Path, lessons: Sequence[Lesson], facts: ShardFacts) -> None:
    """Write a shard, whole or not at all."""
    tensors = {"lengths": torch.tensor([(len(x.prompt_ids), len(x.completion_ids)) for x in lessons]).view(-1, 2)}
    for name in ("prompt_ids", *_OF_TOKENS) if lessons else ():
        tensors[name] = torch.cat([getattr(lesson, name) for lesson in lessons])
    tensors = {name: values if values.is_floating_point() else values.int() for name, values in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"facts": json.dumps(asdict(facts))})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_facts(path: Path) -> ShardFacts:
    """The header of a shard.

    Raises:
        DataError: if it is no whole shard.
    """
    return _facts(_open(path), path)


def write_index(folder: Path, shards: Sequence[Path]) -> dict[str, Any]:
    """Say that a folder's lessons are complete.

    Returns:
        What the index says: ``made_from``, ``shards`` with their sizes, ``lessons``, ``left_out``, ``tokens``, and
        means over tokens, ``teacher_entropy`` and ``tail``.
    """
    facts = [read_facts(path) for path in shards]
    tokens = sum(of.tokens for of in facts)
    index = {
        "made_from": asdict(facts[0].made_from),
        "lessons": sum(len(of.ids) for of in facts),
        "left_out": sum(of.left_out for of in facts),
        "tokens": tokens,
        "teacher_entropy": sum(of.teacher_entropy for of in facts) / max(tokens, 1),
        "tail": sum(of.tail for of in facts) / max(tokens, 1),
        "shards": [{"file": path.name, "bytes": path.stat().st_size} for path in shards],
    }
    write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return index


class Lessons:
    """The lessons of a folder, read from disk one by one.

    Args:
        folder: of lessons.

    Raises:
        DataError: for a folder without finished lessons, and a shard that is not as it was written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / INDEX
        if not file.is_file():
            raise DataError(
                f"data.folder={folder}: there are no finished lessons; make them with "
                "python recipes/teach.py teacher.path=... traces.path=..."
            )
        index = json.loads(file.read_text())
        self.made_from = MadeFrom(**index["made_from"])
        self._files = [self.folder / shard["file"] for shard in index["shards"]]
        self._ids: list[list[str]] = []
        # of each shard, where every lesson's prompt and completion tokens begin, and where the last ones end
        self._starts: list[Tensor] = []
        for path, shard in zip(self._files, index["shards"], strict=True):
            opened = _open(path, shard["bytes"])
            self._ids.append(_facts(opened, path).ids)
            ends = opened.get_tensor("lengths").cumsum(0)
            self._starts.append(torch.cat([ends.new_zeros(1, 2), ends]))
        self._first = list(accumulate(map(len, self._ids), initial=0))
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(lambda place: _open(self._files[place]))

    def check_fits(self, codec: Codec) -> None:
        """Refuse lessons that mean something else by an id, or that ask in another way.

        Raises:
            DataError: names both sides and the fix.
        """
        made, own = self.made_from, vocabulary_hash(codec.tokenizer)
        if own != made.vocabulary:
            where = f"data.folder={self.folder}: its teacher {made.teacher}"
            raise DataError(other_tokenizer(where, made.vocabulary, codec, own))
        if codec.template.fingerprint() != made.template:
            raise DataError(
                f"template={codec.template.name}: the lessons in {self.folder} were made under another template "
                f"({made.template}, this one is {codec.template.fingerprint()}); choose that one"
            )

    def __len__(self) -> int:
        """How many there are."""
        return self._first[-1]

    def lengths(self) -> list[int]:
        """Tokens of prompt and completion together, of each lesson."""
        return [tokens for starts in self._starts for tokens in starts.diff(dim=0).sum(1).tolist()]

    def __getitem__(self, number: int) -> Lesson:
        """Read a lesson; numbers start at 0.

        Raises:
            IndexError: beyond the last.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"lesson {number} of {len(self)}")
        place = bisect_right(self._first, number) - 1
        shard, row = self._shard(place), number - self._first[place]
        (first_prompt, first), (end_prompt, end) = self._starts[place][row : row + 2].tolist()
        tensors = {name: shard.get_slice(name)[first:end] for name in _OF_TOKENS}
        return Lesson(self._ids[place][row], shard.get_slice("prompt_ids")[first_prompt:end_prompt], **tensors)


class LessonDataModule(TraceDataModule):
    """Lessons to learn from, in the order of :class:`.TraceDataModule`.

    Args:
        folder: that ``teach`` made.
        epochs: training ends after so many; null never ends.
        batch_size: lessons a step, over all ranks.
        max_tokens: prompt and completion together; longer lessons are left out.
        seed: of the order.
    """

    def __init__(
        self,
        *,
        folder: str,
        epochs: float | None = 2,
        batch_size: int = 64,
        max_tokens: int = 32768,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sources={"lessons": ()}, epochs=epochs, batch_size=batch_size, max_tokens=max_tokens, seed=seed
        )
        self.folder = folder

    def tokenise(self, codec: Codec) -> None:
        """Open the lessons; they are in tokens already.

        Raises:
            DataError: if there are none, none is short enough, or they do not fit the student's tokenizer or template.
        """
        self.lessons = Lessons(self.folder)
        self.lessons.check_fits(codec)
        self.lengths = self.lessons.lengths()
        self.kept = [number for number, tokens in enumerate(self.lengths) if tokens <= self.max_tokens]
        self.left_out = len(self.lengths) - len(self.kept)
        self.of_source["lessons"] = range(len(self.kept))
        if not self.kept:
            raise DataError(f"data.max_tokens={self.max_tokens}: all {self.left_out} lessons are longer; raise it")

    @property
    def longest(self) -> int:
        """Tokens of the longest lesson."""
        return max(self.lengths[number] for number in self.kept)

    def share(self, step: int, rank: int, ranks: int) -> list[Lesson]:
        """A rank's lessons of one step."""
        return [self.lessons[self.kept[number]] for number in self.numbers(step)[rank::ranks]]


def other_tokenizer(teacher: str, its: str, codec: Codec, own: str) -> str:
    """What to tell of a teacher whose tokenizer is not the student's; ``its`` and ``own`` are their hashes."""
    student = codec.tokenizer.name_or_path or "from scratch"
    return (
        f"{teacher} has another tokenizer ({its}) than the student {student} ({own}): an id means something else to "
        "each, so that their probabilities cannot be compared. Learn from the teacher's traces instead: "
        "phase=distill_sft"
    )


def _open(path: Path, expected: int | None = None) -> Any:
    found = path.stat().st_size if path.is_file() else None
    try:
        if found is None or found != (expected or found):
            raise ValueError(f"it has {found} bytes of {expected}")
        return safe_open(path, framework="pt")
    except Exception as error:  # safetensors has an error of its own for a broken file
        raise DataError(
            f"{path}: no whole shard of lessons ({error}); delete it and run the same teach command again"
        ) from error


def _facts(shard: Any, path: Path) -> ShardFacts:
    try:
        facts = json.loads(shard.metadata()["facts"])
        return ShardFacts(**{**facts, "made_from": MadeFrom(**facts["made_from"])})
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no shard of lessons ({error}); delete it and run the same teach command again"
        ) from error
