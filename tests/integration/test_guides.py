"""What the guides let a reader do on a CPU, done: a step of each run, and the messages that they quote."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from helpers.pages import ROOT, commands, files, text_of
from lightning_r1.config.compose import compose_config
from lightning_r1.data.rows import DataError, jsonl_rows
from lightning_r1.train import train

GUIDES = ("recipes/guides/your_data.md", "recipes/guides/your_reward.md")
RUNS = [
    (page, shlex.join(command.words[2:]))
    for page in GUIDES
    for command in commands(page)
    if command.words[:2] == ("python", "recipes/train.py")
    and not command.said
    and any("experiment=mini" in word for word in command.words)
]
SMALL = ["eval=default", "logger=csv", "callbacks.rollouts.show_at_steps=[]"]
SMALL_RL = [
    "trainer.max_steps=1",
    "algo.prompts_per_rollout=3",
    "algo.sampling.group_size=2",
    "reward.workers.workers=1",
]
REFUSED = re.findall(r"^\| `(\{.*\})` \| `(.*)` \|$", text_of(GUIDES[0]).partition("a line | what is said")[2], re.M)


@pytest.mark.parametrize(("page", "overrides"), RUNS, ids=lambda part: part.split(" name=")[-1])
def test_a_run_of_a_guide_runs(
    page: str, overrides: str, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in files(page):
        if file.name and "/" not in file.name:
            (tmp_path / file.name).write_text(file.text + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = shlex.split(overrides)
    more = SMALL_RL if "experiment=mini_r1_zero" in said else []
    config = compose_config("train", [*said, *SMALL, *more, f"model.path={base_model}"])
    train(config)
    summary = json.loads((tmp_path / "outputs" / config["name"] / "summary.json").read_text())
    assert summary["steps"] == 1


def test_there_are_runs_of_both_pages() -> None:
    assert {page for page, _ in RUNS} == set(GUIDES)
    assert len(RUNS) == 6


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_line_that_cannot_be_used_is_refused_in_the_guides_words(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        list(jsonl_rows(tmp_path / "prompts.jsonl", kind="number"))
    assert "prompts.jsonl line 1: " in str(refusal.value)
    assert said in str(refusal.value)


def test_the_guide_shows_how_lines_are_refused() -> None:
    assert len(REFUSED) == 8


@pytest.mark.parametrize("page", GUIDES)
def test_what_the_guides_quote_of_the_program_is_what_it_says(page: str) -> None:
    """The fixed words of quoted lines stand in the source."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    quoted = {
        "your_data.md": ["left out for ten words in a row ", "come back from their tokens unchanged; one ends in "],
        "your_reward.md": [" completions ended in ", "give the same ", "is an answer found, is the gold right"],
    }[Path(page).name]
    for words in quoted:
        assert words in source
        assert words in text_of(page)
