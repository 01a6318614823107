"""A model's card as a person and a hub read it: the ``README.md`` of its folder, from the facts beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

_KINDS = {
    "rl": "reinforcement learning on its own completions",
    "sft": "supervised fine-tuning",
    "text": "training on raw text",
    "distill": "distillation from a teacher's probabilities",
    "reward_model": "training on pairs of responses of which one was found better",
}
_SHARES = {"truncated_fraction": "cut off", "format_fraction": "right format", "language_share": "one language"}


def card_text(card: Mapping[str, Any], *, license: Mapping[str, str], remembers: bool, parser: str | None) -> str:
    """The whole file.

    Args:
        card: what :func:`.read_card` gives.
        license: ``license`` and what belongs to it, in a hub's words; empty where none is known.
        remembers: whether the chat template shows earlier turns.
        parser: vLLM's name of the reasoning parser; None where there is none for it.
    """
    parts = [_front_matter(card, license), f"# {card['name'].rpartition('/')[2]}", _summary(card, license)]
    parts += [_reward_model_use()] if card["kind"] == "reward_model" else [_use(remembers, parser)]
    parts += ["## Scores", *_scores(card), "## Training data", *_data(card["data"]), "## Settings"]
    parts += [_table(("setting", "value"), [(f"`{key}`", f"`{value}`") for key, value in card["settings"].items()])]
    parts += [_made_with(card), "## Lineage", _lineage(card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: Mapping[str, Any], license: Mapping[str, str]) -> str:
    judges = card["kind"] == "reward_model"
    # a base from a hub is named there; folders of one machine are nobody's base elsewhere
    first = card["lineage"][0].get("model", "") if card["lineage"] else ""
    hub = sorted({source["hub"] for source in card["data"] if "hub" in source})
    facts: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if judges else "text-generation",
        **license,
        **({"base_model": first, "base_model_relation": "finetune"} if "/" in first else {}),
        **({"datasets": hub} if hub else {}),
        "tags": ["lightning-r1", "reward-model" if judges else "reasoning", card["phase"]],
    }
    if results := list(_results(card)):
        facts["model-index"] = [{"name": card["name"].rpartition("/")[2], "results": results}]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _results(card: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for of_set, numbers in _by_set(_latest(card)).items():
        if "pass@1" in numbers:
            yield {
                "task": {"type": "text-generation"},
                "dataset": {"name": of_set, "type": of_set},
                "metrics": [{"type": "pass@1", "value": round(numbers["pass@1"], 4)}],
            }


def _summary(card: Mapping[str, Any], license: Mapping[str, str]) -> str:
    start = card["lineage"][-1] if card["lineage"] else None
    origin = f"starting from {_called(start)}" if start else "from random weights"
    text = (
        f"Made with lightning-r1 by the phase `{card['phase']}`: {_KINDS.get(card['kind'], card['kind'])}, {origin}, "
        f"{card['steps']:,} optimizer steps."
    )
    if license:
        return f"{text} The licence is that of the model that it starts from."
    return f"{text} No licence is known: whoever passes the model on has to name one."


def _use(remembers: bool, parser: str | None) -> str:
    asked = (
        "The chat template asks the model as it was asked in training; it shows earlier answers without their thinking."
        if remembers
        else "The chat template asks the model as it was asked in training: it shows the last question alone, without "
        "earlier turns or a system message."
    )
    served = f"vllm serve MODEL --reasoning-parser {parser}" if parser else "vllm serve MODEL"
    return f"""## Use

`MODEL` is this folder, or its name on a hub. {asked} Sampling defaults are temperature 0.6 and top-p 0.95.

```python
from transformers import pipeline

chat = pipeline("text-generation", "MODEL")
reply = chat([{{"role": "user", "content": "QUESTION"}}], max_new_tokens=4096)[0]["generated_text"][-1]
print(reply.get("thinking"), reply.get("content"))
```

```sh
{served}
```

```sh
lm_eval --model hf --model_args pretrained=MODEL,think_end_token="</think>" --apply_chat_template --tasks TASK
```"""


def _reward_model_use() -> str:
    return """## Use

It gives a response to a question one number, the higher the better; it answers nothing.

```python
from transformers import pipeline

pipeline("text-classification", "MODEL", function_to_apply="none")
```"""


def _scores(card: Mapping[str, Any]) -> Iterator[str]:
    before, after = (_by_set(card["scores"].get(when, {})) for when in ("before", "after"))
    if after:
        yield "Held out, before and after this phase; in brackets 95 %, over problems."
        rows = [
            (name, label, old.get(label, ""), new.get(label, ""))
            for name in after
            for old, new in [(_column(before.get(name, {})), _column(after[name]))]
            for label in new
        ]
        yield _table(("set", "score", "before", "after"), rows)
    for name, done in card.get("evaluations", {}).items():
        numbers = _column(_by_set(done["after"]).get(name, {}))
        how = ", ".join(f"{key} {value}" for key, value in done["how"].items())
        yield f"Evaluated afterwards on `{name}` ({how}; commit {done['commit']}):"
        yield _table(("score", "value"), list(numbers.items()))
    if not after and not card.get("evaluations"):
        yield "Not evaluated yet: `python recipes/evaluate.py eval=SET model.path=MODEL` completes this card."


def _column(numbers: Mapping[str, float]) -> dict[str, str]:
    column = {}
    for name, value in numbers.items():
        if f"{name}_low" in numbers:
            column[name] = f"{value:.3f} [{numbers[f'{name}_low']:.3f}, {numbers[f'{name}_high']:.3f}]"
    if "think_length_mean" in numbers:
        column["thinking, tokens"] = f"{numbers['think_length_mean']:,.1f}"
    return column | {label: f"{numbers[name]:.3f}" for name, label in _SHARES.items() if name in numbers}


def _data(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines = []
    for source in found:
        what = {key: value for key, value in source.items() if key not in ("name", "reader", "hub", "file", "made_by")}
        line = f"- `{source['name']}`"
        line += f": [{source['hub']}](https://huggingface.co/datasets/{source['hub']})" if "hub" in source else ""
        line += f": `{source['file']}`" if "file" in source else ""
        line += f" ({', '.join(f'{key} {value}' for key, value in what.items())})" if what else ""
        line += f", read by `{source['reader']}`" if "reader" in source else ""
        if made := source.get("made_by"):
            line += f"; made by {_called(made)}"
            line += f" with the job `{made['job']}`" if "job" in made else ""
            line += f" (key {made['job_key']})" if "job_key" in made else ""
        lines.append(line)
    yield "\n".join(lines) if lines else "Not recorded."


def _made_with(card: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    spent = f"{card['tokens']:,} tokens in {card['seconds']:,.0f} s. " if "tokens" in card else ""
    return f"{spent}Commit {card['commit']}; {versions}."


def _lineage(card: Mapping[str, Any]) -> str:
    """A row a phase, from the base to this model."""
    own = {name: card[name] for name in ("phase", "model", "steps", "commit", "key") if name in card}
    rows = [
        (str(number), *(str(phase.get(name, "")) for name in ("phase", "model", "steps", "key", "weights", "commit")))
        for number, phase in enumerate([*card["lineage"], {**own, "weights": "this folder"}], 1)
    ]
    return _table(("", "phase", "model", "steps", "key", "weights", "commit"), rows)


def _called(model: Mapping[str, Any]) -> str:
    named = f"the phase `{model['phase']}`" if "phase" in model else f"`{model.get('model', 'a teacher')}`"
    at = [f"{name} {model[name]}" for name in ("step", "key", "weights") if name in model]
    return f"{named} ({', '.join(at)})" if at else named


def _latest(card: Mapping[str, Any]) -> dict[str, float]:
    numbers = dict(card["scores"].get("after", {}))
    for done in card.get("evaluations", {}).values():
        numbers |= done["after"]
    return numbers


def _by_set(numbers: Mapping[str, float]) -> dict[str, dict[str, float]]:
    sets: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        _, name, metric = key.split("/", 2)
        sets.setdefault(name, {})[metric] = value
    return sets


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
