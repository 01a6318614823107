"""Pieces of a page: every text in them is escaped, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is markup already; only the functions of this module make it."""


def html(text: object) -> Html:
    """A text as markup."""
    return text if isinstance(text, Html) else Html(escape(str(text), quote=True))


def join(parts: Iterable[object]) -> Html:
    """Pieces behind each other."""
    return Html("\n".join(html(part) for part in parts))


def tag(name: str, *parts: object, **attributes: str) -> Html:
    """An element; an attribute's ``_`` is a ``-``, and one at its end is dropped (``class_``).

    >>> tag("a", "<b>", href="x.html", class_="node")
    '<a href="x.html" class="node">&lt;b&gt;</a>'
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{named}>{''.join(html(part) for part in parts)}</{name}>")


def section(name: str, title: str, *parts: object) -> Html:
    """A part of the page with a heading; ``name`` is where links lead."""
    return tag("section", tag("h2", title), *parts, id=name)


def fold(title: str, *parts: object, name: str = "") -> Html:
    """What is only shown when asked for; without scripts too."""
    return tag("details", tag("summary", title), *parts, **({"id": name} if name else {}))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> Html:
    """A table whose first column names the rows; it scrolls for itself where the window is narrow."""
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in header)))
    body = tag(
        "tbody", *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    )
    under = [tag("p", caption, class_="note")] if caption else []
    return tag("div", tag("div", tag("table", head, body), class_="wide", tabindex="0"), *under)


def tiles(facts: Iterable[tuple[str, str, str]]) -> Html:
    """Main numbers: label, value, and a word on it."""
    return tag("dl", *(
        tag("div", tag("dt", label), tag("dd", value), tag("dd", word, class_="word")) for label, value, word in facts
    ), class_="tiles")  # fmt: skip


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Names and values, one a line."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), class_="facts")
