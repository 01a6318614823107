"""A trained model leaves the project: plain transformers loads it and says what our policy says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from helpers.runs import coin_rl, largest_difference, weights
from lightning_r1 import train as train_module
from lightning_r1.config.build import Run, build
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.compose import compose_config
from lightning_r1.export import export
from lightning_r1.models.export import read_card
from lightning_r1.models.identity import files_hash
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Prompt, Sampling

NEW_TOKENS = 12


@dataclass(frozen=True)
class Trained:
    """A run that is over, with its policy still in memory."""

    run: Run
    summary: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.run.run_dir / "model"

    @property
    def prompts(self) -> list[Prompt]:
        assert self.run.evaluation is not None
        return list(self.run.evaluation.sets["operators"])[:16]

    def greedy(self) -> list[tuple[int, ...]]:
        """What our policy writes to each held-out prompt, one token after the other."""
        engine = GroupEngine(self.run.module.policy, self.run.codec)
        sampling = Sampling(group_size=1, max_new_tokens=NEW_TOKENS, temperature=0)
        groups = engine.generate(self.prompts, sampling, seeds=[0] * len(self.prompts))
        return [group.completions[0].token_ids for group in groups]


@pytest.fixture(scope="module")
def trained(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs: list[Run] = []

    def remembered(config: Any) -> Run:
        runs.append(build(config))
        return runs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "build", remembered)
        summary = train_module.train(
            coin_rl(tmp_path_factory.mktemp("export"), base_model, "trainer.max_steps=10", "algo.kl_coef=0.01")
        )
    return Trained(runs[0], summary)


def test_the_run_learned_something(trained: Trained, base_model: Path) -> None:
    # an export of the base would pass most of what follows
    assert largest_difference(weights(trained.run.run_dir), weights(base_model.parent)) > 1e-3


def test_plain_transformers_writes_what_our_policy_writes(trained: Trained) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained.folder)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    ours = trained.greedy()
    assert len(set(ours)) > 5  # not one answer to everything
    for prompt, expected in zip(trained.prompts, ours, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        assert tuple(ids["input_ids"][0].tolist()) == prompt.token_ids
        written = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS)[0, len(prompt.token_ids) :]
        assert tuple(written.tolist()) == expected
        text = trained.run.codec.template.prefill + tokenizer.decode(written, skip_special_tokens=True)
        assert text == trained.run.codec.completion_text(expected)


def test_the_logits_are_the_same_to_the_last_bit(trained: Trained) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained.folder)
    prompt = trained.prompts[0]
    ids = torch.tensor([[*prompt.token_ids, *trained.greedy()[0]]])
    ours = trained.run.module.policy.model
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, ours.eval()(ids).logits, rtol=0, atol=0)
    assert not model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_special_tokens_and_template_are_kept(trained: Trained) -> None:
    tokenizer, codec = AutoTokenizer.from_pretrained(trained.folder), trained.run.codec
    for name in ("pad_token", "bos_token", "eos_token", "pad_token_id", "bos_token_id", "eos_token_id"):
        assert getattr(tokenizer, name) == getattr(codec.tokenizer, name)
    assert tokenizer.get_vocab() == codec.tokenizer.get_vocab()
    tags = codec.template.tags
    for tag in (tags.think_open, tags.think_close, tags.answer_open, tags.answer_close):
        assert len(tokenizer.encode(tag)) == 1
    messages = [{"role": "user", "content": "12?57="}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == codec.template.render("12?57=") == "12?57=<think>"


def test_sampling_defaults_are_the_papers(trained: Trained) -> None:
    defaults = GenerationConfig.from_pretrained(trained.folder)
    assert (defaults.do_sample, defaults.temperature, defaults.top_p) == (True, 0.6, 0.95)
    assert defaults.eos_token_id == list(trained.run.codec.stop_ids)
    # and plain generation with them stops where a completion stops
    model = AutoModelForCausalLM.from_pretrained(trained.folder)
    ids = torch.tensor([trained.prompts[0].token_ids])
    (written,) = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=100).tolist()
    assert written[-1] in defaults.eos_token_id


def test_a_next_phase_starts_from_exactly_these_weights(trained: Trained) -> None:
    model = {**trained.run.config["model"], "path": str(trained.folder)}
    codec, policy = build_policy({**trained.run.config, "model": model})
    assert codec.fingerprint() == trained.run.codec.fingerprint()
    assert largest_difference(policy.state_dict(), trained.run.module.policy.state_dict()) == 0


STRANGER = """
import json, sys
sys.modules["lightning_r1"] = None  # whoever imports it fails
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, questions = sys.argv[1], json.loads(sys.argv[2])
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
asked, ends = [], []
for question in questions:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    asked.append(ids["input_ids"][0].tolist())
    row = model.generate(**ids, max_new_tokens=60)[0].tolist()
    ends.append(row[-1])
exec(sys.argv[3])
print(json.dumps({"asked": asked, "ends": ends, "reply": reply}))
"""


def test_a_stranger_uses_it_without_this_project(trained: Trained) -> None:
    prompts = trained.prompts[:4]
    (snippet,) = re.findall(r"```python\n(.*?)```", (trained.folder / "README.md").read_text(), re.DOTALL)
    snippet = snippet.replace("MODEL", str(trained.folder)).replace("QUESTION", prompts[0].question)
    arguments = [str(trained.folder), json.dumps([prompt.question for prompt in prompts]), snippet]
    done = subprocess.run([sys.executable, "-I", "-c", STRANGER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [tuple(ids) for ids in told["asked"]] == [prompt.token_ids for prompt in prompts]
    # it stops by itself, long before 60 tokens, at the model's own stop tokens
    assert set(told["ends"]) <= set(trained.run.codec.stop_ids)
    assert told["reply"]["role"] == "assistant"
    assert told["reply"].keys() & {"thinking", "content"}
    assert "think>" not in json.dumps(told["reply"])
    assert "<eos>" not in json.dumps(told["reply"])


def test_the_readme_tells_scores_and_lineage(trained: Trained, base_model: Path) -> None:
    card, before, after = ModelCard.load(trained.folder / "README.md"), *map(trained.summary.get, ("before", "after"))
    numbers = [f"{scores['eval/operators/pass@1']:.3f} [" for scores in (before, after)]
    assert f"| operators | pass@1 | {numbers[0]}" in card.text
    assert f" | {numbers[1]}" in card.text
    assert f"| 1 | pretrain | mini | 600 |  | {files_hash(base_model)} |" in card.text
    assert f"{trained.summary['tokens']:,} tokens" in card.text
    assert read_card(trained.folder)["lineage"][0]["weights"] == files_hash(base_model)


def test_the_card_says_how_it_was_made(trained: Trained) -> None:
    card = json.loads((trained.folder / "lightning_r1.json").read_text())
    assert (card["phase"], card["model"], card["steps"]) == ("r1_zero", "mini", 10)
    assert card["template_fingerprint"] == trained.run.codec.fingerprint()
    assert card["commit"] == trained.summary["commit"]
    assert card["versions"].keys() >= {"torch", "transformers", "lightning", "lightning-r1"}
    # a folder of weights, and nothing that only this project could read
    assert not list(trained.folder.glob("*.py"))
    assert "auto_map" not in json.loads((trained.folder / "config.json").read_text())


def test_exported_again_it_is_what_the_run_says_and_not_what_this_source_is(trained: Trained) -> None:
    summary = trained.run.run_dir / "summary.json"
    whole = summary.read_text()
    try:
        for steps, scored in ((10, True), (11, False)):  # the card of a step before the last has no scores of the last
            summary.write_text(json.dumps({**trained.summary, "commit": "then", "steps": steps}))
            card = read_card(export(compose_config("export", [f"run={trained.run.run_dir}"])))
            assert card["commit"] == "then"
            assert card["steps"] == 10
            assert bool(card["scores"]) == scored
    finally:
        summary.write_text(whole)
