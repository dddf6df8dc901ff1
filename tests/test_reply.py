"""Tests of chapter 3a, the reply: properties first, then tables of real slips.

Rows of the tables are literal replies; each says in words where its shape comes from.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca

# ------------------------------------------------------------------------------------------------
# Generators
# ------------------------------------------------------------------------------------------------
LS = '<tool>{"name":"run_shell","args":{"command":"ls"}}</tool>'
PIECES = (
    *(
        "a",
        "word ",
        " ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x7f",
        "\x85",
    ),
    *("\u200b", "\u2028", "\ufeff", "\u202e", "\ud800", "\udc80", "\udfff", "\xe9", "\U0001f642"),
    *("<tool>", "</tool>", "<tool ", '<tool name="write_file" path="x.py">', "</tool", LS),
    *("<content>", "</content>", "<old_text>", "</old_text>", "<new_text>", "</new_text>"),
    *("<final>", "</final>", "<think>", "</think>", "<tool_call>", "</tool_call>", "</final"),
    *("<function=run_shell>", "<parameter=command>", "</function>", "[TOOL_CALLS]", "[ARGS]"),
    *("```", "```python\n", "\n```\n", "`", "~~~\n", "&lt;", "&amp;", "&#10;", "<![CDATA[", "]]>"),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "\\",
        "\\n",
        "\\d",
        "\\u0041",
        "//",
        "/*",
        "*/",
        "#",
        ",",
        ",}",
    ),
    *("> ", "\u201c", "\u201d", "True", "None", '{"name":"run_shell","args":{"command":"ls"}}'),
    *("<invoke name='run_shell'>", "<|im_end|>", "\uff5c", "<!--", "-->", "\u2581", "<br/>"),
)
HERE = Path(__file__).resolve().parent
SOURCES = sorted([*HERE.glob("*.py"), *HERE.glob("*.md"), *HERE.parent.glob("*.md")])


def some_text(rng: random.Random, most: int = 24) -> str:
    """Return text made of what is likely to upset a parser."""
    text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))
    return re.sub("([\ud800-\udbff])(?=[\udc00-\udfff])", r"\1.", text)  # a pair is one character


def wrapped(text: str) -> bool:
    """Tell whether a fence may stand around the whole text (parse takes that away, by rule)."""
    bare = text.strip()
    return bare.startswith(("```", "~~~")) or bare.endswith(("```", "~~~"))


def some_calls(
    seed: int, count: int, risky: bool | None = None, most: int = 24
) -> Iterator[mca.Call]:
    """Yield calls of every tool, with arbitrary text in their arguments."""
    rng = random.Random(seed)
    while count:
        name = rng.choice([*mca.TOOLS, "write_file", "patch_file", "frobnicate"])
        tool = mca.TOOLS.get(name)
        if risky is not None and risky != (tool is None or tool.risky):
            continue
        args: dict[str, Any] = {
            "path": "a b.py",
            "depth": 3,
            "deep": {"x": [1, None, True, "</tool>"]},
        }
        if tool:
            args = {key: some_text(rng, most) for key in tool.params if key not in tool.defaults}
            for key, param in tool.params.items():
                if key not in args and rng.random() < 0.4:
                    args[key] = (
                        rng.randrange(99) if isinstance(param.default, int) else some_text(rng, 4)
                    )
        if "path" in args and rng.random() < 0.7:
            args["path"] = rng.choice(["x.py", "src/a b.md", 'odd "name".txt', "a>b.c", "<tool>"])
        if name == "write_file" and wrapped(args["content"]):
            args["content"] = "x" + args["content"] + "\nx"
        count -= 1
        yield mca.Call(name, args)


def same(got: object, want: object) -> bool:
    """Compare replies; the note is for people, and "7" is as good as 7 where a number belongs."""
    if isinstance(got, mca.Call) and isinstance(want, mca.Call):
        return got.name == want.name and plain(got.args) == plain(want.args)
    if isinstance(got, mca.Final) and isinstance(want, mca.Final):
        return got.text == want.text
    return False


def risky(reply: object) -> bool:
    """Tell whether this is a call that can change something; unknown tools may."""
    return isinstance(reply, mca.Call) and getattr(mca.TOOLS.get(reply.name), "risky", True)


def plain(args: dict[str, Any]) -> dict[str, Any]:
    numbers = ("start", "end", "timeout", "max_steps")
    return {key: str(value) if key in numbers else value for key, value in args.items()}


# ------------------------------------------------------------------------------------------------
# Properties
# ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(8))
def test_what_render_writes_parse_reads_back(seed: int) -> None:
    for call in some_calls(seed, 100):
        assert mca.parse(mca.render(call)) == call, mca.render(call)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_whole_files_survive_the_round_trip(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    crlf = text.replace("\n", "\r\n")
    for body in (text, crlf, text[: len(text) // 2], "\n" + text, text + "\n\n", text.rstrip()):
        for call in (
            mca.Call("write_file", {"path": "x.txt", "content": body}),
            mca.Call("patch_file", {"path": "x.txt", "old_text": body, "new_text": body[::-1]}),
            mca.Call("run_shell", {"command": body}),
        ):
            assert mca.parse(mca.render(call)) == call


@pytest.mark.parametrize("gap", ["", "\n", " ", "\r\n", "\n\n", "\t\n", "\r"])
def test_the_ends_of_a_content_survive_the_round_trip(gap: str) -> None:
    for body in ("", "x", "x\ny", "<a>\n</a>", "<![CDATA[x\ny]]>", "&lt;\n&gt;", "```", "{\n}"):
        for text in (gap + body, body + gap, gap + body + gap):
            call = mca.Call("write_file", {"path": "x.md", "content": text})
            assert mca.parse(mca.render(call)) == call
            call = mca.Call("patch_file", {"path": "x.md", "old_text": text, "new_text": body})
            assert mca.parse(mca.render(call)) == call


def test_code_is_rendered_raw_and_what_raw_cannot_carry_is_rendered_as_json() -> None:
    code = mca.Call("write_file", {"path": "x.py", "content": 'a = "1"\nb = 2\n'})
    assert mca.render(code) == (
        '<tool name="write_file" path="x.py"><content>\na = "1"\nb = 2\n</content></tool>'
    )
    for text in ("a\n</content>\nb", "a\n</tool>\nb", "a\n<![CDATA[b]]>\n</tool>"):
        assert mca.render(mca.Call("write_file", {"path": "x", "content": text}))[:7] == "<tool>{"


def test_a_rendered_call_can_be_written_to_a_file_as_utf8() -> None:
    for call in some_calls(77, 200):
        mca.render(call).encode("utf-8")


@pytest.mark.parametrize("seed", range(4))
def test_no_prefix_of_a_risky_call_yields_a_call(seed: int) -> None:
    rng = random.Random(seed)
    for call in some_calls(100 + seed, 30, risky=True, most=14):
        text = mca.render(call)
        ends = {*range(max(0, len(text) - 60), len(text)), *rng.sample(range(len(text)), 20)}
        for end in ends:
            for cut in (False, True):
                got = mca.parse(text[:end], cut)
                assert not isinstance(got, mca.Call), (text[:end], got)
            assert not mca.finished(text[:end]), text[:end]


def test_a_prefix_of_a_reading_call_yields_that_call_or_none() -> None:
    for call in some_calls(200, 30, risky=False, most=8):
        text = mca.render(call)
        for end in range(len(text)):
            got = mca.parse(text[:end])
            assert not isinstance(got, mca.Call) or same(got, call), text[:end]
            assert not isinstance(mca.parse(text[:end], True), mca.Call), text[:end]


@pytest.mark.parametrize(
    "around",
    [
        "<think>{}</think>",
        "<think>\n{}\n</think>\nAll done.",
        "<THINK>{}</THINK><final>done</final>",
        "<thinking>{}</thinking>\nDone.",
        '<reasoning effort="high">{}</reasoning>',
        "<thought>{}",
        "{}</think>\nDone.",
        "<think>{}",
        "<final>{}</final>",
        "<final>Write this:\n{}\n</final>\nBye",
        "<FINAL>{}",
        "Use it so: `{}`",
        "Use it so: `` {} ``.",
        '<tool name="write_file" path="doc.md"><content>\n{}\n</content></tool>',
        '<tool name="write_file" path="doc.md"><content>\n{}\n',
    ],
)
def test_a_call_inside_something_else_is_not_run(around: str) -> None:
    for call in some_calls(300, 60, risky=True, most=10):
        text = mca.render(call)
        if "`" in around and ("`" in text or "\n" in text):
            continue
        got = mca.parse(around.replace("{}", text))
        assert not isinstance(got, mca.Call), (around.replace("{}", text), got)


def test_a_call_quoted_in_another_calls_argument_is_only_text() -> None:
    for call in some_calls(400, 200):
        outer = mca.Call(
            "write_file", {"path": "doc.md", "content": f"# Doc\n{mca.render(call)}\n"}
        )
        assert mca.parse(mca.render(outer)) == outer
        outer = mca.Call("run_shell", {"command": f"echo '{mca.render(call)}'"})
        assert mca.parse(mca.render(outer)) == outer


# ------------------------------------------------------------------------------------------------
# When a stream may be stopped
# ------------------------------------------------------------------------------------------------
LEADS = ("", "I'll do that now.\n", "<think>\nLet me see.\n</think>\n", "Sure:\n\n")


def stops(text: str) -> int | None:
    """Return after how many characters a stream of this text would be stopped."""
    return next((end for end in range(len(text) + 1) if mca.finished(text[:end])), None)


@pytest.mark.parametrize("lead", LEADS)
def test_a_stream_stops_at_the_end_of_a_call_and_never_in_its_middle(lead: str) -> None:
    for call in some_calls(500, 25, most=12):
        text = lead + mca.render(call)
        if "</tool>" != text[-7:] or "<tool>{" != text[len(lead) :][:7]:
            continue
        prose = lead.strip() and not lead.startswith("<think>")  # may turn out as thinking
        assert stops(text + "x" * 300) == (None if prose else len(text)), text
        assert same(mca.parse(text), call), text


def test_a_call_after_prose_that_turns_out_as_thinking_does_not_stop_a_stream() -> None:
    call = '<tool>{"name":"run_shell","args":{"command":"rm x"}}</tool>'
    text = f"Hmm, maybe {call} but no, that is wrong.\n</think>\n<final>nothing</final>"
    assert stops(text) == len(text) and mca.parse(text) == mca.Final("nothing")


def test_after_a_raw_block_a_stream_reads_on_unless_the_next_call_or_a_result_begins() -> None:
    call = mca.Call("write_file", {"path": "x.py", "content": 'a = "<b>"\nif a:\n    pass\n'})
    text = mca.render(call)
    assert text.endswith("</content></tool>")
    assert stops(text + "\nx" * 300) is None
    for after in ("\n<tool ", "\n[tool:"):
        assert stops(text + after) == len(text + after)
        assert same(mca.parse(text + after), call)


def test_prose_and_a_call_are_stopped_when_the_model_invents_the_result() -> None:
    text = f"I list the files.\n{LS}\n[tool"
    assert stops(text + ":run_shell]\na.py\n") == len(text)


def test_a_second_end_tag_makes_a_raw_block_unreadable_however_far_it_is() -> None:
    raw = '<tool name="write_file" path="x.md"><content>\nEnd with\n</content></tool>\n'
    text = raw + "x" * 3000 + "\n</content></tool>"
    assert stops(text) is None
    assert isinstance(mca.parse(text), mca.Malformed)


def test_a_second_end_tag_soon_after_a_raw_block_makes_the_reply_unreadable() -> None:
    text = (
        '<tool name="write_file" path="x.md"><content>\na\n</content></tool>\nb\n</content></tool>'
    )
    assert stops(text) is None
    assert isinstance(mca.parse(text), mca.Malformed)


def test_a_stream_stops_at_the_end_of_an_answer() -> None:
    text = "<final>Use `</final` carefully.\nBye.</final>"
    assert stops(text) == len(text)
    assert stops("So.\n" + text + "\n<tool>") == len("So.\n" + text)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{LS}",
        f"<think>\nFirst {LS} then\n",
        f"<think>a</think>\n<think>{LS}",
        f"Write `{LS}` to list",
        f"> {LS}\n",
        f'The prompt says "{LS}" and',
        "<think><final>x</final>",
        "`<final>x</final>` is how to answer",
        '<tool>{"name":"run_shell","args":{"command":"echo \'</tool>\'',
        '<tool>{"name":"run_shell","args":{"command":"echo \\"</tool>',
        '<tool>{"name":"write_file","args":{"path":"a","content":"</tool></tool><final>x</final>',
        '<tool name="write_file" path="x"><content>\n<final>x</final>\n</tool>\n' + "x" * 400,
        '<tool name="write_file" path="x"><content>\n' + LS + "\n" + "x" * 400,
        '{"name":"run_shell","args":{"command":"ls"}}\n' + "x" * 400,
        '<tool_call>\n{"name":"read_file","arguments":{"path":"a"}}\n</tool_call>\n' + "x" * 400,
        '<invoke name="read_file"><parameter name="path">a</parameter></invoke>' + "x" * 400,
        "[TOOL_CALLS]" + 'read_file[ARGS]{"path":"a"}' + "x" * 400,
    ],
)
def test_a_stream_is_not_stopped_by_what_is_no_call(text: str) -> None:
    assert stops(text) is None


@pytest.mark.parametrize("seed", range(4))
def test_whenever_a_stream_stops_the_reply_can_be_read_and_more_text_changes_nothing(
    seed: int,
) -> None:
    rng = random.Random(seed)
    for call in some_calls(600 + seed, 60, most=6):
        text = some_text(rng, 6) + rng.choice(["", "\n"]) + mca.render(call) + some_text(rng, 4)
        end = stops(text)
        if end is None:
            continue
        got = mca.parse(text[:end])
        if isinstance(got, mca.Malformed):
            continue  # stopping at what nobody can read is no harm
        for tail in ("\nOk.", "\n<final>Done.</final>", f"\n{LS}"):
            assert same(mca.parse(text[:end] + tail), got), (text[:end] + tail, got)


def test_for_a_canonical_reply_the_stopped_part_reads_like_the_whole() -> None:
    for lead in LEADS:
        for call in some_calls(700, 20, most=10):
            whole = lead + mca.render(call)
            for end in range(len(whole) + 1):
                if mca.finished(whole[:end]):
                    assert mca.parse(whole[:end]) == mca.parse(whole)


# ------------------------------------------------------------------------------------------------
# Bounded time, and no exception whatever comes
# ------------------------------------------------------------------------------------------------
NASTY = (
    *("a", "<", "{", "[", "(", '"', "'", "`", "\\", "\n", " ", "&", ">", "/", "#", "\t", ":", "="),
    *("<tool ", "<tool>", '<tool>{"a":', "<think>", "</think>", "<final>", "</final>", "</tool>"),
    *("```\n", "```json\n", "<tool_call>", "[TOOL_CALLS]", "<content>", "<function=", "<|", "/*"),
    *('{"name":', "<invoke name=", '<tool name="', "`<tool>", "> <tool>", "call:x{", "<![CDATA["),
    *(
        "\x00",
        "\ud800",
        "\ufeff",
        "<tool>{",
        "{}",
        "[{",
        '{"',
        '"\\',
        "<tool>`",
        "<a ",
        "</",
        "<!--",
    ),
    *(
        LS,
        "<parameter=x>",
        "<arg_key>",
        "list_files(",
        "<tool name='x' ",
        "]]>",
        "\u201c",
        "\r",
        "//",
    ),
    *('<tool name="write_file" path="x"><content>', "</content>", '{"name":"run_shell","args":{'),
    *(
        "<read_file><path>",
        "<\uff5ctool\u2581call\u2581begin\uff5c>",
        '<|"|>',
        "<tool>{'a': '",
        "/*\n",
        '"/*\\',
        "<escape>,",
        '<\\|"|> ',
        "functools [\u201c\n\n",
        "functools ['\n\n",
        "{\u201cname\u201d:\u201c",
        "{a:",
        "<a><b>",
        "```\n<|python_tag|>[\u201c\n",
        "[THINK]",
        "<pre>",
        "a\n\n    b",
    ),
)
STARTS = ("", '<tool>{"name":"run_shell","args":{"command":"', '{"name":"read_file","args":')


def seconds(text: str) -> float:
    """Measure the processor time of one reading."""
    begin = time.process_time()
    mca.parse(text)
    mca.finished(text)
    return time.process_time() - begin


@pytest.mark.parametrize("unit", NASTY, ids=repr)
def test_four_times_the_text_takes_about_four_times_as_long(unit: str) -> None:
    for start in STARTS:
        small, large = (start + unit * (length // len(unit)) for length in (2_000, 8_000))
        # Other load may disturb one measurement, but not three.
        tries = ((seconds(small), seconds(large)) for _ in range(3))
        assert any(high < 12 * max(low, 0.004) for low, high in tries), unit


@pytest.mark.parametrize(
    "text",
    [
        *(char * 100_000 for char in "a<{[\"'`\\ \n&>"),
        *(
            unit * (40_000 // len(unit))
            for unit in ("<content>", '{"name":', "<arg_key>", "<a></a>")
        ),
        '{"name":"read_file","args":' + "/*\n" * 10_000,
        "<tool " * 20_000,
        "<tool>" * 20_000,
        "<final>" * 20_000,
        "[" * 10_000 + "]" * 10_000,
        "<tool>" + "[" * 10_000 + "]" * 10_000 + "</tool>",
        '<tool>{"name":"list_files","args":' + '{"a":' * 10_000 + "1" + "}" * 10_001 + "</tool>",
        '<tool>{"name":"list_files","args":{"path":' + "9" * 20_000 + "}}</tool>",
        "".join(map(chr, range(32))) * 1000,
        "\ud800\udfff" * 20_000,
        "<tool>{'name': " + "(" * 10_000 + "</tool>",
        "<tool>{'name': " + "-" * 10_000 + "1}</tool>",
        '<tool name="x">' + "".join(f"<a{n}>x</a{n}>" for n in range(8_000)) + "</tool>",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_large_nonsense_is_read_quickly(text: str) -> None:
    begin = time.process_time()
    assert isinstance(mca.parse(text), mca.Call | mca.Final | mca.Malformed)
    mca.finished(text)
    assert time.process_time() - begin < 1.5


def test_no_text_raises() -> None:
    rng = random.Random(9)
    for _ in range(1500):
        text = some_text(rng, 16)
        for cut in (False, True):
            assert isinstance(mca.parse(text, cut), mca.Call | mca.Final | mca.Malformed)
        mca.finished(text)


@pytest.mark.parametrize("unit", ["<p>a</p> ", "</tool> ", "a <tool/> ", "<b><i>x</i></b> "])
@pytest.mark.parametrize(
    "start", ["", "<final>", "<tool>", "<think>", '<tool name="write_file" path="x"><content>']
)
def test_a_stream_of_twice_the_length_is_watched_in_about_twice_the_time(
    start: str, unit: str
) -> None:
    def watched(length: int) -> float:
        text, begin = start + unit * (length // len(unit)), time.process_time()
        for end in range(0, len(text), 4):
            mca.finished(text[:end])
        return time.process_time() - begin

    assert watched(12_000) < 4 * max(watched(6_000), 0.1)


def test_a_stream_is_watched_in_small_steps_at_little_cost() -> None:
    call = mca.Call("write_file", {"path": "x.py", "content": 'print("<tool>", {1: 2})\n' * 800})
    for text in (
        mca.render(call),
        '<tool>{"name":"write_file","args":{"content":"' + "a\\n" * 6000,
    ):
        begin = time.process_time()
        for end in range(0, len(text), 20):
            mca.finished(text[:end])
        assert time.process_time() - begin < 2


# ------------------------------------------------------------------------------------------------
# Real slips whose meaning is clear
# ------------------------------------------------------------------------------------------------
LINES = "One.\nTwo.\nThree.\nFour.\n"
Row = tuple[str, str, str, mca.Call | mca.Final]


def call(tool: str, **args: Any) -> mca.Call:
    return mca.Call(tool, args)


READ, LIST, RUN = (
    call("read_file", path="a.py"),
    call("list_files", path="src"),
    call("run_shell", command="ls -la"),
)
GREP = call("search", pattern="def main", path="src")
WRITE = call("write_file", path="a.py", content="x = 1\ny = 2\n")
PATCH = call("patch_file", path="a.py", old_text="x = 1", new_text="x = 2")
J_READ = '{"name":"read_file","args":{"path":"a.py"}}'
J_RUN = '{"name":"run_shell","args":{"command":"ls -la"}}'
J_LIST = '{"name":"list_files","args":{"path":"src"}}'
J_WRITE = '{"name":"write_file","args":{"path":"a.py","content":"x = 1\\ny = 2\\n"}}'
J_PATCH = '{"name":"patch_file","args":{"path":"a.py","old_text":"x = 1","new_text":"x = 2"}}'
RAW = '<tool name="write_file" path="a.py"><content>\nx = 1\ny = 2\n</content></tool>'

THE_TAG: list[Row] = [
    (
        "name twice the same",
        "name attribute and the whole JSON",
        f'<tool name="run_shell">{J_RUN}</tool>',
        RUN,
    ),
    ("canonical", "as asked", f"<tool>{J_RUN}</tool>", RUN),
    ("canonical raw", "as asked", RAW, WRITE),
    ("final", "as asked", "<final>Done.</final>", mca.Final("Done.")),
    (
        "plain",
        "no tag at all is an answer",
        "The bug is in line 3.\n",
        mca.Final("The bug is in line 3."),
    ),
    (
        "pretty",
        "JSON over several lines",
        '<tool>\n{\n  "name": "run_shell",\n  "args": {\n    "command": "ls -la"\n  }\n'
        "}\n</tool>\n",
        RUN,
    ),
    ("upper", "tag in capitals", f"<TOOL>{J_RUN}</TOOL>", RUN),
    ("title", "tag with a capital", f"<Tool>{J_RUN}</tool>", RUN),
    ("blanks in the tag", "spaces inside the brackets", f"<tool >{J_RUN}</tool >", RUN),
    ("blank before name", "space after the bracket of the end tag", f"<tool>{J_RUN}</ tool>", RUN),
    ("end tol", "letter lost in the end tag", f"<tool>{J_RUN}</tol>", RUN),
    ("end tools", "plural end tag", f"<tool>{J_RUN}</tools>", RUN),
    ("end repeated", "start tag repeated as the end", f"<tool>{J_RUN}<tool>", RUN),
    ("end backslash", "backslash for slash", f"<tool>{J_RUN}<\\tool>", RUN),
    ("end function", "end tag of another family", f"<tool>{J_RUN}</function>", RUN),
    ("end tool_call", "end tag of qwen", f"<tool>{J_RUN}</tool_call>", RUN),
    ("end final", "the wrong one of our end tags", f"<tool>{J_RUN}</final>", RUN),
    ("end missing read", "end tag missing, reading only", f"<tool>{J_READ}", READ),
    ("end missing list", "end tag missing, reading only, line end", f"<tool>\n{J_LIST}\n", LIST),
    (
        "end missing twice brace",
        "end tag missing, pretty JSON",
        '<tool>{"name": "search", "args": {"pattern": "def main", "path": "src"}}\n',
        GREP,
    ),
    ("tail read", "end tag half written, reading only", f"<tool>{J_READ}</too", READ),
    ("crlf", "Windows line ends", f"<tool>\r\n{J_RUN}\r\n</tool>\r\n", RUN),
    ("bom", "byte order mark first", f"\ufeff<tool>{J_RUN}</tool>", RUN),
    ("indented", "call indented", f"   <tool>\n      {J_RUN}\n   </tool>", RUN),
    ("nbsp", "no-break space after the tag", f"<tool>\u00a0{J_RUN}\u00a0</tool>", RUN),
    (
        "prose before",
        "explains first",
        f"Let me look at the directory.\n\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "prose before on the line",
        "explains first, same line",
        f"Let me look: <tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "prose apostrophe",
        "explains first, apostrophes",
        f"I'll check what's there.\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "prose with quotes",
        "explains first, a quoted word",
        f'I look for "main" first.\n<tool>{J_RUN}</tool>',
        RUN,
    ),
    (
        "prose with backticks",
        "explains first, code spans",
        f"I will read `a.py` and `b.py` now.\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "prose one backtick",
        "explains first, an odd backtick",
        f"A stray ` here.\n\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "long prose",
        "many lines of plan, then the tag",
        "Plan:\n1. look\n2. fix\n3. test\n\nFirst step:\n" + f"<tool>{J_RUN}</tool>",
        RUN,
    ),
    ("prose after", "explains afterwards", f"<tool>{J_RUN}</tool>\n\nI wait for the result.", RUN),
    (
        "prose both",
        "explains before and after",
        f"So:\n<tool>{J_RUN}</tool>\nThis lists the files.",
        RUN,
    ),
    (
        "invented result",
        "makes up the result",
        f"<tool>{J_RUN}</tool>\n<result>a.py b.py</result>\nThere are two.",
        RUN,
    ),
    (
        "invented transcript",
        "goes on with the transcript",
        f"<tool>{J_RUN}</tool>\n[tool:run_shell]\na.py\n\n[assistant]\n<final>Two.</final>",
        RUN,
    ),
    (
        "then final",
        "answers before having seen the result",
        f"<tool>{J_RUN}</tool>\n<final>Done.</final>",
        RUN,
    ),
    (
        "final then",
        "answers, then goes on",
        f"<final>Done.</final>\n<tool>{J_RUN}</tool>",
        mca.Final("Done."),
    ),
    ("two", "several calls: the first", f"<tool>{J_RUN}</tool>\n<tool>{J_READ}</tool>", RUN),
    (
        "three in a row",
        "several calls on one line",
        f"<tool>{J_READ}</tool><tool>{J_RUN}</tool><tool>{J_LIST}</tool>",
        READ,
    ),
    (
        "two json in one tag",
        "several calls, first tag closed only",
        f"<tool>{J_READ}</tool>\n<tool>{J_RUN}",
        READ,
    ),
    ("fence around", "fence around the tag", f"```\n<tool>{J_RUN}</tool>\n```", RUN),
    (
        "fence xml",
        "fence with a language around the tag",
        f"```xml\n<tool>{J_RUN}</tool>\n```",
        RUN,
    ),
    (
        "fence around prose",
        "prose, then the fenced tag",
        f"I'll do it:\n\n```xml\n<tool>\n{J_RUN}\n</tool>\n```\n",
        RUN,
    ),
    ("fence inside", "fence inside the tag", f"<tool>\n```json\n{J_RUN}\n```\n</tool>", RUN),
    (
        "fence inside bare",
        "fence without a language inside the tag",
        f"<tool>```\n{J_RUN}\n```</tool>",
        RUN,
    ),
    ("backtick inside", "code span inside the tag", f"<tool>`{J_RUN}`</tool>", RUN),
    ("fence around raw", "fence around a raw block", f"```xml\n{RAW}\n```", WRITE),
    ("fence open", "fence opened, never closed", f"```xml\n<tool>{J_RUN}</tool>", RUN),
    ("fence json", "fenced JSON instead of the tag", f"```json\n{J_RUN}\n```", RUN),
    (
        "fence json prose",
        "fenced JSON after a line",
        f"I'll list the files.\n\n```json\n{J_RUN}\n```",
        RUN,
    ),
    ("fence no language", "fence without language instead of the tag", f"```\n{J_RUN}\n```", RUN),
    ("fence tool", "fence whose language is tool", f"```tool\n{J_RUN}\n```", RUN),
    ("fence tool_call", "fence whose language is tool_call", f"```tool_call\n{J_READ}\n```", READ),
    ("fence tilde", "tilde fence", f"~~~json\n{J_READ}\n~~~", READ),
    ("fence crlf", "fenced JSON, Windows line ends", f"```json\r\n{J_RUN}\r\n```\r\n", RUN),
    ("bare", "bare JSON", J_RUN, RUN),
    ("bare prose", "bare JSON after a line", f"I'll list the files.\n{J_RUN}", RUN),
    (
        "bare pretty",
        "bare JSON, pretty",
        '{\n  "name": "read_file",\n  "args": {\n    "path": "a.py"\n  }\n}',
        READ,
    ),
    ("bare list", "list with one call", f"[{J_RUN}]", RUN),
    ("cdata json", "CDATA around the JSON", f"<tool><![CDATA[{J_RUN}]]></tool>", RUN),
    (
        "cdata raw",
        "CDATA around the content",
        '<tool name="write_file" path="a.py"><content><![CDATA[x = 1\ny = 2\n]]></content></tool>',
        WRITE,
    ),
    ("single quoted attributes", "attributes in single quotes", RAW.replace('"', "'"), WRITE),
    ("unquoted attributes", "attributes without quotes", RAW.replace('"', ""), WRITE),
    ("attribute blanks", "blanks around the equals sign", RAW.replace("=", " = ", 2), WRITE),
    ("attribute over lines", "start tag over two lines", RAW.replace(" path", "\n  path"), WRITE),
    (
        "attribute order",
        "path before name",
        '<tool path="a.py" name="write_file"><content>\nx = 1\ny = 2\n</content></tool>',
        WRITE,
    ),
    (
        "attribute with >",
        "> inside an attribute",
        '<tool name="run_shell" command="ls > out.txt && cat out.txt"></tool>',
        call("run_shell", command="ls > out.txt && cat out.txt"),
    ),
    (
        "attribute quotes",
        "double quotes inside single ones",
        "<tool name='run_shell' command='echo \"hi\"'></tool>",
        call("run_shell", command='echo "hi"'),
    ),
    ("self-closing", "self-closing tag", '<tool name="read_file" path="a.py"/>', READ),
    (
        "self-closing blank",
        "self-closing tag with a blank",
        '<tool name="read_file" path="a.py" />',
        READ,
    ),
    (
        "self-closing single",
        "self-closing tag, single quotes",
        "<tool name='list_files' path='src' />",
        LIST,
    ),
    (
        "self-closing risky",
        "self-closing tag, a command",
        '<tool name="run_shell" command="ls -la" />',
        RUN,
    ),
    (
        "attributes only",
        "attributes and an empty body",
        '<tool name="read_file" path="a.py"></tool>',
        READ,
    ),
    (
        "attribute range",
        "numbers as attributes",
        '<tool name="read_file" path="a.py" start="1" end="20"></tool>',
        call("read_file", path="a.py", start=1, end=20),
    ),
    (
        "children",
        "all arguments as child tags",
        '<tool name="run_shell"><command>ls -la</command></tool>',
        RUN,
    ),
    (
        "children path",
        "path as a child tag too",
        '<tool name="write_file"><path>a.py</path><content>\nx = 1\ny = 2\n</content></tool>',
        WRITE,
    ),
    (
        "children indented",
        "child tags on lines of their own",
        '<tool name="patch_file">\n  <path>a.py</path>\n  <old_text>x = 1</old_text>\n'
        "  <new_text>x = 2</new_text>\n</tool>",
        PATCH,
    ),
    (
        "raw without gap",
        "no newline after <content>",
        '<tool name="write_file" path="a.py"><content>x = 1\ny = 2\n</content></tool>',
        WRITE,
    ),
    (
        "raw lines",
        "child tags on lines of their own",
        '<tool name="write_file" path="a.py">\n<content>\nx = 1\ny = 2\n</content>\n</tool>',
        WRITE,
    ),
    (
        "raw upper",
        "raw block in capitals",
        RAW.replace("tool", "TOOL").replace("content", "CONTENT"),
        WRITE,
    ),
    (
        "name attribute json body",
        "name as attribute, arguments as JSON",
        '<tool name="run_shell">{"command": "ls -la"}</tool>',
        RUN,
    ),
    (
        "name attribute args body",
        "name as attribute, args object",
        '<tool name="read_file">{"args": {"path": "a.py"}}</tool>',
        READ,
    ),
    (
        "final open",
        "<final> without its end",
        "<final>The bug is in line 3.",
        mca.Final("The bug is in line 3."),
    ),
    ("final upper", "capitals", "<FINAL>Done.</FINAL>", mca.Final("Done.")),
    (
        "final prose",
        "prose before the answer",
        "I am done.\n<final>It works.</final>",
        mca.Final("It works."),
    ),
    (
        "final fence",
        "fence around the answer",
        "```\n<final>It works.</final>\n```",
        mca.Final("It works."),
    ),
    (
        "final with code",
        "an answer that shows code",
        "<final>Use:\n```python\nprint(1)\n```\nBye.</final>",
        mca.Final("Use:\n```python\nprint(1)\n```\nBye."),
    ),
    (
        "final with think",
        "an answer about the tag",
        "<final>The tag <think> is stripped.</final>",
        mca.Final("The tag <think> is stripped."),
    ),
    (
        "plain json",
        "an answer that shows a file",
        'It is:\n```json\n{"name": "pkg", "version": "1"}\n```',
        mca.Final('It is:\n```json\n{"name": "pkg", "version": "1"}\n```'),
    ),
    (
        "plain code",
        "an answer that shows a function",
        "Write:\n```python\ndef f(x):\n    return {x}\n```",
        mca.Final("Write:\n```python\ndef f(x):\n    return {x}\n```"),
    ),
    (
        "plain html",
        "an answer that names a tag",
        "Use the <a> tag, not <b>.",
        mca.Final("Use the <a> tag, not <b>."),
    ),
    (
        "args attribute",
        "arguments as JSON in an attribute",
        '<tool name="run_shell" args=\'{"command":"ls -la"}\'></tool>',
        RUN,
    ),
    ("end twice", "end tag twice", f"<tool>{J_RUN}</tool></tool>", RUN),
    ("markdown label", "bold label before the tag", f"**Tool call:**\n<tool>{J_RUN}</tool>", RUN),
    ("fence bash", "shell fence around the tag", f"```bash\n<tool>{J_RUN}</tool>\n```", RUN),
    ("list item", "tag as a list item", f"1. <tool>{J_RUN}</tool>", RUN),
    (
        "backtick same paragraph",
        "an odd backtick on the line before",
        f"A stray ` here.\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    ("inch", "an odd quotation mark", f'I want the 3.5" entry.\n<tool>{J_READ}</tool>', READ),
    (
        "answer word",
        "label before the answer",
        "Answer:\n<final>\nTwo files.\n</final>\n",
        mca.Final("Two files."),
    ),
]


def tool(body: str) -> str:
    return f"<tool>{body}</tool>"


THE_JSON: list[Row] = [
    (
        "escape x",
        "escape that JSON does not know",
        tool(r'{"name":"run_shell","args":{"command":"echo \x41"}}'),
        call("run_shell", command=r"echo \x41"),
    ),
    (
        "windows path",
        "backslashes not escaped",
        tool(r'{"name":"read_file","args":{"path":"C:\src\Main.py"}}'),
        call("read_file", path=r"C:\src\Main.py"),
    ),
    (
        "escape good",
        "good escapes stay good",
        tool(r'{"name":"search","args":{"pattern":"a\\d\u00e9\n\t\/"}}'),
        call("search", pattern="a\\d\u00e9\n\t/"),
    ),
    (
        "args empty beside",
        "empty args, the argument beside them",
        tool('{"name":"read_file","args":{},"path":"a.py"}'),
        READ,
    ),
    ("end token", "end of turn token after the call", tool(J_RUN) + "<|im_end|>", RUN),
    (
        "code before",
        "a closed fence with code first",
        "I run:\n```sh\nls\n```\n" + tool(J_RUN),
        RUN,
    ),
    (
        "raw newline",
        "line ends not escaped",
        tool('{"name":"write_file","args":{"path":"a.py","content":"x = 1\ny = 2\n"}}'),
        WRITE,
    ),
    (
        "raw newline crlf",
        "Windows line ends not escaped",
        tool('{"name":"write_file","args":{"path":"a.py","content":"x = 1\r\n"}}'),
        call("write_file", path="a.py", content="x = 1\r\n"),
    ),
    (
        "raw tab",
        "tab not escaped",
        tool('{"name":"run_shell","args":{"command":"printf \'a\tb\'"}}'),
        call("run_shell", command="printf 'a\tb'"),
    ),
    (
        "raw newline bare",
        "line ends not escaped, no tag",
        '{"name":"write_file","args":{"path":"a.py","content":"x = 1\ny = 2\n"}}',
        WRITE,
    ),
    (
        "escape d",
        "regular expression not escaped twice",
        tool(r'{"name":"search","args":{"pattern":"\d+\s*"}}'),
        call("search", pattern=r"\d+\s*"),
    ),
    (
        "escape dot",
        "escaped dot",
        tool(r'{"name":"search","args":{"pattern":"a\.b"}}'),
        call("search", pattern=r"a\.b"),
    ),
    (
        "escape quote",
        "single quote escaped",
        tool(r"""{"name":"run_shell","args":{"command":"echo \'hi\'"}}"""),
        call("run_shell", command="echo 'hi'"),
    ),
    (
        "escape mixed",
        "good and bad escapes",
        tool(r'{"name":"search","args":{"pattern":"\"\w+\"\\b"}}'),
        call("search", pattern=r'"\w+"\b'),
    ),
    (
        "escape parens",
        "escaped parentheses",
        tool(r'{"name":"search","args":{"pattern":"main\(\)"}}'),
        call("search", pattern=r"main\(\)"),
    ),
    (
        "escape u",
        "broken unicode escape",
        tool(r'{"name":"search","args":{"pattern":"\user"}}'),
        call("search", pattern=r"\user"),
    ),
    (
        "escape dollar",
        "escaped dollar",
        tool(r'{"name":"run_shell","args":{"command":"echo \$HOME"}}'),
        call("run_shell", command=r"echo \$HOME"),
    ),
    (
        "trailing comma",
        "comma before the brace",
        tool('{"name":"run_shell","args":{"command":"ls -la",},}'),
        RUN,
    ),
    (
        "trailing comma lines",
        "comma before the brace, lines",
        tool('{\n"name": "read_file",\n"args": {\n"path": "a.py",\n},\n}'),
        READ,
    ),
    (
        "single quotes",
        "Python dict",
        tool("{'name': 'run_shell', 'args': {'command': 'ls -la'}}"),
        RUN,
    ),
    (
        "single quotes apostrophe",
        "Python dict, mixed quotes",
        tool("""{'name': 'run_shell', 'args': {'command': "echo 'a'"}}"""),
        call("run_shell", command="echo 'a'"),
    ),
    (
        "single quotes inner",
        "Python dict, double quotes inside",
        tool("""{'name': 'run_shell', 'args': {'command': 'echo "a"'}}"""),
        call("run_shell", command='echo "a"'),
    ),
    (
        "single quotes escaped",
        "Python dict, escaped apostrophe",
        tool(r"""{'name': 'run_shell', 'args': {'command': 'echo \'a\''}}"""),
        call("run_shell", command="echo 'a'"),
    ),
    (
        "python literals",
        "True and None",
        tool('{"name":"list_files","args":{"path":"src","x":None,"y":True}}'),
        call("list_files", path="src", x=None, y=True),
    ),
    (
        "literal in string",
        "True in a string stays",
        tool("{'name':'search','args':{'pattern':'True, None'}}"),
        call("search", pattern="True, None"),
    ),
    (
        "unquoted keys",
        "JavaScript object",
        tool('{name: "run_shell", args: {command: "ls -la"}}'),
        RUN,
    ),
    (
        "unquoted keys single",
        "JavaScript object, single quotes",
        tool("{name: 'read_file', args: {path: 'a.py'}}"),
        READ,
    ),
    (
        "comment line",
        "// comment",
        tool('{"name":"read_file", // the file\n"args":{"path":"a.py"}}'),
        READ,
    ),
    (
        "comment block",
        "/* comment */",
        tool('{"name":"read_file","args":{/* first */"path":"a.py"}}'),
        READ,
    ),
    (
        "comment hash",
        "# comment",
        tool('{\n"name":"read_file", # the file\n"args":{"path":"a.py"}\n}'),
        READ,
    ),
    (
        "url",
        "// in a string with a trailing comma",
        tool('{"name":"run_shell","args":{"command":"curl http://x.de/a //b",}}'),
        call("run_shell", command="curl http://x.de/a //b"),
    ),
    (
        "comma brace in string",
        "',}' in a string with a real one",
        tool('{"name":"search","args":{"pattern":"{a,}[b,]",},}'),
        call("search", pattern="{a,}[b,]"),
    ),
    (
        "hash in string",
        "# in a string, unquoted keys",
        tool('{name:"run_shell",args:{command:"ls # all /* x */"}}'),
        call("run_shell", command="ls # all /* x */"),
    ),
    (
        "key in string",
        "unquoted-looking key in a string",
        tool("{'name':'search','args':{'pattern':'{a: 1, b: None}'}}"),
        call("search", pattern="{a: 1, b: None}"),
    ),
    (
        "smart quotes",
        "typographic quotes",
        tool("{“name”: “run_shell”, “args”: {“command”: “ls -la”}}"),
        RUN,
    ),
    (
        "smart in string",
        "typographic quotes inside a string",
        tool('{"name":"search","args":{"pattern":"“a”",}}'),
        call("search", pattern="“a”"),
    ),
    (
        "brace missing",
        "one closing brace lost",
        tool('{"name":"run_shell","args":{"command":"ls -la"}'),
        RUN,
    ),
    (
        "braces missing",
        "two closing braces lost",
        tool('{"name":"run_shell","args":{"command":"ls -la"'),
        RUN,
    ),
    (
        "brace missing read",
        "one closing brace lost, list",
        tool('{"name":"list_files","args":{"path":"src"'),
        LIST,
    ),
    (
        "brace surplus",
        "one closing brace too many",
        tool('{"name":"run_shell","args":{"command":"ls -la"}}}'),
        RUN,
    ),
    ("brace surplus bare", "one closing brace too many, no tag", J_RUN + "}", RUN),
    ("bracket surplus", "a bracket too many", tool(J_RUN + "]"), RUN),
    ("semicolon", "semicolon after the object", tool(J_RUN + ";"), RUN),
    (
        "double encoded",
        "arguments as a JSON string",
        tool('{"name":"run_shell","args":"{\\"command\\":\\"ls -la\\"}"}'),
        RUN,
    ),
    (
        "double encoded arguments",
        "OpenAI function call",
        tool('{"name":"run_shell","arguments":"{\\"command\\": \\"ls -la\\"}"}'),
        RUN,
    ),
    ("beside", "arguments beside the name", tool('{"name":"run_shell","command":"ls -la"}'), RUN),
    (
        "beside write",
        "arguments beside the name, a write",
        tool('{"name":"write_file","path":"a.py","content":"x = 1\\ny = 2\\n"}'),
        WRITE,
    ),
    (
        "beside bare",
        "arguments beside the name, no tag",
        '{"tool":"read_file","path":"a.py"}',
        READ,
    ),
    ("arguments", "OpenAI key", tool('{"name":"run_shell","arguments":{"command":"ls -la"}}'), RUN),
    (
        "parameters",
        "llama key",
        tool('{"name":"run_shell","parameters":{"command":"ls -la"}}'),
        RUN,
    ),
    ("input", "Anthropic key", tool('{"name":"run_shell","input":{"command":"ls -la"}}'), RUN),
    ("tool key", "tool for name", tool('{"tool":"run_shell","args":{"command":"ls -la"}}'), RUN),
    (
        "tool_name key",
        "tool_name for name",
        tool('{"tool_name":"run_shell","args":{"command":"ls -la"}}'),
        RUN,
    ),
    (
        "function key",
        "function for name",
        tool('{"function":"run_shell","args":{"command":"ls -la"}}'),
        RUN,
    ),
    (
        "function object",
        "OpenAI nesting",
        tool(
            '{"type":"function","function":{"name":"run_shell","arguments":{"command":"ls -la"}}}'
        ),
        RUN,
    ),
    (
        "function object string",
        "OpenAI nesting, encoded",
        tool(
            '{"id":"c1","type":"function","function":{"name":"run_shell",'
            '"arguments":"{\\"command\\":\\"ls -la\\"}"}}'
        ),
        RUN,
    ),
    (
        "tool_use",
        "Anthropic block",
        tool('{"type":"tool_use","id":"t1","name":"run_shell","input":{"command":"ls -la"}}'),
        RUN,
    ),
    (
        "action",
        "ReAct JSON",
        '```json\n{"action": "run_shell", "action_input": {"command": "ls -la"}}\n```',
        RUN,
    ),
    (
        "keys upper",
        "keys with capitals",
        tool('{"Name":"run_shell","Args":{"Command":"ls -la"}}'),
        RUN,
    ),
    (
        "number string",
        "number as a string",
        tool('{"name":"read_file","args":{"path":"a.py","start":"5","end":"9"}}'),
        call("read_file", path="a.py", start="5", end="9"),
    ),
    ("no args", "no args at all", tool('{"name":"list_files"}'), call("list_files")),
    ("args null", "args null", tool('{"name":"list_files","args":null}'), call("list_files")),
    ("args empty", "args empty", tool('{"name":"list_files","args":{}}'), call("list_files")),
    (
        "end tag in string",
        "our end tag in a string",
        tool('{"name":"run_shell","args":{"command":"grep \'</tool>\' a.py"}}'),
        call("run_shell", command="grep '</tool>' a.py"),
    ),
    (
        "call in string",
        "a whole call in a string",
        tool('{"name":"search","args":{"pattern":"<tool>{}</tool>"}}'),
        call("search", pattern="<tool>{}</tool>"),
    ),
    (
        "think in string",
        "think tags in a string",
        tool('{"name":"search","args":{"pattern":"</think><think>"}}'),
        call("search", pattern="</think><think>"),
    ),
    (
        "final in string",
        "final tags in a string",
        tool('{"name":"search","args":{"pattern":"<final>x</final>"}}'),
        call("search", pattern="<final>x</final>"),
    ),
    (
        "braces in string",
        "unbalanced braces in a string",
        tool('{"name":"search","args":{"pattern":"}}{[","path":"src"}}'),
        call("search", pattern="}}{[", path="src"),
    ),
    (
        "braces in string repaired",
        "unbalanced braces and a lost brace",
        tool('{"name":"search","args":{"pattern":"}}{[","path":"src"}'),
        call("search", pattern="}}{[", path="src"),
    ),
    (
        "entities in string",
        "entities stay",
        tool('{"name":"search","args":{"pattern":"&lt;b&gt; &amp;"}}'),
        call("search", pattern="&lt;b&gt; &amp;"),
    ),
    (
        "fences in string",
        "fences in a string",
        tool('{"name":"write_file","args":{"path":"a.md","content":"```sh\\nls\\n```\\n"}}'),
        call("write_file", path="a.md", content="```sh\nls\n```\n"),
    ),
    (
        "code newlines quotes",
        "raw newlines and escaped quotes",
        tool(
            '{"name":"write_file","args":{"path":"a.py","content":"d = {\\"a\\": 1}\nprint(d)\n"}}'
        ),
        call("write_file", path="a.py", content='d = {"a": 1}\nprint(d)\n'),
    ),
    (
        "content json",
        "a JSON file as the content",
        tool('{"name":"write_file","args":{"path":"a.json","content":"{\\"name\\": \\"x\\"}"}}'),
        call("write_file", path="a.json", content='{"name": "x"}'),
    ),
    ("patch", "patch as JSON", tool(J_PATCH), PATCH),
    (
        "patch deletes",
        "empty new_text",
        tool('{"name":"patch_file","args":{"path":"a.py","old_text":"x","new_text":""}}'),
        call("patch_file", path="a.py", old_text="x", new_text=""),
    ),
    (
        "explanation",
        "explanation beside the arguments",
        tool('{"name":"run_shell","args":{"command":"ls -la","description":"List the files"}}'),
        RUN,
    ),
    (
        "thought",
        "thought beside the name",
        tool('{"thought":"I look first","name":"run_shell","args":{"command":"ls -la"}}'),
        RUN,
    ),
    (
        "reason",
        "reason in the arguments",
        tool('{"name":"read_file","args":{"path":"a.py","reason":"to see it"}}'),
        READ,
    ),
    ("json colon tag", "json word before the object", tool("json\n" + J_RUN), RUN),
    ("heading", "bare JSON after a label", "Tool call:\n" + J_RUN, RUN),
    (
        "line continued",
        "string broken with a backslash",
        tool('{"name":"run_shell","args":{"command":"ls \\\\\\n  -la"}}'),
        call("run_shell", command="ls \\\n  -la"),
    ),
]


def as_json(name: str, **args: Any) -> str:
    pairs = ",".join(
        f'"{key}":{repr(value).replace(chr(39), chr(34))}' for key, value in args.items()
    )
    return tool(f'{{"name":"{name}","args":{{{pairs}}}}}')


EDIT = {"path": "a.py", "old_text": "x = 1", "new_text": "x = 2"}
NEW = call("write_file", path="a.py", content="x")
NAMES: list[Row] = [
    *(
        (f"shell as {name}", "what others call it", as_json(name, command="ls -la"), RUN)
        for name in (
            "bash",
            "Bash",
            "shell",
            "sh",
            "execute_command",
            "run_command",
            "terminal",
            "shell_command",
            "run_terminal_cmd",
            "RUN_SHELL",
            "run-shell",
            "runShell",
            "functions.run_shell",
            "default_api.run_shell",
            "run shell",
        )
    ),
    *(
        (f"read as {name}", "what others call it", as_json(name, path="a.py"), READ)
        for name in (
            "cat",
            "view",
            "open_file",
            "Read",
            "readFile",
            "view_file",
            "Read_File",
            "tools.read_file",
            "ReadFile",
        )
    ),
    *(
        (
            f"search as {name}",
            "what others call it",
            as_json(name, pattern="def main", path="src"),
            GREP,
        )
        for name in (
            "grep",
            "Grep",
            "ripgrep",
            "search_files",
            "codebase_search",
            "grep_search",
            "rg",
        )
    ),
    *(
        (f"list as {name}", "what others call it", as_json(name, path="src"), LIST)
        for name in ("ls", "LS", "dir", "list_dir", "list_directory", "listFiles")
    ),
    *(
        (f"write as {name}", "what others call it", as_json(name, path="a.py", content="x"), NEW)
        for name in ("create_file", "save_file", "Write", "writeFile", "write_to_file")
    ),
    *(
        (f"patch as {name}", "what others call it", as_json(name, **EDIT), PATCH)
        for name in ("edit_file", "str_replace", "replace_in_file", "Edit", "patch-file")
    ),
    *(
        (
            f"delegate as {name}",
            "what others call it",
            as_json(name, task="look"),
            call("delegate", task="look"),
        )
        for name in ("task", "subagent", "Task", "Delegate")
    ),
    *(
        (f"path as {name}", "what others call it", as_json("read_file", **{name: "a.py"}), READ)
        for name in (
            "filePath",
            "file_path",
            "filename",
            "file",
            "target_file",
            "Path",
            "PATH",
            "absolute_path",
            "file_name",
        )
    ),
    *(
        (f"command as {name}", "what others call it", as_json("run_shell", **{name: "ls -la"}), RUN)
        for name in ("cmd", "script", "Command", "shell_command")
    ),
    *(
        (
            f"old_text as {name}",
            "what others call it",
            as_json("patch_file", **{"path": "a.py", name: "x = 1", "new_text": "x = 2"}),
            PATCH,
        )
        for name in ("old_string", "oldString", "old_str", "oldText", "old")
    ),
    *(
        (
            f"new_text as {name}",
            "what others call it",
            as_json("patch_file", **{"path": "a.py", "old_text": "x = 1", name: "x = 2"}),
            PATCH,
        )
        for name in ("new_string", "newString", "new_str", "newText", "new")
    ),
    *(
        (
            f"content as {name}",
            "what others call it",
            as_json("write_file", **{"path": "a.py", name: "x"}),
            NEW,
        )
        for name in ("text", "contents", "file_text", "code", "data", "Content")
    ),
    *(
        (
            f"pattern as {name}",
            "what others call it",
            as_json("search", **{name: "def main", "path": "src"}),
            GREP,
        )
        for name in ("query", "regex", "Pattern")
    ),
    *(
        (
            f"start as {name}",
            "what others call it",
            as_json("read_file", **{"path": "a.py", name: 3}),
            call("read_file", path="a.py", start=3),
        )
        for name in ("start_line", "startLine", "line_start")
    ),
    *(
        (
            f"end as {name}",
            "what others call it",
            as_json("read_file", **{"path": "a.py", name: 9}),
            call("read_file", path="a.py", end=9),
        )
        for name in ("end_line", "endLine", "line_end")
    ),
    (
        "Edit of Claude",
        "name and arguments from elsewhere",
        as_json("Edit", file_path="a.py", old_string="x = 1", new_string="x = 2"),
        PATCH,
    ),
    (
        "str_replace of Anthropic",
        "name and arguments from elsewhere",
        as_json("str_replace", path="a.py", old_str="x = 1", new_str="x = 2"),
        PATCH,
    ),
    (
        "unknown",
        "an unknown tool is still a call",
        as_json("frobnicate", a="b"),
        call("frobnicate", a="b"),
    ),
    (
        "raw synonyms",
        "synonyms as attributes and child tags",
        '<tool name="create_file" file_path="a.py"><file_text>\nx = 1\ny = 2\n</file_text></tool>',
        WRITE,
    ),
    (
        "raw edit",
        "synonyms as child tags",
        '<tool name="edit_file" filePath="a.py"><old_string>x = 1</old_string>'
        "<new_string>x = 2</new_string></tool>",
        PATCH,
    ),
]

CODE = 'def f(a):\n    return {"<b>": a[0] < 1 and a > 2}'
CODE_CALL = call("write_file", path="a.py", content=CODE)
QWEN = (
    "<tool_call>\n<function=run_shell>\n<parameter=command>\nls -la\n</parameter>\n"
    "</function>\n</tool_call>"
)
QWEN_READ = (
    QWEN.replace("run_shell", "read_file").replace("command", "path").replace("ls -la", "a.py")
)
QWEN_CODE = (
    "<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n"
    f"<parameter=content>\n{CODE}\n</parameter>\n</function>\n</tool_call>"
)
HERMES = '<tool_call>\n{"name": "run_shell", "arguments": {"command": "ls -la"}}\n</tool_call>'
HERMES_READ = '<tool_call>\n{"name": "read_file", "arguments": {"path": "a.py"}}\n</tool_call>'
HARMONY = (
    "<|channel|>commentary to=functions.run_shell <|constrain|>json<|message|>"
    '{"command":"ls -la"}<|call|>'
)
DEEP = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>run_shell<｜tool▁sep｜>"
    '{"command": "ls -la"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
GLM = (
    "<tool_call>run_shell\n<arg_key>command</arg_key>\n<arg_value>ls -la</arg_value>\n</tool_call>"
)
GEMMA = '<|tool_call>call:run_shell{command:<|"|>ls -la<|"|>}<tool_call|>'
INVOKE = '<invoke name="run_shell">\n<parameter name="command">ls -la</parameter>\n</invoke>'
CLINE = "<read_file>\n<path>a.py</path>\n</read_file>"
SEP = "<\uff5ctool\u2581sep\uff5c>"
DSML = "\uff5cDSML\uff5c"
MORE_NATIVE: list[Row] = [
    ("qwen quoted key", "quotes in the tag", QWEN.replace("=command", '="command"'), RUN),
    ("qwen blanks", "blanks around the sign", QWEN.replace("=", " = "), RUN),
    ("qwen-agent", "its own marks", '✿FUNCTION✿: run_shell\n✿ARGS✿: {"command": "ls -la"}', RUN),
    (
        "hermes elements",
        "name and arguments as elements",
        '<tool_call>\n<name>run_shell</name>\n<arguments>{"command": "ls -la"}</arguments>\n'
        "</tool_call>",
        RUN,
    ),
    ("mistral glued", "[ARGS] lost", '[TOOL_CALLS]run_shell{"command": "ls -la"}', RUN),
    (
        "mistral markdown",
        "an escaped underscore in the name",
        '[{"name": "run\\_shell", "arguments": {"command": "ls -la"}}]',
        RUN,
    ),
    (
        "tool_code print",
        "gemma3 prints the call",
        '```tool_code\nprint(default_api.run_shell(command="ls -la"))\n```',
        RUN,
    ),
    ("tag python", "a Python call in our tag", '<tool>run_shell(command="ls -la")</tool>', RUN),
    ("hermes python", "a Python call", '<tool_call>run_shell(command="ls -la")</tool_call>', RUN),
    (
        "deepseek v3",
        "type, name and a fence",
        f'{DEEP.partition("run_shell")[0]}function{SEP}run_shell\n```json\n{{"command": "ls -la"}}\n'
        "```<\uff5ctool\u2581call\u2581end\uff5c><\uff5cend\u2581of\u2581sentence\uff5c>",
        RUN,
    ),
    (
        "deepseek v3.2",
        "marked elements",
        f'<{DSML}function_calls>\n<{DSML}invoke name="run_shell">\n<{DSML}parameter name="command"'
        f' string="true">ls -la</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}function_calls>',
        RUN,
    ),
    (
        "kimi",
        "k2, a number after the name",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.run_shell:0"
        '<|tool_call_argument_begin|>{"command": "ls -la"}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        RUN,
    ),
    ("glm4", "the name on a line of its own", 'run_shell\n{"command": "ls -la"}', RUN),
    ("glm observation", "ends with the next turn's token", GLM + "<|observation|>", RUN),
    (
        "hunyuan",
        "the name, then a fence",
        '<tool_call>run_shell\n```json\n{"command": "ls -la"}\n```\n</tool_call>',
        RUN,
    ),
    (
        "harmony stripped",
        "the server took its tokens away",
        'commentary to=functions.run_shell json{"command": "ls -la"}',
        RUN,
    ),
    ("cohere action", "command-r", f"Action: ```json\n[{J_RUN}]```", RUN),
    ("granite end", "ends with its token", HERMES + "<|end_of_text|>", RUN),
    ("exaone end", "ends with its token", HERMES + "[|endofturn|]", RUN),
    (
        "cline approval",
        "an argument that says nothing",
        "<execute_command>\n<command>ls -la</command>\n"
        "<requires_approval>false</requires_approval>\n</execute_command>",
        RUN,
    ),
    ("openai", "the wrapper alone", f'{{"function_call": {J_RUN}}}', RUN),
]
NATIVE: list[Row] = [
    ("qwen", "qwen3.5 native", QWEN, RUN),
    ("qwen prose", "qwen3.5 native after a line", "I'll list the files.\n\n" + QWEN, RUN),
    ("qwen code", "qwen3.5 native, code as value", QWEN_CODE, CODE_CALL),
    ("qwen inline", "qwen3.5 native on one line", QWEN.replace("\n", ""), RUN),
    ("qwen crlf", "qwen3.5 native, Windows line ends", QWEN_READ.replace("\n", "\r\n"), READ),
    ("qwen opening lost", "qwen native, opening tag lost", QWEN.removeprefix("<tool_call>\n"), RUN),
    (
        "qwen bare",
        "qwen native, both outer tags lost",
        QWEN[12:].removesuffix("\n</tool_call>"),
        RUN,
    ),
    (
        "qwen outer open",
        "qwen native, outer tag not closed",
        QWEN.removesuffix("\n</tool_call>"),
        RUN,
    ),
    (
        "qwen function open",
        "qwen native, reading, two end tags lost",
        QWEN_READ.removesuffix("\n</function>\n</tool_call>"),
        READ,
    ),
    (
        "qwen function end lost",
        "qwen native, </function> lost",
        QWEN.replace("\n</function>", ""),
        RUN,
    ),
    ("qwen fenced", "qwen native in a fence", f"```xml\n{QWEN}\n```", RUN),
    (
        "qwen names",
        "qwen native, names from elsewhere",
        QWEN.replace("run_shell", "bash").replace("=command", "=cmd"),
        RUN,
    ),
    (
        "qwen range",
        "qwen native, numbers",
        "<tool_call>\n<function=read_file>\n<parameter=path>\na.py\n</parameter>\n"
        "<parameter=start>\n3\n</parameter>\n</function>\n</tool_call>",
        call("read_file", path="a.py", start=3),
    ),
    ("qwen in our tag", "qwen native inside our tag", f"<tool>\n{QWEN[12:-13]}\n</tool>", RUN),
    (
        "qwen no args",
        "qwen native without parameters",
        "<tool_call>\n<function=list_files>\n</function>\n</tool_call>",
        call("list_files"),
    ),
    ("hermes", "qwen2.5 native", HERMES, RUN),
    ("hermes prose", "qwen2.5 native after a line", "Let me look.\n" + HERMES, RUN),
    ("hermes one line", "qwen2.5 native on one line", HERMES.replace("\n", ""), RUN),
    (
        "hermes open",
        "qwen2.5 native, end lost, reading",
        HERMES_READ.removesuffix("\n</tool_call>"),
        READ,
    ),
    (
        "hermes no start",
        "qwen2.5 native, opening tag lost",
        HERMES.removeprefix("<tool_call>\n"),
        RUN,
    ),
    ("hermes slash", "qwen2.5 native, start tag as the end", HERMES.replace("</", "<"), RUN),
    (
        "hermes our end",
        "opened native, closed with our tag",
        HERMES.replace("</tool_call>", "</tool>"),
        RUN,
    ),
    ("hermes braces", "qwen2.5 native, doubled braces", HERMES.replace("}}", "}}}"), RUN),
    ("hermes two", "several native calls: the first", HERMES_READ + "\n" + HERMES, READ),
    ("harmony", "gpt-oss native", HARMONY, RUN),
    ("harmony start", "gpt-oss native with its start", "<|start|>assistant" + HARMONY, RUN),
    (
        "harmony analysis",
        "gpt-oss native after analysis",
        "<|channel|>analysis<|message|>I need the files.<|end|><|start|>assistant" + HARMONY,
        RUN,
    ),
    (
        "harmony open",
        "gpt-oss native, end lost, reading",
        HARMONY.replace("run_shell", "read_file")
        .replace("command", "path", 1)
        .replace("ls -la", "a.py")
        .replace('"command"', '"path"')
        .removesuffix("<|call|>"),
        READ,
    ),
    (
        "harmony no constrain",
        "gpt-oss native, short",
        '<|channel|>commentary to=functions.read_file<|message|>{"path":"a.py"}<|call|>',
        READ,
    ),
    (
        "harmony to first",
        "gpt-oss native, recipient in the role",
        "<|start|>assistant to=functions.read_file<|channel|>commentary <|constrain|>"
        'json<|message|>{"path":"a.py"}<|call|>',
        READ,
    ),
    (
        "harmony final",
        "gpt-oss answer",
        "<|channel|>final<|message|>It works.<|return|>",
        mca.Final("It works."),
    ),
    ("llama", "llama3 native", '{"name": "run_shell", "parameters": {"command": "ls -la"}}', RUN),
    (
        "llama tag",
        "llama3 with its python tag",
        '<|python_tag|>{"name": "run_shell", "parameters": {"command": "ls -la"}}',
        RUN,
    ),
    (
        "llama eom",
        "llama3 with its end token",
        '{"name": "read_file", "parameters": {"path": "a.py"}}<|eom_id|>',
        READ,
    ),
    (
        "llama function",
        "llama3 with a type",
        '{"type": "function", "name": "read_file", "parameters": {"path": "a.py"}}',
        READ,
    ),
    (
        "llama tagged",
        "llama3.1 custom format",
        '<function=run_shell>{"command": "ls -la"}</function>',
        RUN,
    ),
    ("mistral", "mistral native", '[TOOL_CALLS]run_shell[ARGS]{"command": "ls -la"}', RUN),
    (
        "mistral blank",
        "mistral native with blanks",
        '[TOOL_CALLS] run_shell [ARGS] {"command": "ls -la"}',
        RUN,
    ),
    (
        "mistral old",
        "mistral native, older",
        '[TOOL_CALLS][{"name": "run_shell", "arguments": {"command": "ls -la"}}]',
        RUN,
    ),
    (
        "mistral old blank",
        "mistral native, older, end token",
        '[TOOL_CALLS] [{"name": "read_file", "arguments": {"path": "a.py"}}]</s>',
        READ,
    ),
    (
        "mistral prose",
        "mistral native after a line",
        'I look.[TOOL_CALLS]read_file[ARGS]{"path": "a.py"}',
        READ,
    ),
    (
        "mistral id",
        "mistral native with an id",
        '[TOOL_CALLS]read_file[CALL_ID]abc[ARGS]{"path": "a.py"}',
        READ,
    ),
    ("gemma", "gemma4 native", GEMMA, RUN),
    (
        "gemma number",
        "gemma4 native, number",
        '<|tool_call>call:read_file{path:<|"|>a.py<|"|>,start:3}<tool_call|>',
        call("read_file", path="a.py", start=3),
    ),
    (
        "gemma code",
        "gemma4 native, code as value",
        f'<|tool_call>call:write_file{{path:<|"|>a.py<|"|>,content:<|"|>{CODE}<|"|>}}<tool_call|>',
        CODE_CALL,
    ),
    (
        "gemma open",
        "gemma4 native, end lost, reading",
        '<|tool_call>call:read_file{path:<|"|>a.py<|"|>}',
        READ,
    ),
    (
        "functiongemma",
        "functiongemma native",
        "<start_function_call>call:run_shell{command:<escape>ls -la<escape>}<end_function_call>",
        RUN,
    ),
    (
        "functiongemma open",
        "functiongemma native, end lost",
        "<start_function_call>call:read_file{path:<escape>a.py<escape>}",
        READ,
    ),
    ("gemma3 tool_code", "gemma3 native", '```tool_code\nread_file(path="a.py")\n```', READ),
    (
        "gemma3 tool_code risky",
        "gemma3 native, a command",
        "```tool_code\nrun_shell(command='ls -la')\n```",
        RUN,
    ),
    ("deepseek", "deepseek-v3.1 native", DEEP, RUN),
    ("deepseek prose", "deepseek native after a line", "I look.\n" + DEEP, RUN),
    (
        "deepseek outer lost",
        "deepseek native, outer tokens lost",
        DEEP.removeprefix("<｜tool▁calls▁begin｜>").removesuffix("<｜tool▁calls▁end｜>"),
        RUN,
    ),
    (
        "deepseek outer open",
        "deepseek native, outer end lost",
        DEEP.removesuffix("<｜tool▁calls▁end｜>"),
        RUN,
    ),
    ("glm", "glm-4.6 native", GLM, RUN),
    (
        "glm two",
        "glm native, two arguments",
        "<tool_call>search\n<arg_key>pattern</arg_key>\n<arg_value>"
        "def main</arg_value>\n<arg_key>path</arg_key>\n<arg_value>src</arg_value>\n"
        "</tool_call>",
        GREP,
    ),
    ("glm one line", "glm native on one line", GLM.replace("\n", ""), RUN),
    (
        "glm code",
        "glm native, code as value",
        "<tool_call>write_file\n<arg_key>path</arg_key>\n<arg_value>a.py</arg_value>\n"
        f"<arg_key>content</arg_key>\n<arg_value>{CODE}</arg_value>\n</tool_call>",
        CODE_CALL,
    ),
    (
        "glm open",
        "glm native, end lost, reading",
        GLM.replace("run_shell", "read_file")
        .replace("command", "path")
        .replace("ls -la", "a.py")
        .removesuffix("\n</tool_call>"),
        READ,
    ),
    (
        "lfm2",
        "lfm2 native",
        '<|tool_call_start|>[run_shell(command="ls -la")]<|tool_call_end|>',
        RUN,
    ),
    ("lfm2 open", "lfm2 native, end lost", '<|tool_call_start|>[read_file(path="a.py")]', READ),
    (
        "lfm2 single",
        "lfm2 native, single quotes",
        "<|tool_call_start|>[search(pattern='def main', path='src')]<|tool_call_end|>",
        GREP,
    ),
    ("olmo", "olmo3 native", '<function_calls>run_shell(command="ls -la")</function_calls>', RUN),
    (
        "olmo lines",
        "olmo3 native, lines",
        '<function_calls>\nread_file(path="a.py")\n</function_calls>',
        READ,
    ),
    ("olmo open", "olmo3 native, end lost", '<function_calls>\nread_file(path="a.py")', READ),
    (
        "cohere",
        "cohere native",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "run_shell",'
        ' "parameters": {"command": "ls -la"}}]<|END_ACTION|>',
        RUN,
    ),
    (
        "cohere thinking",
        "cohere native after thinking",
        "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>"
        '[{"tool_call_id": "0", "tool_name": "read_file",'
        ' "parameters": {"path": "a.py"}}]<|END_ACTION|>',
        READ,
    ),
    (
        "cohere open",
        "cohere native, end lost",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "read_file",'
        ' "parameters": {"path": "a.py"}}]',
        READ,
    ),
    (
        "glimmer",
        "glimmer native",
        '<atem:function_calls><atem:invoke name="run_shell">'
        '<atem:parameter name="command">ls -la</atem:parameter></atem:invoke>'
        "</atem:function_calls>",
        RUN,
    ),
    (
        "granite",
        "granite native",
        '<|tool_call|>[{"name": "run_shell", "arguments": {"command": "ls -la"}}]',
        RUN,
    ),
    ("invoke", "taught by Anthropic's prompts", INVOKE, RUN),
    ("invoke calls", "with the outer tag", f"<function_calls>\n{INVOKE}\n</function_calls>", RUN),
    (
        "invoke antml",
        "with a namespace",
        INVOKE.replace("invoke", "antml:invoke").replace("parameter", "antml:parameter"),
        RUN,
    ),
    ("invoke open", "outer tag not closed", f"<function_calls>\n{INVOKE}", RUN),
    (
        "invoke code",
        "code as value",
        '<invoke name="write_file"><parameter name="path">a.py</parameter>'
        f'<parameter name="content">{CODE}</parameter></invoke>',
        CODE_CALL,
    ),
    ("cline", "taught by Cline's prompts", CLINE, READ),
    ("cline prose", "taught by Cline, after a line", "I read the file.\n\n" + CLINE, READ),
    (
        "cline command",
        "taught by Cline, a command",
        "<execute_command>\n<command>ls -la</command>\n</execute_command>",
        RUN,
    ),
    (
        "cline write",
        "taught by Cline, a write",
        f"<write_to_file>\n<path>a.py</path>\n<content>\n{CODE}</content>\n</write_to_file>",
        CODE_CALL,
    ),
    *MORE_NATIVE,
]

T = "<think>\nThe user wants the files.\n</think>\n\n"
MINDS = [  # the thinking of other families
    *(("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"), ("◁think▷", "◁/think▷")),
    *(("<|channel>thought\n", "<channel|>"), ("<|begin_of_thought|>", "<|end_of_thought|>")),
    *(("<thoughts>", "</thoughts>"), ("<analysis>", "</analysis>"), ("<reason>", "</reason>")),
    *(("<scratchpad>", "</scratchpad>"), ("<reflection>", "</reflection>")),
    *(("<scratch_pad>", "</scratch_pad>"), ("<inner_monologue>", "</inner_monologue>")),
    *(("<unused94>thought\n", "<unused95>"), ("<|START_THINKING|>", "<|END_THINKING|>")),
]
THINKING: list[Row] = [
    *(
        (f"think {n}", begin, f"{begin}Maybe {tool(J_READ)}.{end}\n{tool(J_RUN)}", RUN)
        for n, (begin, end) in enumerate(MINDS)
    ),
    ("think call", "thinks first", T + tool(J_RUN), RUN),
    (
        "think final",
        "thinks first, answers",
        T + "<final>Two files.</final>",
        mca.Final("Two files."),
    ),
    ("think plain", "thinks first, answers without tag", T + "Two files.", mca.Final("Two files.")),
    ("think empty", "qwen3 without thinking", "<think>\n\n</think>\n\n" + tool(J_RUN), RUN),
    (
        "think draft",
        "drafts another call",
        f"<think>Maybe {tool(J_READ)}? No.</think>\n{tool(J_RUN)}",
        RUN,
    ),
    ("think draft bare", "drafts bare JSON", f"<think>\n{J_READ}\n</think>\n{J_RUN}", RUN),
    (
        "think draft answer",
        "drafts a call, answers",
        f"<think>Maybe {tool(J_READ)}</think>\n<final>No.</final>",
        mca.Final("No."),
    ),
    (
        "think draft final",
        "drafts an answer, calls",
        f"<think><final>x</final></think>\n{tool(J_READ)}",
        READ,
    ),
    (
        "think stray end",
        "start tag swallowed by the server",
        f"I need the files.\n</think>\n\n{tool(J_RUN)}",
        RUN,
    ),
    (
        "think stray end draft",
        "start tag swallowed, a draft",
        f"Maybe {tool(J_READ)}\n</think>\n{tool(J_RUN)}",
        RUN,
    ),
    (
        "think stray end plain",
        "start tag swallowed, answers",
        "I know it.\n</think>\nTwo files.",
        mca.Final("Two files."),
    ),
    ("thinking", "another name", f"<thinking>\nI look.\n</thinking>\n{tool(J_RUN)}", RUN),
    ("thought tag", "another name", f"<thought>I look.</thought>\n{tool(J_RUN)}", RUN),
    (
        "reasoning",
        "another name, attribute",
        f'<reasoning effort="low">I look.</reasoning>\n{tool(J_RUN)}',
        RUN,
    ),
    ("think upper", "capitals", f"<THINK>I look.</Think>\n{tool(J_RUN)}", RUN),
    ("think twice", "thinks twice", f"<think>a</think>\n<think>b</think>\n{tool(J_RUN)}", RUN),
    ("think native", "thinks, then native", T + QWEN, RUN),
    ("think hermes", "thinks, then native", T + HERMES, RUN),
    ("think glm", "thinks, then native", T + GLM, RUN),
    ("think deepseek", "thinks, then native", T + DEEP, RUN),
    ("think bare", "thinks, then bare JSON", T + J_RUN, RUN),
    ("think fenced", "thinks, then fenced JSON", T + f"```json\n{J_RUN}\n```", RUN),
    (
        "think many lines",
        "thinks at length, then bare JSON",
        "<think>\n" + "line\n" * 9 + "</think>\n" + J_RUN,
        RUN,
    ),
    ("think prose", "thinks, explains, calls", T + "I list the files.\n" + tool(J_RUN), RUN),
    ("think raw", "thinks, then a raw block", T + RAW, WRITE),
    (
        "think in raw",
        "think tags in the content",
        RAW.replace("x = 1", "</think><think>"),
        call("write_file", path="a.py", content="</think><think>\ny = 2\n"),
    ),
    (
        "think in answer",
        "think tags named in an answer",
        "<final>Models write <think>..</think>.</final>",
        mca.Final("Models write <think>..</think>."),
    ),
    ("think after", "calls, then thinks", f"{tool(J_RUN)}\n<think>Now I wait.</think>", RUN),
]
WELCOME: list[Row] = [  # clear to a person; reading them is welcome, refusing is allowed
    ("tag name attributes", "the tool as the tag, attributes", '<read_file path="a.py"/>', READ),
    (
        "function name",
        "attribute for the name, another tag",
        '<function name="read_file">{"path":"a.py"}</function>',
        READ,
    ),
    (
        "tool_code tag",
        "gemma's fence as a tag",
        '<tool_code>read_file(path="a.py")</tool_code>',
        READ,
    ),
    (
        "body for path",
        "the body of the tag is the path",
        '<tool name="list_files">src</tool>',
        LIST,
    ),
    (
        "fence open before",
        "a fence not closed, then the call",
        f"```python\nprint(1)\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    (
        "think doubled",
        "the server opened it already",
        f"<think>\n<think>\nI look.\n</think>\n{tool(J_RUN)}",
        RUN,
    ),
    (
        "backtick open",
        "a code span not closed, then the call",
        f"I check `a.py first.\n<tool>{J_RUN}</tool>",
        RUN,
    ),
    ("tag glued", "the bracket of the tag lost", f"<tool{J_RUN}</tool>", RUN),
    (
        "tag colon",
        "name in the tag after a colon",
        '<tool:run_shell>{"command":"ls -la"}</tool>',
        RUN,
    ),
    (
        "tag equals",
        "name in the tag after an equals sign",
        '<tool=run_shell>{"command":"ls -la"}</tool>',
        RUN,
    ),
    (
        "phi",
        "phi native",
        '<|tool_call|>[{"name": "read_file", "arguments": {"path": "a.py"}}]<|/tool_call|>',
        READ,
    ),
    (
        "fence then prose",
        "fence around the tag, prose after",
        f"```xml\n<tool>{J_RUN}</tool>\n```\nI wait for the result.",
        RUN,
    ),
    (
        "json then content",
        "path in JSON, content raw",
        '<tool>{"name":"write_file","args":{"path":"a.py"}}\n<content>\nx = 1\ny = 2\n'
        "</content></tool>",
        WRITE,
    ),
    (
        "content as body",
        "no <content> around the content",
        '<tool name="write_file" path="a.py">\nx = 1\ny = 2\n</tool>',
        WRITE,
    ),
    ("raw two", "several raw writes", RAW + "\n" + RAW.replace("a.py", "b.py"), WRITE),
    (
        "args child",
        "arguments as JSON in a child tag",
        '<tool name="run_shell"><args>{"command":"ls -la"}</args></tool>',
        RUN,
    ),
    (
        "name child",
        "name and arguments as child tags",
        "<tool><name>read_file</name><path>a.py</path></tool>",
        READ,
    ),
    (
        "name args child",
        "name and args as child tags",
        '<tool><name>run_shell</name><args>{"command":"ls -la"}</args></tool>',
        RUN,
    ),
    (
        "whole encoded",
        "the call as a JSON string",
        tool('"{\\"name\\":\\"run_shell\\",\\"args\\":{\\"command\\":\\"ls -la\\"}}"'),
        RUN,
    ),
    (
        "tool_calls",
        "OpenAI message",
        '{"tool_calls":[{"type":"function","function":{"name":"read_file",'
        '"arguments":"{\\"path\\":\\"a.py\\"}"}}]}',
        READ,
    ),
    (
        "args list",
        "list for args with one object",
        tool('{"name":"list_files","args":[{"path":"src"}]}'),
        LIST,
    ),
    ("key colon", "name as the only key", tool('{"run_shell": {"command": "ls -la"}}'), RUN),
    ("name then json", "name before the object", tool('run_shell\n{"command":"ls -la"}'), RUN),
    ("python call", "Python call in the tag", tool('run_shell(command="ls -la")'), RUN),
    (
        "python call path",
        "Python call in the tag, reading",
        tool("read_file(path='a.py', start=1, end=5)"),
        call("read_file", path="a.py", start=1, end=5),
    ),
    (
        "missing comma",
        "comma between pairs lost",
        tool('{"name":"read_file" "args":{"path":"a.py"}}'),
        READ,
    ),
    (
        "triple quotes",
        "Python triple quotes for the content",
        tool('{"name":"write_file","args":{"path":"a.py","content":"""x = 1\ny = 2\n"""}}'),
        WRITE,
    ),
    (
        "backtick string",
        "JavaScript template for the content",
        tool('{"name":"write_file","args":{"path":"a.py","content":`x = 1\ny = 2\n`}}'),
        WRITE,
    ),
    ("raw body", "the body of the tag is the content", '<tool name="run_shell">ls -la</tool>', RUN),
    (
        "tag name",
        "the tool as the tag, JSON in it",
        '<run_shell>{"command":"ls -la"}</run_shell>',
        RUN,
    ),
    ("hermes tools", "tool_calls for tool_call", HERMES.replace("tool_call>", "tools>"), RUN),
    (
        "mistral no start",
        "mistral native, first token lost",
        'run_shell[ARGS]{"command": "ls -la"}',
        RUN,
    ),
    (
        "deepseek ascii",
        "deepseek native with ASCII bars",
        DEEP.replace("｜", "|").replace("▁", "_"),
        RUN,
    ),
    ("pythonic bare", "llama4 native", '[run_shell(command="ls -la")]', RUN),
    (
        "granite old",
        "granite native, older",
        '<tool_call>[{"name": "read_file", "arguments": {"path": "a.py"}}]',
        READ,
    ),
    (
        "granite word",
        "granite native, word",
        '<function_call> {"name": "read_file", "arguments": {"path": "a.py"}}',
        READ,
    ),
    (
        "functools",
        "phi4-mini native",
        'functools[{"name": "read_file", "arguments": {"path": "a.py"}}]',
        READ,
    ),
    (
        "kimi",
        "kimi native",
        "<|tool_calls_section_begin|><|tool_call_begin|>"
        "functions.read_file:0<|tool_call_argument_begin|>"
        '{"path": "a.py"}<|tool_call_end|><|tool_calls_section_end|>',
        READ,
    ),
    (
        "minimax",
        "minimax native",
        '<minimax:tool_call>\n<invoke name="run_shell">\n<parameter name="command">'
        "ls -la</parameter>\n</invoke>\n</minimax:tool_call>",
        RUN,
    ),
    ("invoke in our tag", "inside our tag", f"<tool>{INVOKE}</tool>", RUN),
    ("cline in our tag", "inside our tag", f"<tool>\n{CLINE}\n</tool>", READ),
    (
        "react",
        "ReAct text",
        'Thought: I look.\nAction: run_shell\nAction Input: {"command": "ls -la"}',
        RUN,
    ),
]
RECOVER = [*THE_TAG, *THE_JSON, *NAMES, *NATIVE, *THINKING]


@pytest.mark.parametrize(("raw", "want"), [pytest.param(r, w, id=i) for i, _, r, w in RECOVER])
def test_a_slip_whose_meaning_is_clear_is_understood(raw: str, want: mca.Call | mca.Final) -> None:
    got = mca.parse(raw)
    assert same(got, want), got


@pytest.mark.parametrize(("raw", "want"), [pytest.param(r, w, id=i) for i, _, r, w in WELCOME])
def test_a_rare_slip_is_understood_or_sent_back(raw: str, want: mca.Call | mca.Final) -> None:
    got = mca.parse(raw)
    assert isinstance(got, mca.Malformed) or same(got, want), got


def test_a_slip_between_blank_lines_reads_the_same() -> None:
    for name, _, raw, _ in [*RECOVER, *WELCOME]:
        got, want = mca.parse(f"\n\n{raw}\n\n"), mca.parse(raw)
        assert same(got, want) or type(got) is type(want) is mca.Malformed, name


def test_no_slip_is_run_from_within_thinking_or_an_answer() -> None:
    for name, _, raw, want in [*RECOVER, *WELCOME]:
        if isinstance(want, mca.Final) or "think>" in raw.lower() or "<final>" in raw:
            continue
        for around in ("<think>\n{}\n", "<final>\n{}\n</final>", "{}\n</think>\nDone."):
            text = around.replace("{}", raw)
            got = mca.parse(text)
            if (stops(text) or len(text)) >= len(raw) - 1:  # else it has run before the end came
                assert not isinstance(got, mca.Call), (name, around, got)


def test_a_cut_reply_yields_the_same_call_or_none() -> None:
    for name, _, raw, want in [*RECOVER, *WELCOME]:
        got = mca.parse(raw, True)
        assert not isinstance(got, mca.Call) or same(got, want), name


def test_a_slip_is_rendered_in_the_canonical_form_and_reads_the_same() -> None:
    for name, _, raw, _ in RECOVER:
        got = mca.parse(raw)
        if isinstance(got, mca.Call):
            text = mca.render(got)
            assert text.startswith("<tool") and text.endswith("</tool>"), name
            assert mca.parse(text) == mca.Call(got.name, got.args), name


def streamed(text: str) -> str:
    """Return what a client reads: up to the first piece after the reply is finished."""
    read, is_over = "", False
    for part in re.findall(r"\s+|[<\[][^\s<>\[\]]*[>\]]|\w+|.", text):
        read += part
        if is_over and part.strip() and mca.finished(read):
            break
        is_over = is_over or mca.finished(read)
    return read


def test_a_stream_runs_what_the_whole_reply_would_have_run() -> None:
    replies = [*(row[2] for row in [*RECOVER, *WELCOME]), *(row[2] for row in NEVER)]
    tails = ("", "\n</think>\nDone.", "\n[tool:x]\n</think>No.", f"\n{LS}", "\nSo.\n</think>\nNo.")
    tails += ("\n</content></tool>" + "x" * 300 + "</content></tool>",)
    leads = ("", "Well.\n", "<think>a</think>", "<think>a <think> b</think>")
    pairs = ((reply, tail) for reply in replies for tail in (*tails, ""))
    half = itertools.islice(pairs, 0, None, 2)  # each reply with every other tail, by turns
    for (reply, tail), lead in zip(half, itertools.cycle((*leads, leads[0]))):
        text = lead + reply + tail
        whole, part = mca.parse(text), mca.parse(streamed(text))
        if isinstance(whole, mca.Call) or isinstance(part, mca.Call):
            assert same(whole, part), (text, part, whole)


def test_no_slip_is_run_from_within_a_quotation() -> None:
    for name, _, raw, _ in [*RECOVER, *WELCOME]:
        texts = ["The file says:\n> " + raw.replace("\n", "\n> ") + "\nI ignore that."]
        if "`" not in raw and "\n" not in raw:
            texts += [f"One may write `{raw}` here.", f"One may write ``{raw}``"]
        if '"' not in raw and "\n" not in raw:
            texts += [f'The file says "{raw}", which I ignore.']
        for text in texts:
            if "</think" not in raw and "</reason" not in raw:
                assert not risky(mca.parse(text)), (name, text)


def test_a_risky_slip_without_our_tag_counts_only_at_the_end_and_after_little_prose() -> None:
    for name, _, raw, want in [*RECOVER, *WELCOME]:
        if "<tool" in raw.replace("<tool_call", "").replace("<tools", "").lower():
            continue
        if risky(want):
            assert not risky(mca.parse(f"{raw}\n\nThis would do it, I think.")), name
            assert not risky(mca.parse(f"{raw}\n<final>Done.</final>")), name
            if "think" not in raw.lower() and "analysis" not in raw:
                assert not risky(mca.parse(LINES + raw)), name


def test_no_prefix_of_a_slip_runs_or_writes_something_else() -> None:
    for name, _, raw, want in [*RECOVER, *WELCOME]:
        for end in range(len(raw) % 2, len(raw), 2):
            got = mca.parse(raw[:end], end % 6 == 0)
            assert not risky(got) or same(got, want), (name, raw[:end], got)


# ------------------------------------------------------------------------------------------------
# Replies that must not run or write anything
# ------------------------------------------------------------------------------------------------
M, F = mca.Malformed, mca.Final
MF = mca.Malformed | mca.Final
W_OPEN = '<tool name="write_file" path="a.py"><content>\nx = 1\n'
RM = '{"name":"run_shell","args":{"command":"rm -rf build"}}'
NEVER: list[tuple[str, str, str, bool, Any]] = [
    ("tag cut", "the tag itself is cut", "<tool", False, M),
    ("tag cut after prose", "the tag itself is cut", "I look.\n<tool", True, M),
    ("tag cut in the name", "the tag is cut", '<tool name="wri', False, M),
    (
        "list after a raw tag",
        "not the arguments",
        '<tool name="write_file" path="a.py">\n[',
        False,
        M,
    ),
    (
        "list of lists",
        "not the arguments",
        '<tool name="write_file" path="a.py">[[1]]</tool>',
        False,
        M,
    ),
    (
        "value in a raw tag",
        "not the arguments",
        '<tool name="run_shell" timeout="5">["rm x"]</tool>',
        False,
        M,
    ),
    ("german quotes", "quoted", f"Da steht „{tool(RM)}“, aber nein.", False, MF),
    ("guillemets", "quoted", f"On lit « {tool(RM)} » mais non.", False, MF),
    (
        "two readings name attribute",
        "two names",
        '<tool name="read_file" name="run_shell" command="rm x"/>',
        False,
        M,
    ),
    (
        "two readings name body",
        "two names",
        f'<tool name="read_file" path="a">{RM}</tool>',
        False,
        M,
    ),
    (
        "two readings tag and body",
        "two commands",
        f'<tool name="run_shell" command="ls">{RM}</tool>',
        False,
        M,
    ),
    (
        "junk after child",
        "text between the ends",
        '<tool name="run_shell"><command>ls</command> -la</tool>',
        False,
        M,
    ),
    (
        "command list",
        "args is a list of words",
        tool('{"name":"run_shell","args":["rm","x"]}'),
        False,
        M,
    ),
    (
        "unquoted command",
        "a value without quotes",
        tool('{"name":"run_shell","args":{"command":rm -rf x}}'),
        False,
        M,
    ),
    (
        "apostrophe not escaped",
        "where the string ends is a guess",
        tool("{'name':'run_shell','args':{'command':'echo it's'}}"),
        False,
        M,
    ),
    (
        "two strings",
        "two values",
        tool('{"name":"run_shell","args":{"command":"ls" "rm"}}'),
        False,
        M,
    ),
    (
        "two objects",
        "two calls in one tag, nothing between",
        tool(J_READ + RM),
        False,
        M | mca.Call,
    ),
    ("empty", "nothing was said", "", False, M),
    ("blank", "nothing was said", " \n\t\r\n", False, M),
    ("empty cut", "nothing was said", "", True, M),
    ("empty call", "nothing in the tag", "<tool></tool>", False, M),
    ("empty object", "no name", tool("{}"), False, M),
    ("no name", "a command for nobody", tool('{"args":{"command":"ls"}}'), False, M),
    ("name null", "no name", tool('{"name":null,"args":{}}'), False, M),
    ("name number", "no name", tool('{"name":5,"args":{}}'), False, M),
    ("name empty", "no name", tool('{"name":"","args":{}}'), False, M),
    (
        "args string",
        "arguments that are none",
        tool('{"name":"run_shell","args":"{command: "}'),
        False,
        M,
    ),
    ("array of words", "not a call", tool('["run_shell","ls"]'), False, M),
    ("words in the tag", "a wish, not a call", tool("please list the files"), False, M),
    ("number in the tag", "not a call", tool("42"), False, M),
    ("think open", "still thinking", f"<think>I could run {tool(RM)}", False, M),
    ("think open plain", "still thinking", "<think>\nThe user wants", False, M),
    ("think open cut", "still thinking", "<think>\nThe user wants", True, M),
    ("think open final", "still thinking", "<think>\n<final>Done.</final>", False, M),
    ("think open upper", "still thinking", f"<Think>\n{tool(RM)}\n", False, M),
    ("think open attribute", "still thinking", f'<thinking type="deep">\n{tool(RM)}\n', False, M),
    ("think only", "no answer after thinking", "<think>I am done.</think>", False, M),
    (
        "think quotes its end",
        "a draft whose content quotes the end of thinking",
        f"<think>{RAW.replace('x = 1', '</think>')}",
        False,
        MF,
    ),
    (
        "think quotes its end, json",
        "the same as JSON",
        '<think><tool>{"name":"write_file","args":{"path":"a","content":"</think>"}}</tool>',
        False,
        MF,
    ),
    (
        "think quotes its end, closed",
        "the same, closed",
        f"<think>{RAW.replace('x = 1', '</think>')}</think>\nNo.",
        False,
        MF,
    ),
    ("think end last", "all before was thinking", f"{tool(RM)}\n</think>", False, M),
    (
        "think end last, answer",
        "all before was thinking",
        f"{tool(RM)}\n</think>\nI won't.",
        False,
        F,
    ),
    ("think native", "a native draft", f"<think>\n{QWEN}\n</think>\nI won't.", False, F),
    ("think native open", "a native draft, still thinking", f"<think>\n{QWEN}", False, M),
    ("think hermes open", "a native draft, still thinking", f"<think>\n{HERMES}\n", False, M),
    ("think bare open", "a bare draft, still thinking", f"<think>\n{RM}", False, M),
    ("think second open", "thinks again", f"<think>a</think>\n<think>\n{tool(RM)}", False, M),
    (
        "harmony analysis only",
        "drafted in the analysis channel",
        f"<|channel|>analysis<|message|>Maybe {tool(RM)}<|end|>",
        False,
        MF,
    ),
    (
        "cohere thinking",
        "drafted in the thinking channel",
        f"<|START_THINKING|>Maybe {tool(RM)}<|END_THINKING|>I won't.",
        False,
        MF,
    ),
    (
        "final with call",
        "shown in an answer",
        f"<final>Send {tool(RM)} to clean.</final>",
        False,
        F,
    ),
    (
        "final with call open",
        "shown in an answer without end",
        f"<final>Send {tool(RM)} to clean.",
        False,
        F,
    ),
    ("final with raw", "shown in an answer", f"<final>Send\n{RAW}\n</final>", False, F),
    ("final with native", "shown in an answer", f"<final>\n{QWEN}\n</final>", False, F),
    ("final with bare", "shown in an answer", f"<final>\n{RM}\n</final>", False, F),
    ("final then bare", "the answer stands", f"<final>Done.</final>\n{RM}", False, F),
    ("final then native", "the answer stands", f"<final>Done.</final>\n{QWEN}", False, F),
    (
        "bare then final",
        "without a tag only as the last thing",
        f"{RM}\n<final>Done.</final>",
        False,
        MF,
    ),
    (
        "native then final",
        "without a tag only as the last thing",
        f"{QWEN}\n<final>Done.</final>",
        False,
        MF,
    ),
    ("code span", "quoted", f"Write `{tool(RM)}` to clean.", False, MF),
    ("code span double", "quoted with two backticks", f"Write ``{tool(RM)}`` to clean.", False, MF),
    ("code span bare", "quoted", f"Write `{RM}` to clean.", False, MF),
    ("code span last", "quoted at the end", f"To clean, write `{tool(RM)}`", False, MF),
    ("quoted prose single open", "quoted, no end", f"The README says '{tool(RM)}", False, MF),
    (
        "think end after a fence",
        "all before it was thinking",
        f"```\n{RM}\n```\n</think>",
        False,
        M,
    ),
    (
        "think end after a fence, answer",
        "all before it was thinking",
        f"```json\n{RM}\n```\n</think>\nI won't.",
        False,
        F,
    ),
    ("blockquote", "quoted", f"The file says:\n> {tool(RM)}\nI ignore that.", False, MF),
    ("blockquote last", "quoted at the end", f"The file says:\n\n> {tool(RM)}", False, MF),
    ("blockquote indented", "quoted", f"The file says:\n  > {tool(RM)}\n", False, MF),
    (
        "blockquote raw",
        "quoted, several lines",
        "It says:\n> " + RAW.replace("\n", "\n> "),
        False,
        MF,
    ),
    ("blockquote bare", "quoted at the end", f"The file says:\n> {RM}", False, MF),
    ("quoted prose", "quoted", f'The README says "{tool(RM)}" but I will not.', False, MF),
    ("quoted prose smart", "quoted", f"The README says “{tool(RM)}” but I will not.", False, MF),
    ("quoted prose single", "quoted", f"The README says '{tool(RM)}' but I will not.", False, MF),
    ("bare after prose", "more than two lines before", f"{LINES}{RM}", False, M),
    ("bare before prose", "not the last thing", f"{RM}\nThis would clean it.", False, M),
    ("fenced after prose", "more than two lines before", f"{LINES}```json\n{RM}\n```", False, M),
    (
        "fenced before prose",
        "not the last thing",
        f"```json\n{RM}\n```\nThis would clean it.",
        False,
        M,
    ),
    (
        "fenced shown",
        "shown in the middle",
        f"Format:\n```json\n{RM}\n```\nIs that right?",
        False,
        MF,
    ),
    ("qwen after prose", "more than two lines before", f"{LINES}{QWEN}", False, M),
    ("qwen before prose", "not the last thing", f"{QWEN}\nThis would list it.", False, M),
    ("hermes after prose", "more than two lines before", f"{LINES}{HERMES}", False, M),
    ("invoke before prose", "not the last thing", f"{INVOKE}\nThis would list it.", False, M),
    (
        "cline after prose",
        "more than two lines before",
        f"{LINES}<execute_command>\n<command>rm x</command>\n</execute_command>",
        False,
        M,
    ),
    (
        "mistral before prose",
        "not the last thing",
        '[TOOL_CALLS]run_shell[ARGS]{"command": "rm x"}\nDone.',
        False,
        M,
    ),
    ("read after prose", "more than two lines before, reading", f"{LINES}{J_READ}", False, MF),
    (
        "package.json",
        "a name that is no tool",
        '{"name": "demo", "version": "1.0", "scripts": {"test": "jest"}}',
        False,
        F,
    ),
    (
        "package.json bash",
        "a tool's name, but no arguments",
        'It is:\n{"name": "bash", "version": "1.0"}',
        False,
        MF,
    ),
    (
        "python example",
        "shown code",
        'Like this:\n```python\nrun_shell(command="rm -rf x")\n```',
        False,
        MF,
    ),
    ("shell example", "shown command", "Run:\n```bash\nrm -rf build\n```", False, F),
    ("html example", "shown page", "<html><body><script>x()</script></body></html>", False, F),
    ("end missing run", "the end tag is missing", f"<tool>{RM}", False, M),
    ("end missing write", "the end tag is missing", f"<tool>{J_WRITE}\n", False, M),
    ("end missing patch", "the end tag is missing", f"<tool>{J_PATCH}", False, M),
    (
        "end missing unknown",
        "unknown tools may be risky",
        tool('{"name":"frob","args":{}}')[:-7],
        False,
        M,
    ),
    ("end half", "the end tag is cut", f"<tool>{RM}</too", False, M),
    (
        "end missing fence",
        "the end tag is missing in a fence",
        f"```xml\n<tool>{RM}\n```",
        False,
        M,
    ),
    ("end missing final", "no end, then an answer", f"<tool>{RM}\n<final>Done.", False, M),
    (
        "command cut",
        "the command is cut",
        '<tool>{"name":"run_shell","args":{"command":"rm -rf /tmp',
        False,
        M,
    ),
    (
        "command cut, cut",
        "the command is cut",
        '<tool>{"name":"run_shell","args":{"command":"rm -rf /tmp',
        True,
        M,
    ),
    (
        "path cut",
        "a string is open, reading too",
        '<tool>{"name":"read_file","args":{"path":"src/ma',
        False,
        M,
    ),
    (
        "command cut at the end tag",
        "the string is open at the end tag",
        '<tool>{"name":"run_shell","args":{"command":"rm -rf /tmp</tool>',
        False,
        M,
    ),
    ("cut read", "open when cut, reading too", f"<tool>{J_READ}", True, M),
    ("cut read brace", "open when cut", f"<tool>{J_READ[:-1]}", True, M),
    ("bare cut", "bare and cut", RM[:-1], True, M),
    (
        "bare command cut",
        "bare, the command is cut",
        '{"name":"run_shell","args":{"command":"rm -rf /tmp',
        False,
        M,
    ),
    ("bare brace lost", "bare, risky, brace missing", RM[:-1], False, M),
    ("raw open", "the content has no end", W_OPEN, False, M),
    ("raw open cut", "the content has no end", W_OPEN, True, M),
    ("raw half end", "the end tag is cut", W_OPEN + "</conte", False, M),
    ("raw no tool end", "</tool> is missing", W_OPEN + "</content>", False, M),
    ("raw no content end", "</content> is missing", W_OPEN + "</tool>", False, M),
    (
        "raw two content ends",
        "two possible ends",
        W_OPEN + "</content>\ny\n</content></tool>",
        False,
        M,
    ),
    (
        "raw tool end inside",
        "two possible ends",
        W_OPEN + "</tool>\ny\n</content></tool>",
        False,
        M,
    ),
    (
        "raw whole end inside",
        "two possible ends",
        W_OPEN + "</content></tool>\ny\n</content></tool>",
        False,
        M,
    ),
    (
        "raw patch two ends",
        "two possible ends",
        '<tool name="patch_file" path="a"><old_text>a</old_text>b</old_text><new_text>'
        "c</new_text></tool>",
        False,
        M,
    ),
    (
        "raw patch new open",
        "new_text is cut",
        '<tool name="patch_file" path="a"><old_text>a</old_text><new_text>c',
        False,
        M,
    ),
    (
        "raw patch new missing",
        "new_text is cut before it began",
        '<tool name="patch_file" path="a"><old_text>a</old_text><new_te',
        False,
        M,
    ),
    ("raw holds a call", "a call inside content", W_OPEN + tool(RM) + "\n", False, M),
    (
        "raw holds a call, closed",
        "a call inside content: two possible ends",
        W_OPEN + tool(RM) + "\n</content></tool>",
        False,
        M,
    ),
    (
        "attribute open",
        "the start tag is cut",
        '<tool name="run_shell" command="rm -rf /tmp',
        False,
        M,
    ),
    (
        "attribute tag open",
        "the start tag is cut",
        '<tool name="run_shell" command="rm -rf /tmp"',
        False,
        M,
    ),
    (
        "attribute end lost",
        "risky and not closed",
        '<tool name="run_shell" command="rm -rf /tmp">',
        False,
        M,
    ),
    (
        "qwen value open",
        "native, the value is cut",
        "<tool_call>\n<function=run_shell>\n<parameter=command>\nrm -rf /tmp",
        False,
        M,
    ),
    ("qwen value open, write", "native, the content is cut", QWEN_CODE[:-70], False, M),
    (
        "qwen value cut",
        "native and cut",
        "<tool_call>\n<function=run_shell>\n<parameter=command>\nrm -rf /tmp",
        True,
        M,
    ),
    (
        "qwen function open",
        "native, risky, nothing closed but the value",
        QWEN.removesuffix("\n</function>\n</tool_call>"),
        False,
        M,
    ),
    ("hermes open", "native, risky, end missing", HERMES.removesuffix("\n</tool_call>"), True, M),
    (
        "hermes string open",
        "native, the command is cut",
        '<tool_call>\n{"name": "run_shell", "arguments": {"command": "rm -rf /tmp',
        False,
        M,
    ),
    (
        "gemma open",
        "native, the value is cut",
        '<|tool_call>call:run_shell{command:<|"|>rm -rf /tmp',
        False,
        M,
    ),
    (
        "glm open",
        "native, the value is cut",
        "<tool_call>run_shell\n<arg_key>command</arg_key>\n<arg_value>rm -rf /tmp",
        False,
        M,
    ),
    ("deepseek open", "native, the command is cut", DEEP[: DEEP.index("-la")], False, M),
    (
        "mistral open",
        "native, the command is cut",
        '[TOOL_CALLS]run_shell[ARGS]{"command": "rm -rf /tmp',
        False,
        M,
    ),
    ("harmony open", "native, the command is cut", HARMONY[: HARMONY.index("-la")], False, M),
    (
        "lfm2 open",
        "native, the command is cut",
        '<|tool_call_start|>[run_shell(command="rm -rf /tmp',
        False,
        M,
    ),
    (
        "invoke open",
        "native, the value is cut",
        '<invoke name="run_shell">\n<parameter name="command">rm -rf /tmp',
        False,
        M,
    ),
    ("cline open", "native, the value is cut", "<execute_command>\n<command>rm -rf /tmp", False, M),
    (
        "two readings key",
        "the command is given twice",
        tool('{"name":"run_shell","args":{"command":"ls","cmd":"rm x"}}'),
        False,
        M,
    ),
    (
        "two readings name",
        "two names",
        tool('{"name":"read_file","tool":"run_shell","args":{"command":"rm x"}}'),
        False,
        M,
    ),
    (
        "two readings args",
        "two argument objects",
        tool('{"name":"run_shell","args":{"command":"ls"},"arguments":{"command":"rm x"}}'),
        False,
        M,
    ),
    (
        "two readings beside",
        "two paths",
        tool('{"name":"write_file","path":"b","args":{"path":"a","content":"x"}}'),
        False,
        M,
    ),
    (
        "two readings duplicate",
        "one key twice",
        tool('{"name":"run_shell","args":{"command":"ls","command":"rm x"}}'),
        False,
        M,
    ),
    (
        "two readings attribute",
        "attribute and child differ",
        '<tool name="write_file" path="a"><path>b</path><content>x</content></tool>',
        False,
        M,
    ),
    (
        "two readings attribute twice",
        "one attribute twice",
        '<tool name="write_file" path="a" path="b"><content>x</content></tool>',
        False,
        M,
    ),
    (
        "two readings child twice",
        "the content is given twice",
        '<tool name="write_file" path="a"><content>x</content><content>y</content></tool>',
        False,
        M,
    ),
    (
        "quotes not escaped",
        "where the string ends is a guess",
        tool('{"name":"run_shell","args":{"command":"echo "rm", "path": "x""}}'),
        False,
        M,
    ),
    (
        "quotes not escaped in code",
        "where the content ends is a guess",
        tool('{"name":"write_file","args":{"path":"a","content":"print("a", "b")"}}'),
        False,
        M,
    ),
    (
        "python not literal",
        "an expression is not a value",
        tool('run_shell(command="ls " + x)'),
        False,
        M,
    ),
    (
        "python f-string",
        "an expression is not a value",
        '<|tool_call_start|>[run_shell(command=f"rm {x}")]<|tool_call_end|>',
        False,
        M,
    ),
    (
        "js concatenation",
        "an expression is not a value",
        tool('{"name":"run_shell","args":{"command":"ls " + "-la"}}'),
        False,
        MF,
    ),
    ("ellipsis", "left out", tool('{"name":"write_file","args":{"path":"a", ...}}'), False, M),
    *(
        (
            f"think {n} {what}",
            begin,
            begin * is_open + f"Maybe {tool(RM)} or so." + after,
            False,
            kind,
        )
        for n, (begin, end) in enumerate(MINDS)
        for what, is_open, after, kind in (
            ("open", 1, "", M),
            ("stray end", 0, f"{end}\nI won't.", F),
            ("answer", 1, f"{end}\n<final>I won't.</final>", F),
        )
    ),
    (
        "fence info",
        "an inner fence with a word",
        f"```md\n```text\n{tool(RM)}\n```\n```\n",
        False,
        F,
    ),
    ("fence in fence", "a fence in a fence", f"So:\n\n```\n```json\n{tool(RM)}\n```\n", False, F),
    ("fence longer", "three do not close four", f"~~~~\n~~~\n{tool(RM)}\n~~~~\nSee?", False, F),
    (
        "unknown element",
        "a call in the argument of an unknown one",
        f"<note><text>{tool(RM)}</text></note>",
        False,
        MF,
    ),
    (
        "unknown object",
        "a call in an argument",
        f'{{"note": {{"name": "x", "a": {RM}}}}}',
        False,
        MF,
    ),
    *(
        (f"contradiction {n}", "the call in it is not that around it", text, False, M)
        for n, text in enumerate(
            [
                f'{{"name":{RM},"args":{{"command":"ls"}}}}',
                f'<tool name="list_files">{{"function":{RM}}}</tool>',
                f'<tool>{{"function":{RM},"path":"src"}}</tool>',
            ]
        )
    ),
    *(
        (f"quotation {n}", "in a quotation", text.replace("RM", tool(RM)), False, MF)
        for n, text in enumerate(
            [
                *("「RM」 stands there.", "『RM』", "‹RM›", "»RM« it says", "«RM» it says"),
                *("- > RM", "1. > RM", "<code>RM</code>", "<pre>\nRM\n</pre>", "<!-- RM -->"),
                *("It says:\n\n    RM\n\nSo.", "It says:\n\n\tRM", "<blockquote>RM</blockquote>"),
            ]
        )
    ),
    ("tool result", "pretends to be a result", f"[tool:read_file]\n{tool(RM)[:20]}\n", False, MF),
]

WHOLE = (RM, QWEN[:-13], INVOKE, W_OPEN + "</content></tool>", '[ARGS]{"command": "rm x"}')


@pytest.mark.parametrize(
    ("raw", "cut", "kind"), [pytest.param(r, c, k, id=i) for i, _, r, c, k in NEVER]
)
def test_nothing_is_run_that_was_not_clearly_asked_for(raw: str, cut: bool, kind: Any) -> None:
    got = mca.parse(raw, cut)
    assert not risky(got), got
    assert isinstance(got, kind), got
    if not (isinstance(mca.parse(raw), mca.Final) and "<final>" in raw):
        assert not mca.finished(raw) or isinstance(got, mca.Malformed)


def test_what_is_not_run_is_not_run_either_when_the_reply_is_shorter() -> None:
    for name, _, raw, _, _ in NEVER:
        for end in range(len(raw)):
            got = mca.parse(raw[:end], end % 3 == 0)
            if risky(got):  # a call that was complete before more text took it back
                assert any(whole in raw[:end] for whole in WHOLE), (name, raw[:end], got)


def test_no_damaged_reply_raises() -> None:
    rng = random.Random(11)
    replies = [row[2] for row in (*RECOVER, *WELCOME, *NEVER) if row[2]]
    for _ in range(2500):
        text = rng.choice(replies)
        for _ in range(rng.randrange(1, 4)):
            begin = rng.randrange(len(text) + 1)
            end = begin + rng.choice([0, 1, 2, 5, 999])
            text = text[:begin] + rng.choice(["", "", *PIECES]) + text[end:]
        assert isinstance(mca.parse(text, begin % 2 == 0), mca.Call | F | M), text
        mca.finished(text)


def test_an_unreadable_reply_is_answered_with_a_sentence_and_the_right_form() -> None:
    for name, _, raw, cut, _ in NEVER:
        got = mca.parse(raw, cut)
        if isinstance(got, mca.Malformed):
            assert len(got.why.split()) >= 4 and got.why.strip() == got.why, name


# ------------------------------------------------------------------------------------------------
# The exact bytes
# ------------------------------------------------------------------------------------------------
EXACT: list[tuple[str, str, str]] = [  # id, what stands between <content> and </content>, content
    ("one newline goes", "\nx\n", "x\n"),
    ("only one newline goes", "\n\nx\n", "\nx\n"),
    ("no newline", "x", "x"),
    ("crlf gap", "\r\nx\r\n", "x\r\n"),
    ("crlf kept", "\na\r\nb\r\n", "a\r\nb\r\n"),
    ("lone cr kept", "\na\rb", "a\rb"),
    ("empty", "", ""),
    ("one newline is empty", "\n", ""),
    ("two newlines are one", "\n\n", "\n"),
    ("leading blanks", "    x = 1\n", "    x = 1\n"),
    ("leading blanks after gap", "\n    x = 1\n", "    x = 1\n"),
    ("blank after <content>", " \nx", " \nx"),
    ("trailing blanks", "\nx  \n  ", "x  \n  "),
    ("trailing newlines", "\nx\n\n\n", "x\n\n\n"),
    ("tabs", "\n\tx\t\n", "\tx\t\n"),
    ("entities", "\n&lt;a&gt; &amp;&amp; &quot;\n", "&lt;a&gt; &amp;&amp; &quot;\n"),
    ("numeric entities", "\n&#10;&#x41;\n", "&#10;&#x41;\n"),
    ("tags", "\n<b>x</b><br/>\n", "<b>x</b><br/>\n"),
    ("operators", "\nif a<b and c>d: a<<=1\n", "if a<b and c>d: a<<=1\n"),
    ("think", "\n<think>x</think>\n</think>\n", "<think>x</think>\n</think>\n"),
    ("think open", "\n<think>\n", "<think>\n"),
    ("final", "\n<final>x</final>\n", "<final>x</final>\n"),
    ("final open", "\n<final>\n", "<final>\n"),
    ("tool open", "\nthe <tool> tag\n", "the <tool> tag\n"),
    ("native", f"\n{QWEN}\n", QWEN + "\n"),
    ("mistral", '\n[TOOL_CALLS]run_shell[ARGS]{"a": 1}\n', '[TOOL_CALLS]run_shell[ARGS]{"a": 1}\n'),
    ("json call", f"\n{RM}\n", RM + "\n"),
    ("other end tag", "\n</old_text>\n", "</old_text>\n"),
    ("escapes", "\nprint('a\\n\\t\\\\ \\d')\n", "print('a\\n\\t\\\\ \\d')\n"),
    ("quotes", '\n\'"\'"""“”`\n', '\'"\'"""“”`\n'),
    ("backticks", "\n`x` ``y``\n", "`x` ``y``\n"),
    ("odd backtick", "\n`\n", "`\n"),
    ("braces", "\n}}{{][\n", "}}{{][\n"),
    ("control characters", "\n\x00\x1b[1m\x07\n", "\x00\x1b[1m\x07\n"),
    ("zero width", "\n\ufeff\u200bx\u2028y\x85z\x0c\n", "\ufeff\u200bx\u2028y\x85z\x0c\n"),
    ("surrogate", "\n\ud800\n", "\ud800\n"),
    ("fence inside", "\na\n```\nb\n```\nc\n", "a\n```\nb\n```\nc\n"),
    ("fence first", "\n```\nb\n```\nc\n", "```\nb\n```\nc\n"),
    ("fence last", "\na\n```\nb\n```\n", "a\n```\nb\n```\n"),
    ("two fences", "\n```\na\n```\nx\n```\nb\n```\n", "```\na\n```\nx\n```\nb\n```\n"),
    ("cdata part", "\nx <![CDATA[y]]>\n", "x <![CDATA[y]]>\n"),
    ("cdata whole", "<![CDATA[x\n]]>", "x\n"),
    ("cdata whole keeps entities", "<![CDATA[&lt;\n]]>", "&lt;\n"),
    ("comment", "\n<!-- x -->\n// y\n# z\n/* w */\n", "<!-- x -->\n// y\n# z\n/* w */\n"),
    ("transcript label", "\n[user]\nhi\n[tool:x]\n", "[user]\nhi\n[tool:x]\n"),
    ("blockquote", "\n> x\n> y\n", "> x\n> y\n"),
]


@pytest.mark.parametrize(("body", "want"), [pytest.param(b, w, id=i) for i, b, w in EXACT])
def test_a_raw_block_carries_the_exact_bytes(body: str, want: str) -> None:
    raw = f'<tool name="write_file" path="x.txt"><content>{body}</content></tool>'
    for text in (raw, f"I write it.\n{raw}\nDone.", f"<think>\nSo.\n</think>\n{raw}"):
        assert same(mca.parse(text), call("write_file", path="x.txt", content=want))
    raw = f'<tool name="patch_file" path="x.txt"><old_text>{body}</old_text><new_text>{body}'
    if "</old_text>" not in body:
        want_call = call("patch_file", path="x.txt", old_text=want, new_text=want)
        assert same(mca.parse(raw + "</new_text></tool>"), want_call)


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (QWEN_CODE.replace(CODE, "\n\n  a\n\n"), "\n\n  a\n\n"),
        (QWEN_CODE.replace(CODE, "&lt;a&gt; \\n \\d"), "&lt;a&gt; \\n \\d"),
        (QWEN_CODE.replace(CODE, "# <b> </a>\n"), "# <b> </a>\n"),
        (QWEN_CODE.replace(CODE, "a\r\nb"), "a\r\nb"),
        (QWEN_CODE.replace(CODE, '{"a": 1}'), '{"a": 1}'),
        (QWEN_CODE.replace(CODE, "true"), "true"),
        (QWEN_CODE.replace(CODE, "007"), "007"),
        (QWEN_CODE.replace(CODE, "if x:\n    <tool>"), "if x:\n    <tool>"),
    ],
)
def test_a_native_block_carries_the_exact_bytes(raw: str, want: str) -> None:
    assert same(mca.parse(raw), call("write_file", path="a.py", content=want))


FENCED = "```python\nx = 1\n```"


@pytest.mark.parametrize(
    ("path", "content", "want"),
    [
        ("a.py", FENCED, "x = 1\n"),
        ("a.py", FENCED + "\n", "x = 1\n"),
        ("a.py", "```\nx = 1\n```\n", "x = 1\n"),
        ("a.py", "```py\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("a.py", "```python\nx = '''\n```\n'''\n```\n", None),
        ("a.md", FENCED, FENCED),
        ("A.MD", FENCED + "\n", FENCED + "\n"),
        ("a.markdown", FENCED + "\n", FENCED + "\n"),
        ("a.py", f"x\n{FENCED}", f"x\n{FENCED}"),
        ("a.py", f"{FENCED}\nx\n", f"{FENCED}\nx\n"),
        ("a.py", f"{FENCED}\n\n{FENCED}\n", f"{FENCED}\n\n{FENCED}\n"),
        ("a.py", '"""\n```\nx\n```\n"""\n', '"""\n```\nx\n```\n"""\n'),
        ("a.py", "```python\nx = 1\n", "```python\nx = 1\n"),
    ],
)
def test_a_fence_around_a_whole_file_goes_and_the_model_is_told(
    path: str, content: str, want: str | None
) -> None:
    in_json = json.dumps({"name": "write_file", "args": {"path": path, "content": content}})
    for text in (
        f'<tool name="write_file" path="{path}"><content>\n{content}</content></tool>',
        tool(in_json),
    ):
        got = mca.parse(text)
        if want is None:  # two readings: any refusal or the untouched bytes will do
            assert not isinstance(got, mca.Call) or "'''\n```\n'''" in got.args["content"]
            continue
        assert same(got, call("write_file", path=path, content=want)), got
        assert bool(got.note) == (want != content)


def test_a_fence_in_a_patch_or_a_command_is_kept() -> None:
    for want in (
        call("patch_file", path="a.py", old_text=FENCED, new_text=FENCED),
        call("run_shell", command=FENCED),
    ):
        assert mca.parse(mca.render(want)) == want


# ------------------------------------------------------------------------------------------------
# Cut, and what the model is told
# ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("raw", [LS, RAW, f"I look.\n{LS}\nand then", f"{T}{LS}"])
def test_a_call_that_was_closed_before_the_cut_stands(raw: str) -> None:
    assert isinstance(mca.parse(raw, True), mca.Call)


@pytest.mark.parametrize(
    ("raw", "text", "cut"),
    [
        ("<final>All is", "All is", True),
        ("<final>All is well.</final>", "All is well.", False),
        ("<final>All is well.</final>\nBy the w", "All is well.", False),
        ("All is", "All is", True),
        (f"{T}All is", "All is", True),
    ],
)
def test_an_answer_says_whether_it_was_cut(raw: str, text: str, cut: bool) -> None:
    assert mca.parse(raw, True) == mca.Final(text, cut)
    assert mca.parse(raw) == mca.Final(text)


def test_the_model_is_told_that_only_the_first_of_several_calls_was_run() -> None:
    got = mca.parse(f"{LS}\n{tool(J_READ)}")
    assert isinstance(got, mca.Call) and "first" in got.note
    assert mca.parse(LS) == mca.Call("run_shell", {"command": "ls"}, "")
    got = mca.parse(f"{LS}\n<final>Done.</final>")
    assert isinstance(got, mca.Call) and got.note
