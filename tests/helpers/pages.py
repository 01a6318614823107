"""The pages that people read, taken apart: their fences, commands, links and what they name in code.

A fence may name the file that it is: ```` ```jsonl prompts.jsonl ````, ```` ```yaml conf/model/mine.yaml ````,
```` ```python my_rewards.py ````; a Python fence also by a comment in its first line. In ``sh``,
``cat > NAME << 'EOF'`` does the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "recipes/README.md",
    "sbatch/README.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "recipes" / "guides").glob("*.md"))),
)
SHELL = ("sh", "bash", "shell", "console")
_STARTS = re.compile(r"(?:[A-Z_]+=\S+ |[A-Z_]+=\"[^\"]*\" )*(?:python |make \w|(?:bash |sbatch )|recipes/\w+\.py )")


@dataclass(frozen=True)
class Place:
    """Where something stands: a page and a line of it."""

    page: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Fence:
    """A fenced block; ``name`` is the file that it is, ``marks`` the other words behind its language."""

    place: Place
    language: str
    name: str | None
    marks: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Span:
    """A piece of text in backquotes."""

    place: Place
    text: str


@dataclass(frozen=True)
class Command:
    """One program with its arguments; variables that are set for it stand in ``environment``.

    One in running text (``said``) may leave out what its sentence is not about.
    """

    place: Place
    environment: tuple[str, ...]
    words: tuple[str, ...]
    said: bool

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def fences(page: str) -> tuple[Fence, ...]:
    return tuple(_fences(page, text_of(page)))


def _fences(page: str, text: str) -> Iterator[Fence]:
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if opened is None and (match := re.match(r" *```([^`]*)$", line)):
            opened = (number, match[1].strip(), [])
        elif opened is not None and re.match(r" *``` *$", line):
            start, info, lines = opened
            opened = None
            yield _fence(Place(page, start), info, "\n".join(lines))
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page}:{opened and opened[0]}: this fence has no end; close it with ```"


def _fence(place: Place, info: str, text: str) -> Fence:
    language, *words = info.split() or [""]
    named = [word for word in words if re.fullmatch(r"[\w./-]+\.\w+", word)]
    first = text.partition("\n")[0]
    if language == "python" and not named and (match := re.search(r"#.*?([\w/]+\.py)\b", first)):
        named = [match[1]]
    return Fence(place, language, named[0] if named else None, tuple(w for w in words if w not in named), text)


def prose(page: str) -> str:
    """The page with its fences blank, so that lines keep their numbers."""
    lines = text_of(page).splitlines()
    for fence in fences(page):
        for number in range(fence.place.line - 1, fence.place.line + fence.text.count("\n") + 2):
            if number < len(lines):
                lines[number] = ""
    return "\n".join(lines)


@cache
def spans(page: str) -> tuple[Span, ...]:
    text = prose(page)
    return tuple(
        Span(Place(page, text.count("\n", 0, match.start()) + 1), " ".join(match[2].split()))
        for match in re.finditer(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", text, re.DOTALL)
    )


@cache
def links(page: str) -> tuple[tuple[Place, str], ...]:
    text = prose(page)
    return tuple(
        (Place(page, text.count("\n", 0, match.start()) + 1), match[1])
        for match in re.finditer(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"[a-z]+:", match[1])
    )


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    found: dict[str, int] = {}
    for line in prose(page).splitlines():
        if match := re.match(r"#{1,6} +(.*?) *#*$", line):
            slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", match[1]).lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {slug if not number else f"{slug}-{number}" for slug, last in found.items() for number in range(last + 1)}


@cache
def files(page: str) -> tuple[Fence, ...]:
    """What the page lets its reader write, here-documents too."""
    written = [fence for fence in fences(page) if fence.name]
    for fence in fences(page):
        if fence.language in SHELL:
            written += [document for _, document in _lines(fence) if document]
    return tuple(written)


@cache
def commands(page: str) -> tuple[Command, ...]:
    """All commands of the page: each line of its shell fences, and what begins like one in backquotes."""
    found = [
        command
        for fence in fences(page)
        if fence.language in SHELL
        for (place, line), document in _lines(fence)
        if document is None
        for command in _split(place, line, said=False)
    ]
    found += [
        command
        for span in spans(page)
        if _STARTS.match(f"{span.text} ")
        for command in _split(span.place, span.text, said=True)
    ]
    return tuple(found)


def _lines(fence: Fence) -> Iterator[tuple[tuple[Place, str], Fence | None]]:
    """Logical lines of a shell fence; a here-document comes with the file that it writes."""
    lines = list(enumerate(fence.text.splitlines(), start=fence.place.line + 1))
    while lines:
        number, line = lines.pop(0)
        line = re.sub(r"^\$ ", "", line)
        place = Place(fence.place.page, number)
        while line.rstrip().endswith("\\") and lines:
            line = line.rstrip()[:-1] + " " + lines.pop(0)[1].strip()
        if match := re.fullmatch(r"cat >+ *(\S+) *<<-? *'?\"?(\w+)'?\"?", line.strip()):
            body: list[str] = []
            while lines and lines[0][1].strip() != match[2]:
                body.append(lines.pop(0)[1])
            assert lines, f"{place}: this here-document has no end; close it with {match[2]}"
            lines.pop(0)
            yield (place, line), Fence(place, match[1].rpartition(".")[2], match[1], (), "\n".join(body))
        elif line.strip() and not line.lstrip().startswith("#"):
            yield (place, line), None


def _split(place: Place, line: str, *, said: bool) -> Iterator[Command]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    reader.whitespace_split = True
    words: list[str] = []
    for word in [*reader, ";"]:
        if word and set(word) <= set(";&|"):
            if words:
                variables = tuple(takewhile(lambda word: re.match(r"[A-Z_][A-Z0-9_]*=", word), words))
                yield Command(place, variables, tuple(words[len(variables) :]), said)
            words = []
        else:
            words.append(word)
