"""The reply: what models write, and the calls, the answer or the error that it is read as."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

import mini_coding_agent as mca
from conftest import write_files

CALC = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"
NEW = CALC.replace("a + b", "b + a")
BLOCK = f"```python\n{NEW}```"
SUB = "def sub(a, b):\n    return a - b + b\n"
SCRIPT = "```python\na = 1\nb = 2\n```"
GUIDE = "# Guide\n\nRun it:\n\n```sh\nls\n```\n\nThat is all.\n"
PLAIN_GUIDE = GUIDE.replace("```sh", "```")
FILES = {"calc.py": CALC, "pkg/util.py": "# pkg/util.py\nX = 1\nY = 2\n", "notes.md": "one\ntwo\n"}

write = lambda path="calc.py", content=NEW: ("write_file", {"path": path, "content": content})
read = lambda path="calc.py", **more: ("read_file", {"path": path, **more})
shell = lambda command: ("run_shell", {"command": command})
is_call = lambda reply, *calls, **more: Row(reply, [*calls], **more)
is_text = lambda reply, text="", **more: Row(reply, text or reply, **more)
is_wrong = lambda reply, words="", **more: Row(reply, f"(?s)error: .*{words}", **more)


@dataclass(frozen=True)
class Row:
    """A reply and what it is: calls, the text of an answer, or a pattern for an error."""

    reply: str
    meaning: list[tuple[str, dict[str, str]]] | str = ""
    request: str = "Change it."
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    seen: Sequence[str] = ("calc.py", "notes.md")
    cut: bool = False


def reader(root, row=Row("")):
    """What reads replies in this folder; the one place here that knows how the program does it."""
    workspace = mca.WorkspaceContext.build(write_files(root, row.files))
    agent = mca.MiniAgent(mca.FakeModelClient([]), workspace, None)
    for path in row.seen:
        agent.run_tool("read_file", {"path": path})
    agent.turn = mca.Turn(agent, row.request)

    def read_reply(reply, cut=False):
        try:
            read = mca.parse(reply, cut, mca.View(agent))
        except mca.ToolError as error:
            return f"error: {error}"
        return [(c.name, c.args) for c in read] if isinstance(read, list) else read

    return read_reply


ROWS = {
    # The path stands above the block or in it: each of these is the call `write()`.
    **{form: is_call(f"{form}\n{BLOCK}", write()) for form in (
        "calc.py", "**calc.py**", "**`calc.py`**:", "`calc.py`:\n", "### calc.py\n", "1. `calc.py`",
        "File: calc.py", "**Updated file: `calc.py`**", "- `calc.py`", "```\ncalc.py\n```", "./calc.py",
        "path/to/calc.py", "src\\calc.py", "Here is the new `calc.py`:\n", "I turn it.\n\ncalc.py",
        "I turn it.", "<think>notes.md\n```\nno\n```\n</think>calc.py", "no\n```\n</think>calc.py",
        "calc.py\n```\nno\n```\nBetter:\n\ncalc.py", "notes.md\n```\none\ntwo\n```\ncalc.py",
        "<final>Done.\n\ncalc.py",
    )},
    **{form: is_call(form.replace("...", NEW), write()) for form in (
        "```python:calc.py\n...```", "```python calc.py\n...```", '```python title="calc.py"\n...```',
        "```calc.py\n...```", "calc.py\n~~~\n...~~~",
        "calc.py\n`````\n...`````", "calc.py\n```\n...```\n<final>done</final>",
    )},
    "no path, one new file in the request": is_call(
        SCRIPT, write("hello.py", "a = 1\nb = 2\n"), request="Write hello.py for 1.3.0, see core.load."),
    "no path, two new files in the request": is_text(SCRIPT, request="Write hello.py and bye.py."),
    "no path, a version and a module in the request": is_text(SCRIPT, request="Add core.load to 1.3.0."),
    "no path, half of a file that is not in view": is_text(BLOCK, seen=["notes.md"]),
    "no path, few lines of a file in view": is_text("```python\nreturn a + b\n```"),
    "a sentence about a file, and none of it below": is_text("See `calc.py`:\n\n```python\nimport sys\n```"),
    "shell without a path": is_text("Run it:\n\n```sh\npython calc.py\n```"),
    "shell, though the request names a file": is_text("```bash\nset -e\nls\n```", request="Write run.sh."),
    "shell below a path": is_call("run.sh\n```bash\nls\n```", write("run.sh", "ls\n")),
    "an empty block and a new file": is_call("new.py\n```\n```", write("new.py", "")),
    "an empty block and a file that is there": is_text("calc.py\n```\n```"),
    "a block in a numbered list": is_call(
        "1. So:\n\n   calc.py\n   ```python\n   def f():\n       return 1\n   ```",
        write(content="def f():\n    return 1\n")),
    "a README with shell in it": is_call(f"README.md\n```markdown\n{GUIDE}```", write("README.md", GUIDE)),
    "a README in a longer fence": is_call(
        f"README.md\n````\n{PLAIN_GUIDE}````", write("README.md", PLAIN_GUIDE)),
    "listings and a call, in their order": is_call(
        f'a.py\n```\n1\n```\ncalc.py\n{BLOCK}\n<tool name="run_shell">python a.py</tool>',
        write("a.py", "1\n"), write(), shell("python a.py")),
    "a folder": is_call('<tool name="list_files">pkg</tool>', ("list_files", {"path": "pkg"})), "what follows a call": is_call(f'<tool name="run_shell">ls</tool>\n\ncalc.py\n{BLOCK}', shell("ls")),
    "an end of thinking, as it is shown": is_call("notes.md\n```\n<\u200b/think>\n```", write("notes.md", "</think>\n")),
    "a label of ours": is_call(f"Your step:\ncalc.py\n{BLOCK}", write()), "a number in a name": is_call("01.setup.sql\n```\n1\n```", write("01.setup.sql", "1\n")), "a new file in a new folder": is_call("api/util.py\n```\n1\n```", write("api/util.py", "1\n")), "a diff": is_text("calc.py\n```diff\n-a\n+b\n```"), "a diff of a file in view": is_text("notes.md\n```diff\n one\n-two\n+2\n```"), "an open quote": is_call('<tool name="run_shell>ls</tool>', shell("ls")), "a > in quotes": is_call('<tool name="run_shell" command="ls > a"/>', shell("ls > a")), "a block as a command": is_call('<tool name="run_shell">\n```bash\nls\n```\n</tool>', shell("ls")),
    "a block without a path in an answer": is_text(f"<final>So:\n\n{BLOCK}", f"So:\n\n{BLOCK}"),
    "our own example beside a file": is_call(
        f"calc.py\n```\nthe whole text of the file, every line of it\n```\ncalc.py\n{BLOCK}", write()),
    **{"a file that holds " + what: is_call(f"notes.md\n```\n{text}```", write("notes.md", text))
       for what, text in {
           "a call in its first line": '<tool name="run_shell">ls</tool>\nruns it\n',
           "calls": 'So:\n<tool name="run_shell">ls</tool>\n<final>x</final>\n'}.items()},
    # Calls by <tool>.
    **{form: is_call(form, read()) for form in (
        'I look.\n<tool name="read_file">calc.py</tool>', '<tool name="read_file" path="calc.py"></tool>',
        '<tool name="read_file" path="calc.py"/>', "<tool read_file>calc.py</tool>",
        '```xml\n<tool name="read_file">calc.py</tool>\n```',
        '<tool name="read_file">\n<path>calc.py</path>\n</tool>')},
    "an end that the server took off": is_call('<tool name="run_shell">ls > out', shell("ls > out")),
    "an attribute and bare text": is_call(
        '<tool name="read_file" start="401">calc.py</tool>', read(start="401")),
    "an unknown tool": is_wrong('<tool name="launch">x</tool>', "launch.*read_file"),
    "a missing argument": is_wrong(
        '<tool name="patch_file"><path>calc.py</path></tool>', "patch_file.*old_text is missing"),
    "an empty command": is_wrong('<tool name="run_shell"></tool>', "command is missing"),
    # Answers.
    "an answer": is_text("<final>It adds.</final>", "It adds."),
    "an answer whose end the server took off": is_text("<final>It adds.", "It adds."),
    "plain text": is_text("It adds two numbers."),
    "a call in an answer": is_text(
        '<final>Use <tool name="run_shell">ls</tool></final>', 'Use <tool name="run_shell">ls</tool>'),
    "a quoted call": is_text('Write `<tool name="run_shell">ls</tool>` to list.'),
    "a call in thinking": is_text('<think><tool name="run_shell">ls</tool></think>\nYes.', "Yes."),
    "the file just as it is": is_text(f"calc.py\n```\n{CALC}```"),
    # What has no end.
    "nothing": is_wrong("  \n", "empty"),
    "thinking without an end": is_wrong(f"<think>calc.py\n{BLOCK}"),
    "a block without an end": is_wrong(f"calc.py\n```python\n{NEW}", "no (sure )?end"),
    "a listing that was cut": is_wrong(f"calc.py\n```python\n{NEW}", "no (sure )?end", cut=True),
    "a sentence that was cut": is_wrong("It adds.\nAnd it su", cut=True),
    "a call that was cut below a sentence": is_wrong('I look.\n<tool name="read_file">ca', cut=True),
    "a command that was cut": is_wrong('<tool name="run_shell">rm -rf build', cut=True),
    "a patch that was cut": is_wrong(
        '<tool name="patch_file"><path>calc.py</path><old_text>a</old_text><new_text>bc',
        cut=True),
    "a command that was cut after a listing": is_wrong(
        f'calc.py\n{BLOCK}\n<tool name="run_shell">rm -rf bu', cut=True),
    "no path, a function of a file in view": is_call(f"So:\n```python\n{SUB}```", write("calc.py", SUB)),
    "no path, a shorter one": is_call(f"So:\n```python\n{SUB[:-9]}\n```", write("calc.py", SUB[:-9] + "\n")), "no path, a function as it stands in a file": is_text(f"So:\n\n```python\n{CALC[-34:]}```"),
    "a new file of a name that another folder has": is_call(f"pkg/calc.py\n{BLOCK}", write("pkg/calc.py")),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_reply_is_read_for_what_it_is(tmp_path, name):
    row = ROWS[name]
    got = reader(tmp_path, row)(row.reply, row.cut)
    is_error = str(row.meaning).startswith("(?s)error")
    assert re.match(row.meaning, str(got)) if is_error else got == row.meaning


@pytest.mark.parametrize("content", [
    "tail \t\n\tx  \n", "a\r\nb\r\n", "é 日本 👩‍👩‍👧\n", "\ufeffx\n", "a\x0cb\u2028c\x85d\n", "  in\n out\n",
    "\n\nx\n\n", "a `b` ``c``\n", '<path>x</path>\n"\\n"\n', "x = '''\n    ```\n    '''\n",
])  # fmt: skip
@pytest.mark.parametrize("form", ["{p}\n````\n{c}````", "<tool name='write_file'><path>{p}</path>"
                                  "<content>\n{c}</content></tool>"])  # fmt: skip
def test_the_content_of_a_file_is_what_was_written_to_the_byte(tmp_path, form, content):
    reply = form.format(p="a.txt", c=content)
    assert reader(tmp_path)(reply) == [("write_file", {"path": "a.txt", "content": content})]


RISKY = {
    "a listing": f"I turn it.\n\ncalc.py\n{BLOCK}\n<final>done</final>",
    "a README": f"README.md\n```markdown\n{GUIDE}```\n",
    "a README in a longer fence": f"README.md\n````\n{GUIDE}````\n",
    "a listing without a path": f"It is:\n\n{BLOCK}\nThat is all.",
    "a list": "1. It is\n\n   `calc.py`:\n   ```python\n   a = 1\n   ```\n2. Good",
    "a command": 'I run it.\n<tool name="run_shell">rm -rf build/cache</tool>',
    "a command as an attribute": '<tool name="run_shell" command="rm -rf build/cache"></tool>',
    "elements": "<tool name='write_file'><path>a.py</path><content>\nx = 1\n</content></tool>",
    "a patch": '<tool name="patch_file">\n<path>calc.py</path>\n<old_text>a + b</old_text>\n'
    "<new_text>b + a</new_text>\n</tool>",
    "two files and a command": f'calc.py\n{BLOCK}\nb.py\n```\nb\n```\n<tool name="run_shell">rm b.py'
    "</tool>",
    "a listing in the answer": f"<final>Done.\n\ncalc.py\n{BLOCK}\n</final>",
    "thinking": '<think><tool name="run_shell">rm -rf x</tool></think>\n'
    '<tool name="run_shell">rm -rf y</tool>',
}  # fmt: skip


@pytest.mark.parametrize("name", RISKY)
def test_no_beginning_of_a_reply_is_another_risky_call(tmp_path, name):
    read_reply, whole = reader(tmp_path), RISKY[name]
    meant = read_reply(whole)
    assert isinstance(meant, list)
    for end in range(len(whole)):
        got = read_reply(whole[:end], True)
        assert isinstance(got, str) or [call for call in got if call not in meant] == [], whole[
            :end
        ]


PIECES = [
    "a", " ", "\n", "\r\n", "\t", "\x00", "\x1b", "\u2028", "\ud800", "é", "`", "```", "```py\n", "\n```\n",
    "~~~\n", "<tool", '<tool name="', "write_file", '">', "</tool>", "<path>", "</path>", "<content>",
    "</content>", "<final>", "</final>", "<think>", "</think>", "calc.py", "\ncalc.py\n", "**", "# ", "1. ",
    '"', "'", "=", "{", "}", ":", "../", "/", "run_shell", "def add(a, b):\n", "    return a\n", ">",
]  # fmt: skip


def test_whatever_is_written_it_is_calls_or_an_answer_or_an_error_for_the_model(tmp_path):
    read_reply, rng, seen = reader(tmp_path), random.Random(7), set()
    for _ in range(1500):
        got = read_reply("".join(rng.choices(PIECES, k=rng.randrange(30))), rng.random() < 0.3)
        seen.add("calls" if isinstance(got, list) else got.startswith("error: "))
    assert seen == {"calls", True, False}


LONG_PIECES = [
    "`", "```\n", "```a\n", "```\nx\n", "<tool", '<tool name="x', "<tool name='run_shell'>", "<think>", "(",
    "</think>", "<final>", "calc.py\n```\n", "<path>", "a", "a\n", "# ", "**", " ", "\n", "def a\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", LONG_PIECES)
def test_a_long_reply_takes_no_longer_than_its_size_explains(tmp_path, piece):
    read_reply, spent = reader(tmp_path), 1.0
    for size in (3_000, 30_000, 200_000):
        start, before = time.process_time(), spent
        for reply in (piece * (size // len(piece)), "x\n```\n" + piece * (size // len(piece))):
            read_reply(reply)
        spent = time.process_time() - start
        assert spent < 30 * max(before, 0.01), size
        if spent > 0.2:
            break
