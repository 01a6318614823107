"""Calls of tools: what is read, what is refused, and what a program may do."""

import json

import pytest

from lightning_r1.rollout.calculator import Calculator
from lightning_r1.rollout.environment import Reply
from lightning_r1.rollout.tools import CalculatorTool, PythonTool, Tools, without_middle
from lightning_r1.types import Prompt

PROMPT = Prompt("p", "q", "q", (1,), {})


class Echo:
    argument = "text"

    def __call__(self, text):
        return Reply(text)


def asked(world, text):
    reply = world.open(PROMPT, 0).reply(text)
    return reply.text, reply.kind


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("<think>2*5=", "10", "ok"),
        ("<think>2*5=10+1=", "11", "ok"),
        ("yes! (2+3)*4 =", "20", "ok"),
        ("1/8=", "0.125", "ok"),
        ("2/3=", "0.666667", "ok"),
        ("3-5=", "-2", "ok"),
        ("9*9=x", "81", "ok"),  # the token that completed the call ran over it
        ("x=", "", "error"),
        ("1=2=", "", "error"),  # a mere number
        ("1/0=", "", "error"),
        ("9999999*9999999=", "", "error"),
        ("=", "", "error"),
        ("1+" * 400 + "1=", "", "error"),
        ("((((2*5=", "", "error"),
    ],
)
def test_the_calculator_answers_an_equals_sign(text, value, kind):
    assert asked(Calculator(), text) == (value, kind)


@pytest.mark.parametrize(
    ("text", "told", "kind"),
    [
        ('<think>so <tool name="echo">a\nb</tool>', "a\nb", "ok"),
        ('<tool name="echo">1</tool>\n<output>\n1\n</output>\n<tool name="echo">2</tool>', "2", "ok"),
        ('<tool name="echo">a < b <tool> </tool>\n', "a < b <tool> ", "ok"),
        ('<tool name="sing">la</tool>', "error: no tool 'sing'; there are echo, sum", "error"),
        ("nothing</tool>", 'error: a call is <tool name="...">...</tool>', "error"),
        (
            '<tool name="echo">1</tool>\n<output>\n1\n</output>\nso</tool>',
            'error: a call is <tool name="...">...</tool>',
            "error",
        ),
        ('<tool name="sum">1+1</tool>', "2", "ok"),
        ('<tool name="sum">import os</tool>', "error: characters other than digits and + - * / ( ) .", "error"),
    ],
)
def test_calls_in_tags(text, told, kind):
    world = Tools({"echo": Echo(), "sum": CalculatorTool()})
    assert asked(world, text) == (told, kind)
    reply = world.reply(text)
    assert (reply.open, reply.close) == ("\n<output>\n", "\n</output>\n")


@pytest.mark.parametrize(
    ("call", "told", "kind"),
    [
        ({"name": "echo", "arguments": {"text": "hi </tool_call> x"}}, "hi </tool_call> x", "ok"),
        ({"name": "echo", "arguments": {"words": "hi"}}, "error: echo takes the text 'text'", "error"),
        ({"name": "echo", "arguments": {"text": 5}}, "error: echo takes the text 'text'", "error"),
        ({"name": "sing", "arguments": {}}, "error: no tool 'sing'; there are echo", "error"),
        ({"name": "echo"}, 'error: a call is {"name": ..., "arguments": {...}}', "error"),
        ([1], 'error: a call is {"name": ..., "arguments": {...}}', "error"),
    ],
)
def test_calls_in_json(call, told, kind):
    world = Tools({"echo": Echo()}, form="json", open="<", close=">")
    assert asked(world, f"x <tool_call>\n{json.dumps(call)}\n</tool_call>") == (told, kind)
    assert (world.reply("").open, world.failure.close) == ("<", ">")


@pytest.mark.parametrize("call", ["{", "[" * 100_000, "", '{"name": NaN'])
def test_what_is_no_json_is_told(call):
    told, kind = asked(Tools({"echo": Echo()}, form="json"), f"<tool_call>{call}</tool_call>")
    assert kind == "error"
    assert told.startswith("error: the call is no JSON")


def test_what_tools_cannot_be_is_refused():
    with pytest.raises(ValueError, match="name at least one"):
        Tools({})
    with pytest.raises(ValueError, match="expected tag or json"):
        Tools({"echo": Echo()}, form="xml")
    with pytest.raises(ValueError, match="max_output_chars=3"):
        PythonTool(max_output_chars=3)


@pytest.fixture(scope="module")
def python():
    tool = PythonTool(time_limit_s=1.0, max_output_chars=200)
    tool.start()
    yield tool
    tool.close()


def test_programs_print(python):
    world = Tools({"python": python})
    assert asked(world, '<tool name="python">print(sum(range(10)))</tool>') == ("45", "ok")
    assert python("pass") == Reply("")


def test_what_goes_wrong_in_a_program_is_told(python):
    failed = python("print(1)\n1/0")
    assert failed.kind == "error"
    assert failed.text.startswith("1\nerror: error")
    assert "ZeroDivisionError" in failed.text
    assert python("def f(:").kind == "error"
    late = python("while True: pass")
    assert (late.kind, late.text.splitlines()[0]) == ("timeout", "error: time limit")
    long = python("print('x' * 5000)")
    assert len(long.text) <= 200
    assert "characters ..." in long.text
    assert python("import socket; socket.create_connection(('127.0.0.1', 80), 1)").kind == "error"
    assert python("print(2)") == Reply("2")  # and it goes on


def test_without_middle_keeps_both_ends():
    text = "a" * 100 + "b" * 100
    cut = without_middle(text, 60)
    assert len(cut) <= 60
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
    assert without_middle("short", 40) == "short"
