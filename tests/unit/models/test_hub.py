"""A model that the hub does not give is told with the way to it, before transformers asks again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import errors

from lightning_r1.models import hub
from lightning_r1.models.hub import HubError, check_on_hub
from lightning_r1.models.tokenizer import load_tokenizer

NAME = "owner/model"


def answered(kind: Any, status: int, code: str = "") -> Callable[..., Any]:
    """The hub's client, as it raises what the hub answers."""

    def ask(*arguments: Any, **options: Any) -> Any:
        request = httpx.Request("HEAD", "https://huggingface.co/owner/model")
        response = httpx.Response(status, headers={"X-Error-Code": code}, request=request)
        raise kind(f"{status} Client Error", response=response)

    return ask


def unreachable(*arguments: Any, **options: Any) -> Any:
    raise httpx.ConnectError("[Errno -2] Name or service not known")


def test_what_stands_for_a_folder_is_no_name_on_the_hub() -> None:
    with pytest.raises(HubError, match=r"^RUN/model: RUN stands for the folder of a run, as in outputs/mine/model;"):
        check_on_hub("RUN/model")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (answered(errors.GatedRepoError, 403), ["its access is gated; accept its licence at", "hf auth login"]),
        (answered(errors.RepositoryNotFoundError, 401), ["neither such a folder nor such a model at", "hf auth login"]),
        (answered(errors.RemoteEntryNotFoundError, 404), ["there is no config.json at", "no model of transformers"]),
        (
            answered(errors.HfHubHTTPError, 503),
            ["the hub does not give it (503 Client Error", "hf download owner/model"],
        ),
        (unreachable, ["cannot be reached (ConnectError: [Errno -2]", "connect to the network, or download it"]),
    ],
)
def test_what_the_hub_answers_is_told_with_the_fix(
    ask: Callable[..., Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    with pytest.raises(HubError) as caught:
        load_tokenizer(NAME)
    assert str(caught.value).startswith(f"{NAME}: ")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_only_the_cache_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda *_, **__: pytest.fail("it was asked"))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        check_on_hub(NAME)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    check_on_hub(NAME)


def test_a_folder_is_none_of_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir(parents=True)
    for path in (NAME, tmp_path, "/nowhere/at/all"):
        check_on_hub(path)


def test_what_is_no_answer_of_the_hub_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)

    def broken(*arguments: Any, **options: Any) -> Any:
        raise TypeError("of a client that has changed")

    monkeypatch.setattr(hub, "get_hf_file_metadata", broken)
    with pytest.raises(TypeError):
        check_on_hub(NAME)
