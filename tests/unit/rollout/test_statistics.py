"""Numbers over completions, worked by hand."""

from __future__ import annotations

import pytest

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from lightning_r1.models.codec import Codec
from lightning_r1.rollout.statistics import completion_statistics
from lightning_r1.types import Sampling


def test_statistics_of_three_completions(codec: Codec) -> None:
    texts = [
        "1+2=3;1+3=4;</think><answer>4</answer><eos>",  # 12 tokens of thinking, 17 in all, two misses, strict
        "1+2=3;",  # 6 tokens of thinking, cut, one miss
        "</think>;;;<eos>",  # no thinking, 5 tokens; a marker outside the thinking does not count
    ]
    engine = ScriptedEngine(codec, {"1": texts})
    group = engine.generate([number_prompt(codec, "1", 4)], Sampling(group_size=3), seeds=[0])[0]

    assert completion_statistics(group.completions, codec) == pytest.approx(
        {
            "length_mean": (17 + 6 + 5) / 3,
            "think_length_mean": (12 + 6 + 0) / 3,
            "truncated_fraction": 1 / 3,
            "reflection_rate": (2 + 1 + 0) / 3,
            "format_fraction": 1 / 3,
        }
    )
