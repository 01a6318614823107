"""Programs in completions: which block is taken, and what is none."""

from __future__ import annotations

import time

import pytest

from lightning_r1.text.code import MOST_CHARACTERS, Block, blocks, find_program
from lightning_r1.text.tags import Tags

TAGS = Tags()
PY, CPP = "print(1)\n", "int main() {}\n"


def source(after: str, *languages: str) -> str | None:
    found = find_program(f"<think>hm</think>{after}", TAGS, languages or ("python",))
    return found.source if found else None


@pytest.mark.parametrize(
    "after",
    [
        "```python\nprint(1)\n```",
        "```py\nprint(1)\n```",
        "```Python3\nprint(1)\n```\n",
        "```python3.11\nprint(1)\n```",
        "``` python \nprint(1)\n```  ",
        "```{.python}\nprint(1)\n```",
        "```python title=a.py\nprint(1)\n```",
        "```\nprint(1)\n```",
        "````python\nprint(1)\n````",
        "\n\nMy program:\n\n```python\nprint(1)\n```\n\nIt is right.",
        "<answer>```python\nprint(1)\n```</answer>",
        "<answer>\n```\nprint(1)\n``` </answer>",
        "<answer>```\nprint(1)\n```</answer>",
        "Here it is: ```python\nprint(1)\n```",
        "1. Do:\n   ```python\n   print(1)\n   ```",
    ],
)
def test_a_block_is_the_program(after: str) -> None:
    assert source(after) == PY


@pytest.mark.parametrize(
    "after",
    [
        "",
        "print(1)",
        "`print(1)`",
        "```print(1)```",
        "```python print(1)```",
        "```python\nprint(1)",  # cut
        "```python\nprint(1)\n``",
        "````python\nprint(1)\n```",  # a shorter fence closes nothing
        "```python\n```",
        "```python\n \n\t\n```",
        '```json\n{"print": 1}\n```',
        "```cpp\nint main() {}\n```",  # not what is asked for
        "Say ```\nprint(1)\n```",  # a sentence that ends with a fence
        "```python\nprint('\ud800')\n```",
        "```python\n" + "1\n" * MOST_CHARACTERS + "```",
    ],
)
def test_no_program(after: str) -> None:
    assert source(after) is None


def test_the_last_block_that_names_the_language_counts() -> None:
    draft, last, sample = "```python\nprint(0)\n```\n", "```python\nprint(1)\n```\n", "It prints\n```\n1\n```\n"
    assert source(draft + last) == PY
    assert source(draft + last + sample) == PY
    assert source(last + "```json\n{}\n```") == PY
    assert source(last + "Or better:\n```python\nprint(") == PY  # what is not whole is not given
    assert source("```\nprint(0)\n```\n```\nprint(1)\n```") == PY  # none names it


def test_what_is_thought_is_no_program() -> None:
    block = "```python\nprint(1)\n```"
    for text in (block, f"<think>{block}", f"<think>{block}</think>", f"<think>{block}</think>So it is."):
        assert find_program(text, TAGS) is None
    # a closing tag in the answer ends the thinking as well: the last one does
    assert find_program(f"<think></think>{block}</think>", TAGS) is None
    other = Tags(think_open="[", think_close="]")
    assert find_program(f"[]{block}", other) == Block(PY, "python")


def test_languages() -> None:
    text = "<think></think>```c++17\nint main() {}\n```\n```python\nprint(1)\n```"
    assert find_program(text, TAGS, ("cpp",)) == Block(CPP, "cpp")
    assert find_program(text, TAGS, ("cpp", "python")) == Block(PY, "python")  # the last
    bare = "<think></think>```\nint main() {}\n```"
    assert find_program(bare, TAGS, ("cpp", "python")) == Block(CPP, "cpp")
    for name in ("cpp", "C++", "cc", "cxx", "c++20"):
        assert source(f"```{name}\nint main() {{}}\n```", "cpp") == CPP


def test_what_stands_in_a_program_stays() -> None:
    body = 'def f():\n    """\n    ````\n    """\n    s = "```x"\n    return "<answer>"\n\n\tx\n'
    assert source(f"````python\n{body.replace('    ````', '    ```')}````") == body.replace("    ````", "    ```")
    assert source(f"```python\n{body.replace('    ````', '    `')}```") == body.replace("    ````", "    `")
    assert source("  ```python\n    if 1:\n  x\n y\n  ```") == "  if 1:\nx\ny\n"


@pytest.mark.parametrize(
    "hostile",
    ["`" * 190_000, "```\n" * 45_000, "```a" * 45_000, "``` `" * 35_000, " " * 190_000 + "```", "\n" * 190_000],
)
def test_it_takes_one_pass(hostile: str) -> None:
    started = time.perf_counter()
    find_program("<think></think>" + hostile, TAGS)
    list(blocks(hostile, TAGS))
    find_program("<think></think>" + hostile * 100, TAGS)  # refused unread
    assert time.perf_counter() - started < 2
