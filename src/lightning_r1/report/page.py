"""One page in one file: markup, style, script and data, with nothing to fetch and nothing that the data could run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from lightning_r1.report.markup import Html, html
from lightning_r1.text.records import write_whole

_SOURCES = Path(__file__).parent / "page"
_SCRIPTS = ("element.js", "chart.js", "cards.js", "completions.js", "prompts.js", "page.js")


def page(title: str, body: Html, data: Mapping[str, Any]) -> str:
    """The whole file.

    A content security policy names the page's one style and one script by their hashes: whatever a model has
    written, nothing else runs, and nothing is fetched.

    Args:
        title: of the window.
        body: what is there without scripts too.
        data: what the scripts draw; read by them as JSON, never as markup.
    """
    style = (_SOURCES / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_SOURCES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    return Template((_SOURCES / "page.html").read_text(encoding="utf-8")).substitute(
        title=html(title), style=style, script=script, body=body, data=as_json(data),
        style_hash=_digest(style), script_hash=_digest(script),
    )  # fmt: skip


def as_json(data: Any) -> str:
    """JSON that can stand in a page: no text in it ends the element that it stands in, or begins a comment.

    >>> as_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # half of a pair of surrogates is no text; models that write bytes leave some
    return text.encode("utf-8", "replace").decode("utf-8")


def write(file: Path, text: str) -> Path:
    """Whole or not at all."""
    write_whole(file, text)
    return file


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
