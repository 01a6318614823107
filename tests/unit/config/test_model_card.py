"""The card of a model: facts that are true, a file that a hub reads, and no number that depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from helpers.models import tiny_policy
from helpers.prompts import mini_codec
from lightning_r1.config.card_facts import card_facts, lineage
from lightning_r1.config.compose import compose_config
from lightning_r1.config.model_card import add_evaluation, license_of, write_model_card
from lightning_r1.models.export import export_model, read_card
from lightning_r1.models.identity import files_hash
from lightning_r1.pipeline.artifacts import content_key

VERSIONS = {"commit": "abc", "versions": {"torch": "2"}}
AFTER = {
    "eval/gsm8k/pass@1": 0.5,
    "eval/gsm8k/pass@1_low": 0.4,
    "eval/gsm8k/pass@1_high": 0.6,
    "eval/gsm8k/think_length_mean": 123.4,
}
EVALUATION = {
    "sets": {"gsm8k": {"problems": 10, "group_size": 4, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 64}},
    "after": {**AFTER, "eval/gsm8k/pass@1": 0.55},
    "commit": "def",
}


def exported(folder: Path, *overrides: str, base: str | None, **summary: Any) -> Path:
    """A model as a training run leaves it."""
    path = f"model.path={base}" if base else "model=mini_scratch"
    chosen = ["phase=r1_zero", "model=local", "data=gsm8k", "reward=rules"] if base else ["experiment=mini_base"]
    config = compose_config("train", [*chosen, path, "name=run", f"paths.output_dir={folder.parents[1]}", *overrides])
    facts = {"phase": config["phase"]["name"], "model": config["model"]["name"], "steps": 3, **VERSIONS, **summary}
    export_model(tiny_policy(), mini_codec(), folder, card=card_facts(config, facts))
    write_model_card(folder, base=base)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return exported(tmp_path / "base" / "model", base=None)


def test_a_hub_reads_its_front_matter(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: mine\ntags: [a]\n---\n# base\n")
    folder = exported(tmp_path / "run" / "model", base=str(base), after=AFTER)
    data = ModelCard.load(folder / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.datasets == ["openai/gsm8k"]
    assert (data.license, data.license_name) == ("other", "mine")
    assert data.base_model is None  # a folder of this machine is nobody's base
    assert set(data.tags) == {"lightning-r1", "reasoning", "r1_zero"}
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("gsm8k", "pass@1", 0.5)


def test_a_base_on_the_hub_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_r1.config.card_facts.files_hash", lambda path: "0" * 12)
    folder = exported(tmp_path / "run" / "model", base="org/base-7B")
    card = ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("org/base-7B", "finetune")
    assert card.data.license is None  # none is known, none is invented
    assert "No licence is known" in card.text
    assert "starting from `org/base-7B` (weights 000000000000)" in card.text


def test_lineage_goes_from_the_base_to_the_model(base: Path, tmp_path: Path) -> None:
    first = exported(tmp_path / "first" / "model", base=str(base))
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "manifest.json").write_text('{"key": "k2"}')
    second = exported(tmp_path / "second" / "model", "name=second", base=str(first))
    assert read_card(second)["key"] == "k2"
    chain = lineage(str(second))
    assert [phase["phase"] for phase in chain] == ["pretrain", "r1_zero", "r1_zero"]
    assert [phase["weights"] for phase in chain] == [files_hash(folder) for folder in (base, first, second)]
    assert chain[2]["key"] == "k2"
    assert lineage(None) == []
    rows = [line for line in (second / "README.md").read_text().splitlines() if line.startswith("| 3 |")]
    assert rows == ["| 3 | r1_zero | local | 3 | k2 | this folder | abc |"]


def test_who_made_the_traces_is_said(base: Path, tmp_path: Path) -> None:
    made = tmp_path / "traces"
    made.mkdir()
    (made / "traces.jsonl").write_text("")
    facts = {"job": "cold_start", "model": "mini", "weights": "w1", "phase": "r1_zero", "step": 200}
    (made / "summary.json").write_text(json.dumps(facts))
    (made / "manifest.json").write_text('{"key": "k1"}')
    config = compose_config(
        "train",
        ["phase=cold_start_sft", "model=mini", f"model.path={base}", f"data.sources.traces.path={made}/traces.jsonl"],
    )
    (source,) = card_facts(config, {"phase": "cold_start_sft", "model": "mini", "steps": 1, **VERSIONS})["data"]
    assert source["file"] == "traces.jsonl"
    assert source["made_by"] == {**facts, "job_key": "k1"}
    assert str(tmp_path) not in json.dumps(source)  # folders of this machine are nobody's business


def test_settings_are_those_of_the_run(base: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path / "run" / "model", "optim.lr=7e-6", "reward.weights.format=0.5", base=str(base))
    settings = read_card(folder)["settings"]
    assert (settings["optim"], settings["optim.lr"]) == ("adamw", 7e-6)
    assert (settings["reward.weights.accuracy"], settings["reward.weights.format"]) == (1.0, 0.5)
    assert "| `optim.lr` | `7e-06` |" in (folder / "README.md").read_text()


def test_a_later_evaluation_completes_it(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Not evaluated yet" in (base / "README.md").read_text()
    add_evaluation(str(base), EVALUATION)
    card = ModelCard.load(base / "README.md")
    assert "Not evaluated yet" not in card.text
    assert "| pass@1 | 0.550 [0.400, 0.600] |" in card.text
    assert "group_size 4, temperature 0.6" in card.text
    assert card.data.eval_results[0].metric_value == 0.55
    add_evaluation(str(base), {**EVALUATION, "after": AFTER})  # again, with other numbers
    assert "| pass@1 | 0.500 [0.400, 0.600] |" in (base / "README.md").read_text()
    assert "scores are in" in capsys.readouterr().out


def test_a_card_that_somebody_edited_is_left(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base / "README.md").write_text("mine\n")
    add_evaluation(str(base), EVALUATION)
    assert (base / "README.md").read_text() == "mine\n"
    assert read_card(base)["evaluations"]["gsm8k"]["after"]["eval/gsm8k/pass@1"] == 0.55
    assert "was edited by hand" in " ".join(capsys.readouterr().out.split())


def test_a_foreign_model_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    add_evaluation(str(tmp_path), EVALUATION)
    add_evaluation("org/model", EVALUATION)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_no_key_depends_on_it(base: Path) -> None:
    config = compose_config("evaluate", ["eval=gsm8k", f"model.path={base}"])

    def keys() -> tuple[str, str]:
        return files_hash(base), content_key(config, {}, verb="evaluate")

    before = keys()
    add_evaluation(str(base), EVALUATION)
    assert keys() == before
    (base / "README.md").unlink()
    assert keys() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# no front matter\n", {}),
        ("---\nlicense: mit\n---\n", {"license": "mit"}),
        ("---\n- a\n---\n", {}),
        ("---\nlicense: [\n---\n", {}),
        ("---\ntags: [a]\n---\n", {}),
    ],
)
def test_a_licence_is_read_and_not_invented(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    assert license_of(str(tmp_path)) == {}
    (tmp_path / "README.md").write_text(text)
    assert license_of(str(tmp_path)) == expected
    assert license_of("org/is-not-here") == {}
