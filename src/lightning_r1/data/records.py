"""Records of a data set, wherever it lies: the hub, a file, a folder.

JSON lines on this disk need nothing; everything else is read by the package ``datasets`` (the extra ``data``).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_r1.data.rows import DataError, json_objects

_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_REASON = 300

Record = tuple[str, int, dict[str, Any]]
"""Where it stands (for messages), its number, its fields."""


def records(
    path: str,
    *,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
) -> Iterator[Record]:
    """Read a data set in its own order.

    Args:
        path: a hub id (``openai/gsm8k``), a file here or on the hub (``problems.jsonl``,
            ``hf://datasets/owner/name/train.jsonl.gz``; JSON, JSON lines, parquet, CSV), or a folder (a copy of
            a hub repository, or what ``datasets`` saved).
        subset: the name of one of its configurations, where it has several.
        split: of a hub id or a folder; a file is all of its split.
        revision: a commit, tag or branch of a hub id.
        streaming: read while downloading, and keep nothing on disk.

    Yields:
        Place, number and fields of each record. Lines of a file are counted from 1, rows of anything else
        from 0, as its viewer on the hub counts them.

    Raises:
        DataError: if it is not there or cannot be read; one line with the fix.
    """
    file = _file(path)
    for option, value in {"subset": subset, "revision": revision}.items():
        if file and value is not None:
            raise DataError(f"data.{option}={value}: {path} is a file and has none; remove it")
    if file and Path(path).suffix == ".jsonl" and "://" not in path:
        yield from json_objects(path)
        return
    place = " ".join(filter(None, (path, subset, None if file else split)))
    try:
        for number, fields in enumerate(_load(path, subset, split, revision, streaming)):
            yield f"{place} row {number}", number, fields
    except DataError:
        raise
    except Exception as error:
        raise DataError(_gated(path, error) or _explain(place, error)) from error


def _file(path: str) -> str | None:
    """The format of a file that ``datasets`` reads, or None for what is no file."""
    suffixes = [suffix for suffix in Path(path).suffixes if suffix not in (".gz", ".zst")]
    return None if Path(path).is_dir() or not suffixes else _FORMATS.get(suffixes[-1])


def _load(path: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Iterable[dict[str, Any]]:
    file, here = _file(path), Path(path)
    if "://" not in path and not here.exists() and (file or not _HUB_ID.fullmatch(path)):
        raise DataError(
            f"data.path={path}: does not exist; set it to a file (.jsonl, .json, .parquet, .csv), a folder, or a hub "
            "id like owner/name"
        )
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data.path={path}: everything but a .jsonl file is read by the package datasets; install the extra: "
            "pip install 'lightning-r1[data]'"
        ) from error
    if file:
        return datasets.load_dataset(file, data_files={split: path}, split=split, streaming=streaming)
    if (here / "dataset_dict.json").is_file():
        return datasets.load_from_disk(path)[split]
    if (here / "state.json").is_file():
        return datasets.load_from_disk(path)
    return datasets.load_dataset(path, name=subset, split=split, revision=revision, streaming=streaming)


def _gated(path: str, error: BaseException | None) -> str | None:
    """What to do where a data set's owner wants to know who reads it; None where something else is wrong."""
    while error is not None:
        if type(error).__name__ == "GatedRepoError":
            name = "/".join(path.removeprefix("hf://datasets/").split("/")[:2]).partition("@")[0]
            page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/datasets/{name}"
            fix = f"accept its terms at {page}, then say who you are: hf auth login"
            return f"data.path={path}: its access is gated; {fix}"
        error = error.__cause__ or error.__context__
    return None


def _explain(place: str, error: Exception) -> str:
    """What ``datasets`` says, in one line, and what to do about it."""
    reason = " ".join(str(error).split())
    if len(reason) > _LONGEST_REASON:
        reason = reason[:_LONGEST_REASON] + " ..."
    if "OfflineModeIsEnabled" in reason:
        fix = "HF_HUB_OFFLINE is set: unset it, or set data.path to a copy on this disk"
    elif isinstance(error, ConnectionError):
        fix = "connect to the network, or set data.path to a copy on this disk"
    elif type(error).__name__ == "DatasetNotFoundError":
        fix = "check the id (owner/name), and say hf auth login if it is private"
    else:
        fix = "check data.path, data.subset and data.split"
    return f"data: {place} cannot be read: {type(error).__name__}: {reason}; {fix}"


@rank_zero_only
def tell(message: str) -> None:
    """Tell the user, once over all ranks, what was left out."""
    logging.getLogger(__name__).warning(message)
