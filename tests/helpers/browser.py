"""A headless Chromium for tests of pages: what it makes of a file, what it says, what can be done with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium in PATH: how the report looks is not tested here (apt-get install chromium)"
)


@dataclass(frozen=True)
class Seen:
    """A page after its scripts have run."""

    dom: str
    console: list[str]
    """What scripts, the page and its policy have said: a healthy page says nothing."""

    def texts(self, name: str, class_: str = "") -> list[str]:
        """Texts of all elements of a name and a class."""
        return texts(self.dom, name, class_)


def texts(markup: str, name: str, class_: str = "") -> list[str]:
    """Texts of all elements of a name and a class."""
    finder = _Finder(name, class_)
    finder.feed(markup)
    return finder.found


def browse(file: Path, profile: Path, *switches: str, hash_: str = "", window: str = "1280,1000") -> Seen:
    """Load a page from its file. The only way out is a proxy that nobody listens at."""
    done = _run(profile, window, *switches, "--dump-dom", f"{file.as_uri()}{hash_}")
    said = re.findall(r'CONSOLE[^\]]*\] "(.*)", source', done.stderr)
    return Seen(done.stdout, said)


def drive(file: Path, profile: Path, script: str, *, width: int = 1280) -> Any:
    """Do something on a page, which stands in a frame of a page that is ours.

    Args:
        file: of the page.
        profile: a folder for the browser.
        script: body of a function of ``view`` and ``page``, the frame's window and document; its result is JSON's.
        width: of the frame.
    """
    host = file.with_name("host.html")
    frame = f'<iframe src="{file.name}" width="{width}" height="800" style="border: 0"></iframe><output></output>'
    run = (
        "const frame = document.querySelector('iframe'); frame.onload = () => {"
        f"const told = ((view, page) => {{{script}}})(frame.contentWindow, frame.contentDocument);"
        "document.querySelector('output').textContent = JSON.stringify(told); };"
    )
    host.write_text(f"<!doctype html><body>{frame}<script>{run}</script>", encoding="utf-8")
    seen = browse(host, profile, "--allow-file-access-from-files", window=f"{width + 40},1000")
    assert seen.console == []
    (told,) = seen.texts("output")
    return json.loads(told)


def _run(profile: Path, window: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    return subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run",
         "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>", f"--user-data-dir={profile}",
         f"--window-size={window}", "--virtual-time-budget=3000", *arguments],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip


class _Finder(HTMLParser):
    """Collects the texts of elements, those of inner elements with them."""

    def __init__(self, name: str, class_: str) -> None:
        super().__init__()
        self.name, self.class_ = name, class_
        self.found: list[str] = []
        self.inside: list[str] = []  # tags that are open in the element being read

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("input", "meta", "br", "link", "path", "line", "circle", "rect"):
            return
        if self.inside:
            self.inside.append(tag)
        elif tag == self.name and (not self.class_ or self.class_ in (dict(attrs).get("class") or "").split()):
            self.inside, self.found = [tag], [*self.found, ""]

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data
