"""The template contract: rendering, reading back, refusing, fingerprints."""

from __future__ import annotations

import pytest

from lightning_r1.text.tags import Tags
from lightning_r1.text.templates import Template

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: {question}. Assistant:"
)


def template(**fields: object) -> Template:
    return Template(**{"name": "t", "prompt": "{question}", **fields})


@pytest.mark.parametrize(
    ("prompt", "prefill", "question", "rendered"),
    [
        ("{question}", "<think>", "2?5?1=9", "2?5?1=9<think>"),
        ("User: {question} Assistant:", " <think>", "2+2?", "User: 2+2? Assistant: <think>"),
        ("Q: {question}", "", "", "Q: "),
        ("{braces} {question} {}", "", "x", "{braces} x {}"),  # other braces are plain text
        ("{{question}}", "", "x", "{x}"),
        ("Q: {question}!", "", "{question} {0} %s {x!r}", "Q: {question} {0} %s {x!r}!"),  # and so is the question
        ("Q: {question}", "<think>\n", "two\nlines \\n", "Q: two\nlines \\n<think>\n"),
    ],
)
def test_render(prompt: str, prefill: str, question: str, rendered: str) -> None:
    assert template(prompt=prompt, prefill=prefill).render(question) == rendered


def test_the_papers_template() -> None:
    rendered = template(prompt=R1_ZERO, prefill=" <think>").render("What is 2+2?")
    assert rendered.endswith(" User: What is 2+2?. Assistant: <think>")
    assert rendered.count("<think>") == 3


@pytest.mark.parametrize("prompt", ["", "no slot", "{question} and {question}", "{ question }", "{Question}"])
def test_exactly_one_slot(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"template\.prompt=.*\{question\} exactly once"):
        template(prompt=prompt)


@pytest.mark.parametrize(
    ("prefill", "sampled", "text"),
    [
        ("<think>", "a</think>b", "<think>a</think>b"),
        (" <think>\n", "a</think>b", "<think>\na</think>b"),  # what separates it from the prompt is the prompt's
        ("", "<think>a</think>b", "<think>a</think>b"),
        ("", " a", " a"),
    ],
)
def test_a_completion_gets_its_prefill_back(prefill: str, sampled: str, text: str) -> None:
    assert template(prefill=prefill).completion_text(sampled) == text


def test_prefilled_and_written_tags_are_read_alike() -> None:
    prefilled, written = template(prefill="<think>"), template()
    first, second = prefilled.completion_text("a</think>b"), written.completion_text("<think>a</think>b")
    assert first == second


def test_the_fingerprint_is_a_function_of_the_contract() -> None:
    assert template().fingerprint() == template().fingerprint()
    assert len(template().fingerprint()) == 12
    # the same in every process: a hash that is salted would refuse its own checkpoints
    fixed = Template("mini", "{question}", "<think>")
    assert fixed.fingerprint() == "cf6ba4a6b003"


CONTRACT = [
    {"prompt": "Q: {question}"},
    {"prefill": "<think>"},
    {"prefill": "<think>\n"},
    {"stop": ("</answer>",)},
    {"stop": ("a", "b")},
    {"stop": ("b", "a")},
    {"tags": Tags(think_open="[")},
    {"tags": Tags(think_close="]")},
    {"tags": Tags(answer_open="[")},
    {"tags": Tags(answer_close="]")},
]


def test_the_fingerprint_changes_with_every_part_of_it() -> None:
    fingerprints = [template(**fields).fingerprint() for fields in [{}, *CONTRACT]]
    assert len(set(fingerprints)) == len(fingerprints)


@pytest.mark.parametrize("fields", [{"name": "other"}, {"reflection_markers": ("wait",)}, {"reflection_markers": ()}])
def test_names_and_markers_are_not_part_of_it(fields: dict[str, object]) -> None:
    assert template(**fields).fingerprint() == template().fingerprint()


@pytest.mark.parametrize("fields", [{"turn_end": "<end>"}, {"system": "S: {system}\n"}])
def test_how_a_chat_goes_on_is_not_part_of_it(fields: dict[str, object]) -> None:
    # a model is trained on single questions
    assert template(**fields).fingerprint() == template().fingerprint()


@pytest.mark.parametrize("system", ["", "no slot", "{system}{system}"])
def test_exactly_one_slot_of_a_system_message(system: str) -> None:
    with pytest.raises(ValueError, match=r"template\.system=.*\{system\} exactly once"):
        template(system=system)
