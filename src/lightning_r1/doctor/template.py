"""From a question to token ids and back: what the policy sees, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_r1.doctor.data import sampled, shortened
from lightning_r1.doctor.findings import Finding, check, failed, ok, warning
from lightning_r1.doctor.golds import completion_text
from lightning_r1.doctor.patient import Patient
from lightning_r1.models.codec import Codec
from lightning_r1.models.load import stops_of


@check("template")
def the_template_fits_the_tokenizer(patient: Patient) -> Iterator[Finding]:
    """Completions are read as they were written, and something stops them."""
    codec = patient.codec
    yield from _completions(codec)
    rendered = codec.template.render("What is 2 + 2?")
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    chat = codec.tokenizer.apply_chat_template(
        messages, chat_template=codec.template.chat_template(), tokenize=False, add_generation_prompt=True
    )
    if chat != rendered:
        yield failed(f"the exported chat template asks in another way: {_difference(rendered, str(chat))}")
    yield from _stops(patient, codec)


@check("prompts")
def prompts_survive_the_tokenizer(patient: Patient) -> Iterator[Finding]:
    """They come back from their tokens as they were."""
    if not patient.rolls_out:
        return
    codec = patient.codec
    questions = [prompt.question for prompt in sampled(patient.data.train, patient.options["sample"], "template")]
    changed = [text for text in map(codec.template.render, questions) if _there_and_back(codec, text) != text]
    if changed:
        yield failed(
            f"{len(changed)} of {len(questions)} prompts are not the same behind the tokenizer: "
            f"{_difference(changed[0], _there_and_back(codec, changed[0]))}",
            "what it does not know is lost: leave such prompts out, or take another tokenizer",
        )
    else:
        last = codec.template.render(questions[0])[-60:]
        yield ok(f"{len(questions)} prompts come back from their tokens unchanged; one ends in {last!r}")


def _completions(codec: Codec) -> Iterator[Finding]:
    template = codec.template
    strict = completion_text(template.tags, "4", thinking="2+2=4")
    opened = template.prefill.lstrip()
    written = strict.removeprefix(opened) if strict.startswith(opened) else strict
    ids = [*codec.tokenizer.encode(written, add_special_tokens=False), codec.tokenizer.eos_token_id]
    read = codec.completion_text(ids)
    if not read.startswith(opened):
        yield failed(f"the prefill {template.prefill!r} is not put back in front of completions: {shortened(read)}")
    elif not template.tags.is_strict(read):
        yield failed(
            f"a strict completion is not recognised behind the tokenizer: {shortened(strict)} is read as "
            f"{shortened(read)}",
            "no completion could ever earn the format reward: take other tags, or another tokenizer",
        )
    else:
        put_back = f", the prefill {template.prefill!r} is put back" if template.prefill else ", there is no prefill"
        yield ok(f"a strict completion is recognised{put_back}")


def _stops(patient: Patient, codec: Codec) -> Iterator[Finding]:
    model = patient.hollow.model
    rows = len(model.get_input_embeddings().weight)
    tokens = {number: codec.tokenizer.convert_ids_to_tokens(number) for number in codec.stop_ids}
    told = ", ".join(f"{token!r} ({number})" for number, token in tokens.items())
    if max(codec.stop_ids) >= rows or codec.pad_id >= rows:
        yield failed(
            f"the model has {rows} embeddings, too few for {told} or padding ({codec.pad_id})", "its tokenizer"
        )
        return
    others = sorted(set(stops_of(patient.config["model"]["path"])) - set(codec.stop_ids))
    if others:
        names = [codec.tokenizer.convert_ids_to_tokens(number) for number in others]
        yield warning(
            f"completions stop at {told}; the model's own generation also stops at {names}",
            f"template.stop={names} if it was trained to end with them",
        )
    else:
        yield ok(f"completions stop at {told}; EOS is among them")


def _there_and_back(codec: Codec, text: str) -> str:
    decoded = str(codec.tokenizer.decode(list(codec.encode(text)), skip_special_tokens=False))
    # a tokenizer may put BOS in front of every text
    bos = codec.tokenizer.bos_token
    return decoded.removeprefix(str(bos)) if bos and not text.startswith(str(bos)) else decoded


def _difference(text: str, other: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    start = max(0, at - 10)
    return f"{text[start : at + 20]!r} becomes {other[start : at + 20]!r}"
