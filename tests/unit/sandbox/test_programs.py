"""What honest programs do works in a sandbox as it does outside."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from helpers.sandboxes import QUICK, one
from lightning_r1.sandbox.base import Limits, Program, Sandbox, SandboxError, Status, TestRun

STDIN = {
    "input": ("a = int(input()); b = int(input()); print(a + b)", "20\n22\n", "42\n"),
    "sys.stdin": ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "abc\ndef\n", "cba\nfed\n"),
    "readlines": ("import sys\nprint(len(sys.stdin.readlines()))", "a\nb\nc", "3\n"),
    "buffer": ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "1 2 3\n", "6\n"),
    "open(0)": ("print(open(0).read().upper(), end='')", "é\n", "É\n"),
    "os.read": ("import os\nos.write(1, os.read(0, 100))", "raw", "raw"),
    "fast output": ("import sys\nsys.stdout.write('x' * 3)\nsys.stdout.flush()\nprint('y')", "", "xxxy\n"),
    "rebound output": ("import sys, io\nsys.stdout = io.StringIO()\nprint(1)\nsys.__stdout__.write('2')", "", "2"),
    "atexit": ("import atexit\natexit.register(lambda: print('last'))\nprint('first')", "", "first\nlast\n"),
    "main": ("def main():\n    print('main')\nif __name__ == '__main__':\n    main()", "", "main\n"),
    "exit": ("print('early')\nexit_now = True\nimport sys\nsys.exit()\nprint('never')", "", "early\n"),
    "empty": ("", "", ""),
    "no end of input": ("try:\n    input()\nexcept EOFError:\n    print('eof')", "", "eof\n"),
    "classes": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(1), P.__module__)",
        "",
        "P(x=1) __main__\n",
    ),
    "thread for recursion": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
        "def f(n): return n and 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(20000)))\nt.start()\nt.join()",
        "",
        "20000\n",
    ),
    "standard library": (
        "import re, string, datetime, decimal, fractions, array, statistics, operator, queue, textwrap, zlib, uuid\n"
        "print(re.sub('a', 'b', 'aa'), decimal.Decimal('0.1'), fractions.Fraction(1, 3))",
        "",
        "bb 0.1 1/3\n",
    ),
    "own signal": (
        "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *a: print('got'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)",
        "",
        "got\n",
    ),
    "devnull": ("import os, sys\nsys.stderr = open(os.devnull, 'w')\nprint(1, file=sys.stderr)\nprint(2)", "", "2\n"),
}


@pytest.mark.parametrize("case", STDIN)
def test_programs_that_read_and_print(sandbox: Sandbox, case: str) -> None:
    source, data, expected = STDIN[case]
    run = one(sandbox, source, data)
    assert (run.status, run.output.decode()) == (Status.OK, expected), run.detail


FUNCTIONS: dict[str, tuple[str, str, list[Any], Any]] = {
    "plain": ("def add(a, b): return a + b", "add", [1, 2], 3),
    "method": ("class Solution:\n    def add(self, a: List[int]) -> int: return sum(a)", "add", [[1, 2]], 3),
    "prelude": (
        "class Solution:\n    def f(self, n: Optional[int]):\n"
        "        heap = []; heappush(heap, n); c = Counter('aab'); d = deque([1]); d2 = defaultdict(list)\n"
        "        return [heappop(heap), c['a'], len(d), bisect_left([1, 3], 2), inf > 1, list(accumulate([1, 2]))]",
        "f", [5], [5, 2, 1, 1, True, [1, 3]],
    ),
    "cache": ("@lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "f", [90], 2880067194370816120),
    "name of the prelude": ("class Solution:\n    def gcd(self, a): return 'own'", "gcd", [4], "own"),
    "own function of that name": ("def gcd(a): return 'own'", "gcd", [4], "own"),
    "tuple": ("def f(): return (1, 'é')", "f", [], [1, "é"]),
    "prints too": ("def f():\n    print('noise')\n    return None", "f", [], None),
    "deep recursion": ("def f(n): return n and 1 + f(n - 1)", "f", [20000], 20000),
    "nested data": ("def f(x): return {'k': x}", "f", [[{"a": [1.5, None, "😀"]}]], {"k": [{"a": [1.5, None, "😀"]}]}),
}  # fmt: skip


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_are_called(sandbox: Sandbox, case: str) -> None:
    source, function, arguments, expected = FUNCTIONS[case]
    run = one(sandbox, source, json.dumps(arguments), function=function)
    assert run.status is Status.OK, run.detail
    assert json.loads(run.output) == expected


FAILING = {
    "raises": ("1 / 0", Status.ERROR, "ZeroDivisionError"),
    "exit status": ("import sys\nsys.exit(3)", Status.ERROR, "exit status 3"),
    "exit with words": ("import sys\nsys.exit('why')", Status.ERROR, "why"),
    "third party": ("import torch", Status.ERROR, "No module named 'torch'"),
    "own signal": ("import os\nos.kill(os.getpid(), 11)", Status.ERROR, "signal 11"),
    "does not parse": ("print(", Status.COMPILE_ERROR, "SyntaxError"),
    "null byte": ("print(1)\0", Status.COMPILE_ERROR, ""),
    "surrogate": ("x = '\ud800'", Status.COMPILE_ERROR, ""),
    "return outside": ("return 1", Status.COMPILE_ERROR, "SyntaxError"),
    "too deep": ("(" * 5000 + ")" * 5000, Status.COMPILE_ERROR, ""),
    "endless minus": ("x = " + "-" * 200_000 + "1", Status.COMPILE_ERROR, ""),
    "memory": ("x = [0] * 10**10", Status.MEMORY_LIMIT, ""),
}


@pytest.mark.parametrize("case", FAILING)
def test_failures_are_told_apart(sandbox: Sandbox, case: str) -> None:
    source, status, detail = FAILING[case]
    run = one(sandbox, source)
    assert run.status is status
    assert detail in run.detail


def test_a_missing_function_is_the_programs_error(sandbox: Sandbox) -> None:
    run = one(sandbox, "x = 1", "[]", function="f")
    assert run.status is Status.ERROR
    assert "'f'" in run.detail


def test_a_value_that_json_cannot_hold_is_an_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "def f(): return {1, 2}", "[]", function="f").status is Status.ERROR


def test_tests_run_one_by_one_and_end_early(sandbox: Sandbox) -> None:
    seen: list[tuple[int, bytes]] = []

    def go_on(place: int, run: TestRun) -> bool:
        seen.append((place, run.output))
        return run.output != b"3"

    runs = sandbox.run(Program("print(int(input()) + 1, end='')"), ["0", "1", "2", "3"], QUICK, go_on=go_on)
    assert [run.output for run in runs] == [b"1", b"2", b"3"]
    assert seen == [(0, b"1"), (1, b"2"), (2, b"3")]


def test_no_input_compiles_only(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("print(1)"), []) == []
    assert [run.status for run in sandbox.run(Program("print("), [])] == [Status.COMPILE_ERROR]


def test_a_failed_test_does_not_touch_the_next(sandbox: Sandbox) -> None:
    source = "import math\nx = input()\nif x == 'bad':\n    math.pi = 3\n    1 / 0\nprint(math.pi > 3.1)"
    runs = sandbox.run(Program(source), ["ok", "bad", "ok"], QUICK)
    assert [run.status for run in runs] == [Status.OK, Status.ERROR, Status.OK]
    assert runs[2].output == b"True\n"


def test_megabytes_go_in_and_out(sandbox: Sandbox) -> None:
    data = "x" * 3_000_000
    run = one(sandbox, "d = open(0).read()\nprint(len(d))\nprint(d[:900_000], end='')", data)
    assert run.status is Status.OK
    assert run.output == b"3000000\n" + b"x" * 900_000
    run = one(sandbox, "def f(x): return len(x)", json.dumps([list(range(200_000))]), function="f")
    assert run.output == b"200000"


def test_output_just_within_the_limit_is_whole(sandbox: Sandbox) -> None:
    limits = Limits(wall_s=30, cpu_s=20, output_bytes=1000)
    assert one(sandbox, "print('x' * 1000, end='')", limits=limits).status is Status.OK
    over = one(sandbox, "print('x' * 1001, end='')", limits=limits)
    assert (over.status, len(over.output)) == (Status.OUTPUT_LIMIT, 1000)


def test_the_same_program_says_the_same_twice(sandbox: Sandbox) -> None:
    source = "import random\nprint(list({'a', 'b', 'c', 'd', 'e'}), random.random(), hash('x'))"
    first, second = sandbox.run(Program(source), ["", ""], QUICK)
    sandbox.close()  # the next keeper is another one
    assert first.output == second.output == one(sandbox, source).output


def test_programs_run_at_once_from_many_threads(sandbox: Sandbox) -> None:
    found: dict[int, list[bytes]] = {}

    def ask(number: int) -> None:
        runs = sandbox.run(Program(f"print(int(input()) * {number})"), ["1", "2", "3"], QUICK)
        found[number] = [run.output for run in runs]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [f"{n}\n".encode(), f"{2 * n}\n".encode(), f"{3 * n}\n".encode()] for n in range(8)}


CPP = """
#include <bits/stdc++.h>
using namespace std;
int main() {
    long long n, sum = 0; cin >> n;
    vector<long long> v(n); for (auto &x : v) cin >> x;
    sort(v.begin(), v.end());
    for (auto x : v) sum += x;
    cerr << "noise"; cout << sum << "\\n"; return n == 0;
}
"""


def test_cpp_is_compiled_once_and_run_per_test(sandbox: Sandbox) -> None:
    runs = sandbox.run(Program(CPP, "cpp"), ["2\n20 22\n", "0\n", "1\n7\n"], QUICK)
    assert [(run.status, run.output) for run in runs] == [
        (Status.OK, b"42\n"), (Status.ERROR, b"0\n"), (Status.OK, b"7\n"),
    ]  # fmt: skip


def test_cpp_that_does_not_compile_says_why(sandbox: Sandbox) -> None:
    runs = sandbox.run(Program("int main() { return x; }", "cpp"), ["", ""], QUICK)
    assert [run.status for run in runs] == [Status.COMPILE_ERROR]
    assert "x" in runs[0].detail


def test_cpp_recursion_may_be_deep(sandbox: Sandbox) -> None:
    source = "#include <cstdio>\nlong f(long n) { volatile char a[64]; a[0] = 1; return n ? a[0] + f(n - 1) : 0; }\n"
    run = one(sandbox, source + 'int main() { printf("%ld", f(500000)); }', language="cpp")
    assert (run.status, run.output) == (Status.OK, b"500000"), run.detail


def test_functions_in_cpp_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"C\+\+ programs read stdin"):
        sandbox.run(Program("int f() { return 1; }", "cpp", "f"), ["[]"])
