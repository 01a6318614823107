r"""Reading a mathematical answer: from LaTeX to its :mod:`shape <lightning_r1.text.math_shapes>`.

For answers that :func:`lightning_r1.text.hostile.hostile` lets through; nothing is calculated.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from lightning_r1.text.latex import decimal_places, normal_form, tidy
from lightning_r1.text.math_shapes import Equation, Inequality, Many, Matrix, Ordered, Shape, Text, Union, Value

_OR = re.compile(
    r",?\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*|\\(?:lor|vee)(?![A-Za-z])"
)
_EITHER = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])|\\lor|\\vee")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,]*\d)")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MATRIX = re.compile(r"\\begin\{([pbB]?)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_RELATION = re.compile(r"(?<![\\<>!:])=|<|>|\\(?:le|ge|lt|gt|ne|approx|in)(?![A-Za-z])")
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|omega|Delta|Omega|Theta"
_NAME = re.compile(
    rf"(?:\\(?:{_GREEK})|[A-DF-Za-df-hj-z]|\\text\s*\{{[^{{}}\d]+\}}|[A-Za-z]{{3,}}(?: [A-Za-z]+)*|[A-Z]{{2}}|"
    r"\\angle\s*[A-Z]+)(?:_\{?\w+\}?)?'*(?:\([a-z](?:,\s*[a-z])*\))?"
)
_NAMES = re.compile(r"\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)")
_SIDES = {"<": "<", r"\lt": "<", r"\le": r"\le", ">": ">", r"\gt": ">", r"\ge": r"\ge"}
_TURNED = {">": "<", r"\ge": r"\le"}
_INFINITY = Value(r"\infty")

_UNITS = (
    "mm millimeter millimetre|cm centimeter centimetre|m meter metre|km kilometer kilometre|in inch inches inche|"
    "ft foot feet|yd yard|mi mile|g gram|kg kilogram|mg milligram|lb pound|oz ounce|l liter litre|ml milliliter|"
    "s sec second|min minute|h hr hour|day|week|month|yr year|am a.m|pm p.m|° deg degree|°c celsius|°f fahrenheit|"
    "rad radian|$ dollar usd buck|¢ cent|€ euro eur|£ gbp|mph|km/h kmph|m/s|hz hertz|j joule|w watt|v volt|n newton|"
    "pa pascal|k kelvin"
)
_UNIT_OF = {name: names.split()[0] for names in _UNITS.split("|") for name in names.split()}
_UNIT = re.compile(
    r"(?:(?<=[\d}\s)])|(?<=\\pi))\s*(?:\\text\s*\{\s*([^{}]*?)\s*\}(?:\^\{?(\d)\}?)?|"
    r"(?<=\s)([A-Za-z]{2,}(?: [A-Za-z]+)*)(?:\^\{?(\d)\}?)?|(°\s*[CF]?)|(%)|"
    r"(?:\\text\s*\{\s*)?(percent|pct)(?:\s*\})?)$"
)
# behind a number these words make another answer of it: 3 "or 4"
_SAYS_MORE = re.compile(r"(?<![A-Za-z^\d])(?:\d|(?:and|or|not|nor)(?![A-Za-z]))", re.IGNORECASE)
_STYLE = re.compile(r"\\(?:underline|bf|it|rm|sf|tt|em|emph|[a-z]*size|[Ll]arge|LARGE|[Hh]uge|small)(?![A-Za-z])")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_BASE = re.compile(
    r"([0-9A-Fa-f]*\d[0-9A-Fa-f]*)_\{?(?:\\text\s*\{)?\s*(\d{1,2}|two|three|eight|ten|sixteen)\s*\}{0,2}"
)


@lru_cache(maxsize=1024)  # the gold of a group is read once
def read_answer(answer: str) -> Shape:
    r"""The shape of an answer.

    >>> read_answer(r"5\text{ cm}")
    Value(form=Fraction(5, 1), unit='cm', places=None)
    >>> read_answer(r"\left( 0, \infty \right]").closing
    ']'
    """
    return _read(tidy(answer), outermost=True)


def read_number(answer: str) -> Fraction | None:
    r"""The exact number that an answer is, without its unit and a name before it; None for anything else.

    >>> read_number(r"x = \frac{1}{2}"), read_number("1, 2"), read_number(r"50\%")
    (Fraction(1, 2), None, None)
    """
    shape = read_answer(answer)
    if isinstance(shape, Equation) and shape.name and len(shape.values) == 1:
        shape = shape.values[0]
    if not isinstance(shape, Value) or not isinstance(shape.form, Fraction):
        return None
    return None if shape.unit == "%" or shape.unit.startswith("base") else shape.form


def _read(text: str, outermost: bool = False) -> Shape:
    text = _ungrouped(text.strip())
    if (words := _words(text)) is not None:
        return words
    if inside := _TEXT.fullmatch(text):
        return _value(inside[1])
    if match := _MATRIX.fullmatch(text):
        rows = [row for row in re.split(r"\\\\", match[2]) if row.strip()]
        return Matrix(tuple(tuple(_read(entry) for entry in row.split("&")) for row in rows))
    listed = _OR.sub(", ", text)
    # else the commas are those of a list, or of a point
    if outermost and not re.search(r",(?!\s)|[(\[]|\\\{", _THOUSANDS.sub("", listed)):
        text, listed = (_THOUSANDS.sub(lambda match: match[0].replace(",", "_,"), one) for one in (text, listed))
    parts = _split(listed, (",", ";"))
    if len(parts) > 1:
        return _listed(parts, either=bool(_EITHER.search(text)))
    if (relation := _relation(text)) is not None:
        return relation
    if len(parts := _split(text, (r"\cup",))) > 1:
        return Union(tuple(_read(part) for part in parts))
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return Many(())
    if text == r"\mathbb{R}":
        return Ordered("(", (Value(r"-\infty"), _INFINITY), ")")
    if (bracketed := _bracketed(text)) is not None:
        return bracketed
    if r"\pm" in text or r"\mp" in text:
        signs = [text.replace(r"\pm", plus).replace(r"\mp", minus) for plus, minus in (("+", "-"), ("-", "+"))]
        return Many(tuple(_read(sign.strip().removeprefix("+")) for sign in signs))
    return _value(text)


def _listed(parts: list[str], *, either: bool) -> Shape:
    r"""A list; the two values of a ``\pm`` are two of its parts, and one inequality or another is a union."""
    shapes: list[Shape] = []
    for part in parts:
        if part.strip():
            shape = _read(part)
            shapes += shape.parts if isinstance(shape, Many) and r"\pm" in part else [shape]
    names = {shape.name if isinstance(shape, Ordered) else "" for shape in shapes}
    if either and len(names) == 1 and "" not in names:
        return Union(tuple(shapes))
    return Many(tuple(shapes))


def _ungrouped(text: str) -> str:
    """Without braces around all of it."""
    while text.startswith("{") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at ``start`` is closed, or -1."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "([{":
            depth += 1
        elif text[place] in ")]}":
            depth -= 1
            if depth == 0:
                return place
    return -1


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The parts between separators that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        for separator in separators:
            if depth == 0 and text.startswith(separator, place) and text[place - 1 : place] != "_":
                parts.append(text[start:place])
                start = place + len(separator)
    return [*parts, text[start:]]


def _words(text: str) -> Text | None:
    r"""Words alone: all of it ``\text``, or with words among formulas."""
    if r"\text" not in text or _is_measured(text):
        return None
    inside = _TEXT.fullmatch(text)
    if inside and isinstance(_value(inside[1]).form, Fraction):
        return None
    if _OR.search(text) or _RELATION.search(text):
        return None
    plain = _STYLE.sub(" ", _TEXT.sub(r"\1", text)).replace("\\", " ")  # of other commands the names are words
    words = "".join(plain.split()).strip("()[].{}")
    return Text(words if len(words) == 1 else words.casefold())


def _is_measured(text: str) -> bool:
    """Whether it ends in what may be a unit: any word behind a number, a unit that is known behind a formula."""
    match = _UNIT.search(text)
    if match is None:
        return False
    is_formula = r"\text" not in text[: match.start()] and match.start() > 0
    return bool(re.search(r"\d", text)) or (is_formula and bool(_unit(_word(match), None)))


def _relation(text: str) -> Shape | None:
    """An equation or an inequality, or what is said to lie in a set."""
    places, depth = [], 0
    starts = {match.start(): match[0] for match in _RELATION.finditer(text)}
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if place in starts and depth == 0:
            places.append((place, starts[place]))
    if not places:
        return None
    ends = [place for place, _ in places[1:]] + [len(text)]
    parts = [text[: places[0][0]].strip()]
    parts += [text[place + len(sign) : end].strip() for (place, sign), end in zip(places, ends, strict=True)]
    signs = [sign for _, sign in places]
    if not all(parts):
        return None
    if r"\approx" in signs:  # behind it stands what is not exact
        return _read(text[: places[signs.index(r"\approx")][0]])
    if signs == [r"\in"]:
        return _read(parts[1]) if _is_name(parts[0]) else None
    if all(sign == "=" for sign in signs):
        return _equation(parts)
    return _inequality(parts, signs)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text) or _NAMES.fullmatch(text))


def _equation(parts: list[str]) -> Shape:
    if _is_name(parts[-1]) and not _is_name(parts[0]):
        parts = [parts[-1], *parts[:-1]]
    if _is_name(parts[0]):
        name = "" if _NAMES.fullmatch(parts[0]) else "".join(parts[0].split())
        return Equation(name, tuple(_read(part, outermost=True) for part in parts[1:]))
    return Equation("", tuple(_read(part, outermost=True) for part in parts))


def _inequality(parts: list[str], signs: list[str]) -> Shape | None:
    if signs == [r"\ne"]:
        return Inequality(f"{parts[0]}-({parts[1]})", r"\ne")
    if not all(sign in _SIDES for sign in signs):
        return None
    plain = [_SIDES[sign] for sign in signs]
    if all(sign in _TURNED for sign in plain):
        parts, plain = parts[::-1], [_TURNED[sign] for sign in plain[::-1]]
    if any(sign in _TURNED for sign in plain):
        return None
    brackets = {"<": ("(", ")"), r"\le": ("[", "]")}
    if len(parts) == 3 and _is_name(parts[1]):
        ends = (_read(parts[0]), _read(parts[2]))
        return Ordered(brackets[plain[0]][0], ends, brackets[plain[1]][1], name=parts[1])
    if len(parts) == 2 and _is_name(parts[0]) and not _has_letters(parts[1]):
        return Ordered("(", (Value(r"-\infty"), _read(parts[1])), brackets[plain[0]][1], name=parts[0])
    if len(parts) == 2 and _is_name(parts[1]) and not _has_letters(parts[0]):
        return Ordered(brackets[plain[0]][0], (_read(parts[0]), _INFINITY), ")", name=parts[1])
    return Inequality(f"{parts[0]}-({parts[1]})", plain[0]) if len(parts) == 2 else None


def _has_letters(text: str) -> bool:
    return bool(re.search(r"[A-Za-z]", _COMMAND.sub("", text)))


def _bracketed(text: str) -> Shape | None:
    opening = r"\{" if text.startswith(r"\{") else text[:1]
    closing = r"\}" if text.endswith(r"\}") else text[-1:]
    if (
        opening not in ("(", "[", r"\{")
        or closing not in (")", "]", r"\}")
        or _closing(text, len(opening) - 1) != len(text) - 1
    ):
        return None
    inside = text[len(opening) : -len(closing)]
    parts = _split(_OR.sub(", ", inside), (",", ";"))
    if opening == r"\{" and closing == r"\}":
        if len(_split(inside, ("|", ":", r"\mid"))) > 1:
            return None
        return _listed(parts, either=False)
    if len(parts) == 1:
        return _read(inside, outermost=True) if (opening, closing) == ("(", ")") else None
    return Ordered(opening, tuple(_read(part) for part in parts), closing)


def _value(text: str) -> Value:
    text = text.replace("$ ", "$")
    unit = ""
    money = re.match(r"([+-]?)\s*([$€£])\s*(?=[\d.\\])", text)
    if money:
        unit, text = money[2], money[1] + text[money.end() :]
    while (match := _UNIT.search(text)) and not (match[5] and _FUNCTION.search(text)):
        if _SAYS_MORE.search(word := _word(match)):
            break
        unit, text = unit or _unit(word, match[2] or match[4]), text[: match.start()].strip()
        if match[1] is None and unit[:1] in ("%", "°"):
            break
    if based := _BASE.fullmatch("".join(text.split())):
        text, unit = based[1], f"base {based[2]}"
    form = normal_form(text)
    return Value(form, unit, decimal_places(text.replace(" ", "")) if isinstance(form, Fraction) else None)


def _word(unit: re.Match[str]) -> str:
    """What stands for the unit."""
    return next(filter(None, (unit[1], unit[3], unit[5], unit[6], unit[7])), "")


def _unit(word: str, power: str | None) -> str:
    """The symbol of a unit that is known; other words, "apples", are no unit and are not read."""
    plain = word.casefold().strip(". ").replace(" per ", "/").replace("° ", "°")
    plain = plain.removeprefix("degrees ").removeprefix("degree ")
    if plain in ("percent", "pct", "%"):
        return "%"
    square, _, rest = plain.partition(" ")
    if square in ("square", "sq", "cubic", "cu"):
        plain, power = rest, "2" if square.startswith("sq") else "3"
    symbol = _UNIT_OF.get(plain) or _UNIT_OF.get(plain.removesuffix("s"))
    return f"{symbol}{'^' + power if power else ''}" if symbol else ""
