"""Records of files and folders in every form that can be pointed at, and one clear line for what cannot be read."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import httpx
import huggingface_hub
import pytest
from datasets import Dataset, DatasetDict

from helpers.hub import hub_copy, parquet
from lightning_r1.data.records import records
from lightning_r1.data.rows import DataError

ROWS = [{"question": "1+1?", "answer": "2", "tags": ["sum"]}, {"question": "多少?", "answer": "3", "tags": []}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``datasets`` keeps goes where the test's files are."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def fields(path: Any, **options: Any) -> list[dict[str, Any]]:
    return [record for _, _, record in records(str(path), **options)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    file = jsonl(tmp_path / "mine.jsonl", [*ROWS, {"question": 7}])  # no column keeps one type
    assert list(records(str(file)))[2] == (f"{file} line 3", 3, {"question": 7})
    assert fields(file)[:2] == ROWS


@pytest.mark.parametrize("streaming", [False, True])
def test_every_form_of_file(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in ROWS))
    parquet(tmp_path / "c.parquet", ROWS)
    (tmp_path / "d.csv").write_text("question,answer\n1+1?,2\n")
    for name in ("a.json", "b.jsonl.gz", "c.parquet"):
        assert fields(tmp_path / name, streaming=streaming) == ROWS
        # a file is all of its split, whatever that is called
        assert fields(tmp_path / name, split="test", streaming=streaming) == ROWS
    assert fields(tmp_path / "d.csv", streaming=streaming) == [{"question": "1+1?", "answer": 2}]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_copy_of_a_hub_repository(tmp_path: Path, streaming: bool) -> None:
    other = [{"question": "9?", "answer": "9", "tags": ["nine"]}]
    path = hub_copy(tmp_path / "sums", {"main": {"train": ROWS, "test": other}, "hard": {"train": other}})
    found = list(records(path, subset="main", streaming=streaming))
    assert [(where, number) for where, number, _ in found] == [
        (f"{path} main train row 0", 0),
        (f"{path} main train row 1", 1),
    ]
    assert [record for _, _, record in found] == ROWS
    assert fields(path, subset="main", split="test", streaming=streaming) == other
    assert fields(path, subset="hard", streaming=streaming) == other


def test_what_datasets_saved(tmp_path: Path) -> None:
    saved = Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(tmp_path / "splits")
    assert fields(tmp_path / "one") == ROWS
    assert fields(tmp_path / "splits", split="test") == ROWS[1:]
    with pytest.raises(DataError, match=r"splits nowhere cannot be read: KeyError: .*check data\.path, .*data\.split"):
        fields(tmp_path / "splits", split="nowhere")


def refusal(path: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        fields(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere.jsonl", "sub/folder/nowhere", "gsm8k", "a/b.csv"])
def test_a_path_that_is_not_there_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"{name}" in refusal(name)
    assert "does not exist; set " in refusal(name)


def test_an_id_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal("nobody/nothing", subset="main", split="test")  # no test reaches the hub
    assert message.startswith("data: nobody/nothing main test cannot be read: ConnectionError: ")
    assert message.endswith("; HF_HUB_OFFLINE is set: unset it, or set data.path to a copy on this disk")

    def unknown(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'nobody/nothing'\n doesn't exist " + "x" * 1000)

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    message = refusal("nobody/nothing")
    assert "DatasetNotFoundError: Dataset 'nobody/nothing' doesn't exist" in message
    assert message.endswith("; check the id (owner/name), and say hf auth login if it is private")
    assert len(message) < 500


def test_a_network_that_is_down_is_no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (ConnectError)")

    monkeypatch.setattr(datasets, "load_dataset", down)
    assert refusal("a/b").endswith("; connect to the network, or set data.path to a copy on this disk")


@pytest.mark.parametrize("path", ["cais/gated", "hf://datasets/cais/gated@main/test.parquet"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_of_a_gated_data_set_it_is_said_how_to_be_let_in(
    path: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))

    def gated(*_: Any, **__: Any) -> None:
        try:
            raise huggingface_hub.errors.GatedRepoError("403 Client Error.\n" + "x" * 1000, response=response)
        except huggingface_hub.errors.GatedRepoError as error:
            if not wrapped:  # as streaming leaves it
                raise
            raise datasets.exceptions.DatasetNotFoundError("Dataset is a gated dataset on the Hub.") from error

    monkeypatch.setattr(datasets, "load_dataset", gated)
    assert refusal(path) == (
        f"data.path={path}: its access is gated; accept its terms at https://huggingface.co/datasets/cais/gated, then "
        "say who you are: hf auth login"
    )


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def loaded(*path: Any, **options: Any) -> list[dict[str, Any]]:
        calls.append((path, options))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    assert fields("o/n", subset="main", split="test", revision="abc", streaming=True) == ROWS
    assert fields("hf://datasets/o/n/train.jsonl.gz") == ROWS
    assert calls == [
        (("o/n",), {"name": "main", "split": "test", "revision": "abc", "streaming": True}),
        (
            ("json",),
            {"data_files": {"train": "hf://datasets/o/n/train.jsonl.gz"}, "split": "train", "streaming": False},
        ),
    ]


def test_wrong_subsets_and_splits_list_the_right_ones(tmp_path: Path) -> None:
    path = hub_copy(tmp_path / "sums", {"main": {"train": ROWS}, "hard": {"train": ROWS}})
    assert "main" in (message := refusal(path, subset="easy"))
    assert message.endswith("; check data.path, data.subset and data.split")
    assert "train" in refusal(path, subset="main", split="dev")


def test_a_file_has_no_subsets_and_no_revisions(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", ROWS)
    assert refusal(file, subset="main") == f"data.subset=main: {file} is a file and has none; remove it"
    assert "data.revision=v1" in refusal(file, revision="v1")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    message = refusal(tmp_path / "broken.parquet")
    assert f"{tmp_path}/broken.parquet cannot be read: " in message


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path / "a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path in ("openai/gsm8k", file):
        message = refusal(path)
        assert message.startswith(f"data.path={path}: ")
        assert "pip install 'lightning-r1[data]'" in message
