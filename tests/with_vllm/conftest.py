"""Everything in this folder needs a real vLLM: `make test-vllm`. Without one it fails, it is not skipped."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder carries the marker by which `make test` leaves it out."""
    for item in items:
        if "/tests/with_vllm/" in item.path.as_posix():
            item.add_marker(pytest.mark.vllm)
