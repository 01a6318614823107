"""A kill at a chosen moment of what is written to disk."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch


class Killed(BaseException):
    """Stands for SIGKILL: what catches errors does not see it."""


def kill_before(operation: int, patch: pytest.MonkeyPatch) -> None:
    """Die in place of the n-th operation on files, from 0."""
    count = itertools.count()

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) == operation:
                raise Killed
            return real(*args, **kwargs)

        return call

    for owner, name in ((torch, "save"), (os, "fsync"), (Path, "unlink"), (Path, "rename"), (Path, "open")):
        patch.setattr(owner, name, dying(getattr(owner, name)))
