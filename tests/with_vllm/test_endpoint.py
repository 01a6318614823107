"""An exported model behind OpenAI's API, as recipes/serve.py starts it: vLLM's server, and transformers' own.

(transformers' server is tested here because this environment has what it needs.)
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.coin import coin_rows
from helpers.models import tiny_policy
from helpers.prompts import mini_codec
from helpers.vllm import served_base
from helpers.vllm_process import SMALL, http_server
from lightning_r1.models.asked import reasoning_parser
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import export_model
from lightning_r1.models.tokenizer import number_tokenizer

ROOT = Path(__file__).parents[2]
QUESTIONS = [row.question for row in coin_rows("heldout", size=6)]

Endpoint = tuple[str, str]
"""Address, and the model's name in requests."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def endpoint(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    log, server = tmp_path_factory.mktemp("server") / "log", request.param
    more = ["--max-model-len", "96", *SMALL] if server == "vllm" else ["--device", "cpu", "--dtype", "float32"]

    def command(port: int) -> list[str]:
        endpoint = [f"endpoint.server={server}", f"endpoint.port={port}", f"endpoint.more=[{','.join(more)}]"]
        script = str(ROOT / "recipes" / "serve.py")
        return [sys.executable, script, f"model.path={base}", "mode=endpoint", *endpoint]

    with http_server(command, log, {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}) as address:
        # vLLM is told the run's name; transformers takes the folder
        yield f"{address}/v1", base.parent.name if server == "vllm" else str(base)


def ask(endpoint: Endpoint, question: str, **more: Any) -> Any:
    url, model = endpoint
    request = {"model": model, "messages": [{"role": "user", "content": question}], **more}
    header = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/chat/completions", json.dumps(request).encode(), header)
    return urllib.request.urlopen(asked, timeout=300)


def greedy(base: Path, question: str) -> tuple[str, str]:
    """Thinking and answer that plain transformers writes."""
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    ids = tokenizer(f"{question}<think>", return_tensors="pt")
    row = model.generate(**ids, do_sample=False, max_new_tokens=40)[0, ids["input_ids"].shape[1] :]
    thinking, _, answer = tokenizer.decode(row, skip_special_tokens=True).partition("</think>")
    return thinking, answer


def test_thinking_and_answer_come_apart(endpoint: Endpoint, base: Path) -> None:
    answers = set()
    for question in QUESTIONS:
        with ask(endpoint, question, temperature=0.0, max_tokens=40) as reply:
            message = json.load(reply)["choices"][0]["message"]
        thinking = message.get("reasoning") or message.get("reasoning_content")  # the latter is transformers' name
        assert (thinking, message["content"]) == greedy(base, question)
        answers.add(message["content"])
    assert len(answers) > 1
    assert all(answer.startswith("<answer>") for answer in answers)


def test_they_come_apart_in_a_stream_too(endpoint: Endpoint, base: Path) -> None:
    heard = {"thinking": "", "content": ""}
    with ask(endpoint, QUESTIONS[0], temperature=0.0, max_tokens=40, stream=True) as reply:
        for line in map(bytes.decode, reply):
            if line.startswith("data: {") and (choices := json.loads(line.removeprefix("data: "))["choices"]):
                delta = choices[0]["delta"]
                heard["thinking"] += delta.get("reasoning") or delta.get("reasoning_content") or ""
                heard["content"] += delta.get("content") or ""
    assert (heard["thinking"], heard["content"]) == greedy(base, QUESTIONS[0])


def test_where_tags_are_no_tokens_vllm_reads_the_response_template(tmp_path: Path) -> None:
    from vllm.reasoning import ReasoningParserManager as parsers  # only here: whoever has no vLLM can collect the tests

    tokenizer = number_tokenizer()
    names = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = names["model"]["vocab"]
    letters = iter("<>thinkswer")  # in place of the tags and of some numbers
    for token in ("<think>", "</think>", "<answer>", "</answer>", *map(str, range(90, 97))):
        vocabulary[next(letters)] = vocabulary.pop(token)
    names["pre_tokenizer"]["pattern"] = {"Regex": r"<(?:pad|bos|eos)>|[1-9]\d|\d|."}
    tokenizer._tokenizer = tokenizer.backend_tokenizer.from_str(json.dumps(names))
    codec = Codec(mini_codec().template, tokenizer)
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card={})
    again = AutoTokenizer.from_pretrained(folder)
    assert reasoning_parser(again) == "hf"
    with pytest.raises(RuntimeError, match="could not locate"):
        parsers.get_reasoning_parser("deepseek_r1")(again)
    parser = parsers.get_reasoning_parser("hf")(again)
    prompt = codec.template.render("2?5?1=9")
    assert not parser.is_reasoning_end(list(codec.encode(f"{prompt}2+5=7")))
    assert parser.is_reasoning_end(list(codec.encode(f"{prompt}2+5=7</think>7")))
