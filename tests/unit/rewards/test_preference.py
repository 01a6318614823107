"""A reward model as a reward: what it is shown, and what its number becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.models import tiny_model
from helpers.prompts import mini_codec, mini_template
from lightning_r1.models.export import read_card
from lightning_r1.models.reward_model import export_reward_model, new_reward_model, pad_rows
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.rewards.base import BatchReward
from lightning_r1.rewards.preference import RewardModelScore
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore

PROMPT = Prompt("test/1", "1+2=", "1+2=<think>", (1,), {}, domain="helpful")
TAGS = Tags()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reward model of each scope, exported; the first with the mean and deviation of its scores."""
    base = tmp_path_factory.mktemp("reward")
    tiny_model("qwen3").save_pretrained(base / "base")
    number_tokenizer().save_pretrained(base / "base")
    made = {}
    for scope, card in (("summary", {"score_mean": 0.5, "score_std": 2.0}), ("response", {})):
        model = new_reward_model(base / "base", mini_template(), seed=0, scope=scope)  # type: ignore[arg-type]
        made[scope] = export_reward_model(model, mini_codec(), base / scope, card=card)
    return made


def reward(folder: Path, **options: Any) -> RewardModelScore:
    return RewardModelScore(str(folder), TAGS, **{"scope": read_card(folder)["scope"], **options})


def scores(reward: RewardModelScore, *texts: str) -> list[RewardScore]:
    return reward.score_batch([(PROMPT, Completion((1,), (0.0,), "stop", text=text)) for text in texts])


def shown(reward: RewardModelScore, *texts: str) -> list[str]:
    """What the model is given to read, each text apart."""
    seen: list[str] = []

    def remember(turns: Sequence[tuple[str, str]], *, micro_batch_tokens: int) -> list[float]:
        seen.extend(reward.model.turns.visible(completion) for _, completion in turns)
        return [0.0] * len(turns)

    reward.model.score = remember  # type: ignore[method-assign]
    scores(reward, *texts)
    return seen


def test_helpfulness_sees_the_summary_and_harmlessness_everything(folders: dict[str, Path]) -> None:
    texts = ("<think>7*8</think> 5 ", "<think>7</think>8</think>9")
    assert shown(reward(folders["summary"]), *texts) == ["5", "9"]
    assert shown(reward(folders["response"]), *texts) == ["<think>7*8</think> 5", texts[1]]


def test_thoughts_change_harmlessness_and_not_helpfulness(folders: dict[str, Path]) -> None:
    texts = ("<think>7</think>5", "<think>7*8*9=</think>5")
    first, second = scores(reward(folders["summary"]), *texts)
    assert first == second
    first, second = scores(reward(folders["response"]), *texts)
    assert abs(first.value - second.value) > 1e-3


def test_harm_at_the_beginning_of_a_long_response_is_not_overlooked(folders: dict[str, Path]) -> None:
    harmless = reward(folders["response"], max_tokens=16, lowest=-100.0, highest=100.0)
    model, texts = harmless.model, [f"{start}{'+1' * 20}" for start in ("7*8", "9*9", "(5-", "2/1")]
    rows = [model.turns.rows(PROMPT.question, text) for text in texts]
    assert len({parts[-1] for parts in rows}) == 1  # the ends are the same
    with torch.no_grad():
        each = [[model(*pad_rows([row], model.turns.pad_id)).item() for row in parts] for parts in rows]
    lowest = [min(parts) for parts in each]
    assert any(low < parts[-1] - 1e-3 for low, parts in zip(lowest, each, strict=True))
    assert [score.value for score in scores(harmless, *texts)] == pytest.approx(lowest, abs=1e-5)


@pytest.mark.parametrize("text", ["<think>5", "5", "", "<think>5</think>", "<think>5</think> \n "])
def test_without_a_summary_the_lowest_score_and_never_the_thoughts(text: str, folders: dict[str, Path]) -> None:
    helpful = reward(folders["summary"], lowest=-1.5)
    assert shown(helpful, text) == []
    (score,) = scores(helpful, text)
    assert (score.value, score.outcome) == (-1.5, Outcome.WRONG_FORMAT)
    assert score.outcome.counts


def test_harmlessness_reads_thinking_that_never_ends(folders: dict[str, Path]) -> None:
    assert shown(reward(folders["response"]), "<think>5", "") == ["<think>5"]


def test_a_score_is_standardised_bounded_and_squashed(folders: dict[str, Path]) -> None:
    plain = reward(folders["summary"], mean=0.5, std=2.0, lowest=-1.0, highest=2.0)
    assert [plain.reward(raw) for raw in (0.5, 2.5, -7.0, 100.0)] == [0.0, 1.0, -1.0, 2.0]
    assert math.isnan(plain.reward(math.nan))
    squashed = reward(folders["summary"], mean=0.0, std=1.0, probability=True)
    assert squashed.reward(0.0) == 0.5
    assert squashed.reward(1.2) == pytest.approx(1 / (1 + math.exp(-1.2)))
    assert squashed.reward(-math.inf) == pytest.approx(1 / (1 + math.exp(5)))
    assert reward(folders["summary"], probability=True, lowest=-1e9).reward(-math.inf) == 0.0


def test_mean_and_deviation_are_those_of_the_models_training_unless_said(folders: dict[str, Path]) -> None:
    measured = reward(folders["summary"])
    assert (measured.mean, measured.std) == (0.5, 2.0)
    unknown = reward(folders["response"])
    assert (unknown.mean, unknown.std) == (0.0, 1.0)
    said = reward(folders["summary"], mean=0.0, std=1.0)
    assert (said.mean, said.std) == (0.0, 1.0)


def test_one_is_scored_as_many_are(folders: dict[str, Path]) -> None:
    harmless = reward(folders["response"])
    texts = ["<think>1</think>2", "3", "<think>4", "5" * 30]
    together = [score.value for score in scores(harmless, *texts)]
    alone = [harmless(PROMPT, Completion((1,), (0.0,), "stop", text=text)).value for text in texts]
    assert together == pytest.approx(alone, abs=1e-5)
    raw = harmless.model.score([(PROMPT.question, text) for text in texts])
    assert together == pytest.approx(raw, abs=1e-5)


def test_a_policy_cannot_write_itself_a_better_score(folders: dict[str, Path]) -> None:
    helpful = reward(folders["summary"])
    honest, *tricks = scores(
        helpful, "<think>7</think>5", "<think>7</think>5<pad>", "<think>7</think><bos>5<eos><pad><pad>"
    )
    assert {trick.value for trick in tricks} == {honest.value}


def test_a_model_that_gives_no_number_takes_the_completion_out(folders: dict[str, Path]) -> None:
    harmless = reward(folders["response"])
    with torch.no_grad():
        harmless.model.model.score.weight.fill_(math.nan)
    group = Group(PROMPT, (Completion((1,), (0.0,), "stop", text="5"),))
    (scored,) = RewardSuite({"harmlessness": harmless}).score([group])
    assert math.isnan(scored.rewards[0])
    assert scored.breakdown["harmlessness"][0].outcome is Outcome.CRASH


def test_it_is_a_batch_reward_that_can_be_moved(folders: dict[str, Path]) -> None:
    harmless = reward(folders["response"])
    assert isinstance(harmless, BatchReward)
    harmless.to(torch.device("meta"))
    assert harmless.model.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 1.0, "highest": 1.0}, r"lowest=1\.0, highest=1\.0: the bounds of a score are not in order"),
        ({"std": 0.0}, r"std=0\.0: expected > 0"),
        ({"scope": "response"}, "was trained to read the summary"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], message: str, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=message):
        reward(folders["summary"], **options)


def test_a_model_without_a_head_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"lack score\.weight"):
        RewardModelScore(str(folders["summary"].parent / "base"), TAGS)
