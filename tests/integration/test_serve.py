"""``recipes/serve.py`` as a person uses it: in a terminal, in a pipe, and with the mistakes one makes."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_r1.config.build_serving import build_answerer, check_serving, endpoint_command, model_name
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.serve.run import serve

ROOT = Path(__file__).parents[2]
DIM = "\x1b[2m"


def config_of(*overrides: str) -> dict:
    return compose_config("serve", overrides)


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "recipes" / "serve.py"), *overrides]


def read_until(terminal: int, text: str, seconds: float = 240) -> str:
    """What a terminal shows, up to a text."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_a_conversation_in_a_terminal(base_model: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(f"model.path={base_model}", "template=mini", "chat.temperature=0"),
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(theirs)
    try:
        greeting = read_until(ours, "> ")
        assert f"{base_model.parent.name}: " in greeting
        assert "greedy" in greeting
        assert "each stands alone" in greeting
        os.write(ours, b"12?7=\n")
        answer = read_until(ours, "> ")
        assert " tokens in " in answer
        assert DIM in answer  # the thinking
        assert "<think>" not in answer
        os.write(ours, b"\x03")  # Ctrl-C
        # readline may show the prompt anew first
        assert process.poll() is None
        os.write(ours, b"/exit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_asks_one_question_a_line(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("12?7=\n\n3?4=\n"))
    serve(config_of(f"model.path={base_model}", "chat.temperature=0"))
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    assert "think>" not in shown


MISTAKES = {
    "run": "that is a run's folder; its model is model.path={folder}/run/model",
    "unfinished": "is a run that is not finished; .* python recipes/export.py run={folder}/unfinished",
    "unfinished/model": "is a run that is not finished; .* python recipes/export.py run={folder}/unfinished",
    "run/adapter": "that is an adapter alone; the merged model is {folder}/run/model",
    "judge": "that is a reward model, which answers nothing",
    "nothing": "there is no model there; set it to a folder with config.json, or to a hub id",
}


@pytest.mark.parametrize(("place", "message"), MISTAKES.items())
def test_what_is_no_model_is_said_to_be_none(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    (tmp_path / "run" / "adapter").mkdir()
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    (tmp_path / "unfinished" / "config.yaml").write_text("{}")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "config.json").write_text('{"architectures": ["Qwen2ForSequenceClassification"]}')
    with pytest.raises(ConfigError, match=message.format(folder=tmp_path)):
        check_serving(config_of(f"model.path={tmp_path / place}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=talk", "mode=talk: choose one of chat, endpoint"),
        ("device=tpu", "device=tpu: choose one of auto, cpu, cuda"),
        ("chat.temperature=-1", "chat.temperature=-1: expected >= 0"),
        ("chat.top_p=0", "chat.top_p=0: expected a share"),
        ("chat.max_new_tokens=0", "chat.max_new_tokens=0: expected >= 1"),
    ],
)
def test_a_value_out_of_its_range_is_named(override: str, message: str, base_model: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_serving(config_of(f"model.path={base_model}", override))


def test_another_template_than_the_trained_one_is_refused(base_model: Path) -> None:
    with pytest.raises(ConfigError, match="was trained under another template"):
        build_answerer(config_of(f"model.path={base_model}", "template=r1_zero"))
    with pytest.raises(ConfigError, match=r"chat\.system: .* no place for a system message"):
        build_answerer(config_of(f"model.path={base_model}", "chat.system=hello"))


def test_the_servers_command(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = [f"model.path={base_model}", "mode=endpoint", "endpoint.port=0", "endpoint.more=[--max-model-len,64]"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "vllm" or None)
    ours = endpoint_command(config_of(*endpoint, "model.dtype=float32"))
    assert ours[1:] == [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(base_model), "--served-model-name", "base"),
        *("--reasoning-parser", "deepseek_r1", "--host", "127.0.0.1", "--port", "0"),
        *("--dtype", "float32", "--max-model-len", "64"),
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "vllm" or None)
    assert endpoint_command(config_of(*endpoint))[2:5] == ["transformers.cli.transformers", "serve", str(base_model)]
    with pytest.raises(ConfigError, match=r"endpoint.server=vllm: vllm cannot be imported here; pip install"):
        endpoint_command(config_of(*endpoint, "endpoint.server=vllm"))
    with pytest.raises(ConfigError, match=r"endpoint.server=x: choose one of"):
        endpoint_command(config_of(*endpoint, "endpoint.server=x"))
    with pytest.raises(ConfigError, match=r"template=mini: an endpoint asks as the model's folder says"):
        endpoint_command(config_of(*endpoint, "template=mini"))
    with pytest.raises(ConfigError, match=r"endpoint.port=99999: nobody can listen there"):
        endpoint_command(config_of(*endpoint, "endpoint.port=99999"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"no server is installed; pip install 'lightning-r1\[vllm\]'"):
        endpoint_command(config_of(*endpoint))


def test_a_model_is_called_as_its_run() -> None:
    assert model_name(config_of("model.path=org/name")) == "org/name"
    assert model_name(config_of("model.path=org/name", "endpoint.name=mine")) == "mine"
