"""Answers of models, kept on disk: what was asked once is not asked again, not by a job that goes on either.

The key is what the answer is *about*, which need not be the request: a judge is asked with another nonce every
time, and its verdict on the same answer is the same verdict nevertheless.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Answers:
    """A folder of records, each under the hash of its key.

    Args:
        folder: null keeps nothing on disk.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Record]] = {}

    def once(self, key: Any, make: Callable[[], Record]) -> Record:
        """The record of a key, made if it is not there.

        Who asks for a key that is being made waits for it, and is given the same record or the same error.

        Args:
            key: anything that JSON can hold.
            make: makes the record, which JSON can hold.
        """
        name = _name(key)
        with self._lock:
            others = self._under_way.get(name)
            mine: Future[Record] = others or Future()
            if others is None:
                self._under_way[name] = mine
        if others is not None:
            return others.result()
        try:
            record = self._kept(name)
            if record is None:
                record = make()
                self._keep(name, record)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(record)
            return record
        finally:
            with self._lock:
                del self._under_way[name]

    def get(self, key: Any) -> Record | None:
        """The record of a key, if it is there."""
        return self._kept(_name(key))

    def put(self, key: Any, record: Mapping[str, Any]) -> None:
        """Keep a record."""
        self._keep(_name(key), record)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name[:2] / f"{name[2:32]}.json"

    def _kept(self, name: str) -> Record | None:
        path = self._path(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path else None
        except (OSError, ValueError):  # not there, or cut short by a machine that died
            return None
        return record if isinstance(record, dict) else None

    def _keep(self, name: str, record: Mapping[str, Any]) -> None:
        path = self._path(name)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        partial.write_bytes(json.dumps(record, ensure_ascii=False).encode(errors="replace"))
        os.replace(partial, path)


def _name(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
