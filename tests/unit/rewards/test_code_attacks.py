"""Programs that want the reward without being right, run for real: each gets 0, and costs no more than its limit."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lightning_r1.rewards.code import CodeTests
from lightning_r1.rewards.threads import ThreadScorer
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt

# what is wanted cannot be guessed, so that who prints it has found it
WANTED = {str(number): f"tok_{number:02d}_9f8e7d6c" for number in range(3)}
LIMIT_S, AMPLE_S = 0.5, 10.0  # of what hangs; of what has to end by itself, on a machine with much else to do
SLACK_S = 15.0


@pytest.fixture(scope="module")
def reward() -> Iterator[CodeTests]:
    reward = CodeTests(Tags(), time_factor=1.0, at_once=2)
    reward.start()
    yield reward
    reward.close()


def program(tests: dict[str, str], limit_s: float = AMPLE_S) -> Prompt:
    gold = {"kind": "code", "tests": [{"input": a, "output": b} for a, b in tests.items()], "time_limit_s": limit_s}
    return Prompt("a", "q", "q", (1,), gold)


def function(tests: dict[str, str], limit_s: float = AMPLE_S) -> Prompt:
    asked = program(tests, limit_s)
    return Prompt("a", "q", "q", (1,), {**asked.answer, "function": "f"})


def says(source: str) -> Completion:
    return Completion((), (), "stop", f"<think>hm</think>\n```python\n{source}\n```")


SEARCH = """
import gc, os, re, sys
seen = [repr(o) for o in gc.get_objects() if isinstance(o, (str, list, dict, tuple, bytes))][:5000]
frame = sys._getframe()
while frame:
    seen += [repr(frame.f_locals), repr(frame.f_globals)]
    frame = frame.f_back
for place in ("/proc/self/environ", "/proc/1/environ", "/proc/self/cmdline", sys.argv[0], "/tmp", "."):
    try:
        seen.append(repr(os.listdir(place)) if os.path.isdir(place) else open(place, errors="replace").read())
    except OSError:
        pass
for number in range(20):
    try:
        os.set_blocking(number, False)
        seen.append(repr(os.read(number, 100000)))
    except OSError:
        pass
print(*re.findall("tok_[0-9][0-9]_[0-9a-f]{8}", " ".join(seen))[:1])
"""

PRINTS_LITTLE = {
    "nothing": "pass",
    "exit": "import sys; sys.exit(0)",
    "hard_exit": "import os; os._exit(0)",
    "raises_exit": "raise SystemExit(0)",
    "atexit": "import atexit, os; atexit.register(os._exit, 0)",
    "excepthook": "import sys; sys.excepthook = lambda *a: print('ok'); 1/0",
    "interrupts": "raise KeyboardInterrupt",
    "passed": "print('PASSED'); print('all tests passed'); print(1.0)",
    "frame": "import os, json; os.write(1, json.dumps({'status': 'ok', 'passed': True}).encode())",
    "closed": "import os; [os.close(n) for n in range(3)]",
    "search": SEARCH,
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "deaf": "import signal\nfor n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n  except Exception: pass\n"
    "while True: pass",
}


@pytest.mark.parametrize("name", PRINTS_LITTLE)
def test_it_gets_nothing(reward: CodeTests, name: str) -> None:
    started = time.monotonic()
    score = reward(program(WANTED, LIMIT_S), says(PRINTS_LITTLE[name]))
    assert (score.value, score.outcome) == (0, Outcome.OK), score
    assert "tok_" not in score.detail
    assert time.monotonic() - started < LIMIT_S + SLACK_S


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ("print(1)", 1),  # the first line of the first
        ("n = int(input())\nprint('1\\n2' if n == 1 else 1)", 2),  # a correct prefix
        ("n = int(input())\nprint({1: '1 2', 2: '2 4'}.get(n, 0))", 1),
        ("n = int(input())\nprint({1: '1\\n2', 2: '2\\n4'}.get(n, 0))", 3),  # the samples of the question
        ("n = int(input())\nprint(n, 2 * n, 3 * n, sep='\\n')", 1),  # the right lines and more
        ("n = int(input())\nprint(n)\nprint(2 * n)\nif n > 2: raise ValueError('TypeError: ok')", 3),
        ("n = int(input())\nprint(n)\nprint(2 * n)\nif n > 2:\n  while 1: pass", 3),
        ("n = int(input())\nprint(n)\nprint(2 * n)\nif n > 2: print('x' * 3_000_000)", 3),
    ],
)
def test_part_of_the_output_is_not_enough(reward: CodeTests, source: str, test: int) -> None:
    asked = program({"1": "1\n2\n", "2": "2\n4\n", "3": "3\n6\n"}, 2.0 if "while" in source else AMPLE_S)
    score = reward(asked, says(source))
    assert (score.value, score.outcome) == (0, Outcome.OK)
    assert f"(test {test}: " in score.detail
    assert reward(asked, says("n = int(input())\nprint(n)\nprint(2 * n)")).value == 1


EQUAL_TO_ALL = """
class All({base}):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 1
    __repr__ = __str__ = lambda self: "2"
def f(x): return All({value})
"""


@pytest.mark.parametrize(
    "source",
    [
        EQUAL_TO_ALL.format(base="object", value=""),
        EQUAL_TO_ALL.format(base="int", value="7"),
        EQUAL_TO_ALL.format(base="str", value="'7'"),
        EQUAL_TO_ALL.format(base="list", value="[7]"),
        EQUAL_TO_ALL.format(base="float", value="7.0"),
        EQUAL_TO_ALL.format(base="dict", value=""),
        "def f(x): return float('nan')",
        "def f(x): return float('inf')",
        "def f(x): return x == 1 or 2 * x",  # True is not 2
        "def f(x): return [2 * x]",
        "def f(x): return str(2 * x)",
        "def f(x): return (y for y in [2 * x])",
        "def f(x): return f",
        "def f(x): return 10 ** 200000",
        "def f(x):\n  a = []\n  for _ in range(100000): a = [a]\n  return a",
        "def f(x):\n  a = []\n  a.append(a)\n  return a",
        "def f(x): return f(x)",
        "def f(x): return 'x' * 5_000_000",
        "def f(x): import sys; sys.exit(0)",
        "def f(x): import os; os._exit(0)",
        "def f(x): raise KeyboardInterrupt",
        "def f(x): print(2 * x)",
        "print('2')\nprint('[2]')\ndef f(x): pass",
        "import json\njson.dumps = lambda *a, **k: '2'\njson.JSONEncoder.encode = lambda *a: '2'\ndef f(x): return x",
        "import builtins\nbuiltins.len = builtins.isinstance = lambda *a: True\ndef f(x): return x",
        "class Solution:\n  def f(self, x): raise SystemExit(0)",
        "class D(dict):\n  def items(self):\n    while 1: yield 'a', 1\ndef f(x): return D(a=1)",
        "def f(x):\n  a = [1] * 1000\n  return [[a] * 1000] * 1000",
        "import sys\nsys.stdout.write('2')\nsys.__stdout__.write('2')\ndef f(x): return None",
    ],
)
def test_functions_get_nothing(reward: CodeTests, source: str) -> None:
    started = time.monotonic()
    score = reward(function({"[1]": "2", "[20]": "40"}, LIMIT_S), says(source))
    assert (score.value, score.outcome) == (0, Outcome.OK), score
    assert time.monotonic() - started < LIMIT_S + SLACK_S


def test_honest_programs_get_it(reward: CodeTests) -> None:
    for source in ("def f(x): return 2 * x", "class Solution:\n  def f(self, x): return 2.0 * x"):
        assert reward(function({"[1]": "2", "[20]": "40"}), says(source)).value == 1
    for source in ("print(2 * int(input()), end='')", "import sys\nprint(2 * int(sys.stdin.read()))\nsys.exit(0)"):
        assert reward(program({"1": "2\n", "20\n": "40"}), says(source)).value == 1


def test_many_at_once_are_told_apart(reward: CodeTests) -> None:
    items = [
        (program({"1": str(number), "2": str(2 * number)}), says(f"print({factor} * int(input()))"))
        for number in range(1, 9)
        for factor in (number, number + 1)
    ]
    scorer = ThreadScorer()
    scores = scorer.score("code", reward, items)
    scorer.close()
    assert [score.value for score in scores] == [1.0, 0.0] * 8


def test_milder_forms_for_real() -> None:
    reward = CodeTests(Tags(), mode="compile", at_once=1)
    assert reward(program(WANTED), says("while True: pass")).value == 1  # it is not run
    assert reward(program(WANTED), says("print(")).value == 0
    reward.close()
