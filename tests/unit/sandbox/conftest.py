"""One proven sandbox a backend, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.sandboxes import BACKENDS, adopt_orphans
from lightning_r1.sandbox.base import Sandbox
from lightning_r1.sandbox.open import open_sandbox


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def sandbox(backend: str) -> Iterator[Sandbox]:
    adopt_orphans()
    opened = open_sandbox(backend, languages=("python", "cpp"), at_once=2)
    yield opened
    opened.close()
