"""The tools: what each shows, changes and refuses."""

import os
import re
import stat

import pytest

from conftest import FILES, within, write_files
from ollama_replies import shell

CALC = FILES["calc.py"]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def use(agent, name, *values, **args):
    """Run a tool with the values of its first arguments, in their order."""
    names = {"write_file": ["path", "content"], "patch_file": ["path", "old_text", "new_text"]}
    first = {"search": "pattern", "delegate": "task"}.get(name, "path")
    return agent.run_tool(name, dict(zip(names.get(name, [first]), values)) | args)


@pytest.mark.parametrize("text", [
    CALC, "", "no end", "a\n```\nb\n", "tab\t \n\n\n", "é日本👩‍👩‍👧\n", "\ufeffbom\n", "a\r\nb\r\n",
])  # fmt: skip
def test_a_file_is_shown_as_it_is_below_its_path_in_a_block(repo, make, text):
    write_files(repo, {"some.txt": text})
    path, fence, *lines = use(make(), "read_file", "some.txt").split("\n")
    assert path == "some.txt" and set(fence) == {"`"} and fence not in text
    shown = text.removeprefix("\ufeff")
    assert "\n".join(lines) == shown + ("\n" if shown and not shown.endswith("\n") else "") + fence


@pytest.mark.parametrize("lines, width", [
    (1000, 10), (401, 10), (1000, 70),
])  # fmt: skip
def test_a_long_file_is_shown_whole_by_doing_what_is_said_below_it(repo, make, lines, width):
    text = "".join(f"{n} {'x' * width}\n" for n in range(lines))
    write_files(repo, {"long.txt": text})
    agent, shown, start = make(), "", "1"
    while start:
        result = use(agent, "read_file", "long.txt", start=start)
        block, below = re.fullmatch(r"(?s)long\.txt\n```\n(.*?)```\n(\[.*)", result).groups()
        shown += block
        more = re.search(r'<tool name="read_file" start="(\d+)">long\.txt</tool>', below)
        start = more[1] if more else ""
    assert shown == text and "patch_file" in result
    assert use(agent, "search", "^$", path="calc.py") == "calc.py:3: \ncalc.py:4: "
    assert use(agent, "list_files", "pkg/util.py") == "[F] ."
    assert "patch_file" not in use(agent, "read_file", "calc.py")


@pytest.mark.parametrize("pattern, path, found", [
    ("return", ".", ["calc.py:2: ", "calc.py:6: ", "pkg/util.py:2: "]),
    ("return", "pkg", ["pkg/util.py:2: "]), ("return", "calc.py", ["calc.py:2: ", "calc.py:6: "]),
    (r"def \w+\(a", ".", ["calc.py:1: ", "calc.py:5: "]),
    (r"add\|greet", ".", ["calc.py:1: ", "pkg/util.py:1: "]), ("add(", ".", ["calc.py:1: "]),
    ("[", ".", ["odd.txt:1: "]), ("(x+x+)+y", ".", ["odd.txt:2: "]),
])  # fmt: skip
def test_a_search_finds_by_regular_expression_or_as_plain_text(repo, make, pattern, path, found):
    write_files(repo, {"odd.txt": "a [ here\nthe text (x+x+)+y as it is\n"})
    lines = use(make(), "search", pattern, path=path).split("\n")
    assert [line[: len(head)] for line, head in zip(lines, found)] == found
    assert len(lines) == len(found)


def test_a_search_that_finds_nothing_or_too_much_says_so(repo, make):
    write_files(repo, {"many.txt": "needle\n" * 500, "wide.txt": "x" * 9000 + "pin\n"})
    none, many, wide = (use(make(), "search", word) for word in ("unheard", "needle", "pin"))
    assert "no line matches 'unheard'" in none and len(wide) < 400
    assert many.count("many.txt:") > 100 and "characters left out ...]" in many


@posix
@pytest.mark.parametrize("pattern", [
    "(a+)+$", "(a|a)*$", "(a*)*b", "(a|aa)+$", r"(\w+\s?)*$", "(a{1,9}){1,9}$", "((a+))+$",
    "a*a*a*a*a*a*a*a*b", "a*a*a*a*b", "a*a*a*b",
    r"\w+\s*=\s*b",
])  # fmt: skip
def test_a_pattern_that_would_run_for_ever_ends(repo, make, pattern):
    write_files(repo, {"a.txt": "a" * 60_000 + "!\n"})
    with within(0.5):
        assert "as text or, with few" in use(make(), "search", pattern)


def test_a_folder_is_listed_without_what_git_ignores(git_repo, make):
    write_files(git_repo, {"x.log": "", "build/out": "", "node_modules/m.js": "", "new.txt": ""})
    names = "[D] pkg,[F] .gitignore,[F] AGENTS.md,[F] README.md,[F] calc.py,[F] new.txt"
    assert use(make(), "list_files", ".").split("\n") == names.split(",")
    assert use(make(), "list_files", "pkg").split("\n") == ["[F] __init__.py", "[F] util.py"]


def test_a_change_answers_with_its_proof(repo, make):
    agent = make()
    said = use(agent, "patch_file", "calc.py", "a + b", "b + a")
    assert said == f"patched calc.py ({len(CALC)} chars)"
    said = use(agent, "write_file", "new/deep.txt", "one\n")
    assert said == "wrote new/deep.txt (4 chars), a new file"
    assert (repo / "new/deep.txt").read_bytes() == b"one\n"


@posix
@pytest.mark.parametrize("names, before, after", [
    (["write_file", "patch_file"], b"one\r\ntwo\r\n", b"one\r\n2\r\n"),
    (["write_file", "patch_file"], b"\xef\xbb\xbfone\ntwo\n", b"\xef\xbb\xbfone\n2\n"),
    (["write_file", "patch_file"], "é\u2028ö\n\ttwo \nx\n".encode(), "é\u2028ö\n\t2 \nx\n".encode()),
    (["patch_file"], b"two\n\n\n", b"2\n\n\n"), (["patch_file"], b"two", b"2"),
    (["patch_file"], b"a\r\nb\ntwo\n", b"a\r\nb\n2\n"),
])  # fmt: skip
def test_every_byte_that_a_change_was_not_about_is_kept(repo, make, names, before, after):
    text = after.decode("utf-8-sig").replace("\r\n", "\n")
    for name in names:
        file = write_files(repo, {"some.txt": before}) / "some.txt"
        file.chmod(0o751)
        use(make(), name, "some.txt", *([text] if name == "write_file" else ["two", "2"]))
        assert file.read_bytes() == after and stat.S_IMODE(file.stat().st_mode) == 0o751


state = lambda file: (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes())
IMAGE = b"\x89PNG\xff"


@pytest.mark.parametrize("name, args, words", [
    ("read_file", ["image.png"], "no file of UTF-8"), ("write_file", ["image.png", "x"], "no file of UTF-8"),
    ("patch_file", ["image.png", "PNG", "x"], "no file of UTF-8"), ("write_file", ["calc.py", CALC], "already"),
    ("patch_file", ["calc.py", "a + b", "a + b"], "already"), ("write_file", ["pkg", "x\n"], "no file of"),
    ("patch_file", ["calc.py", "return b", "x"], re.escape(CALC)),
    ("patch_file", ["calc.py", "return", "x"], "stands 2 times"),
    ("patch_file", ["calc.py", "", "x"], "0 times"), ("patch_file", ["calc.py", "\n", "x"], "0 times"),
    ("patch_file", ["long.py", "value_250  =  250", "x"], r"value_250 = 250\n"),
    *(("write_file", [path, "x\n"], "escapes|relative|belongs to git") for path in (
        "~/x", "$HOME/x", "C:\\x", "a\x07b", "x\n", "..\\x", "\x1b[31m", ".git\\config", ".git /x", "pkg/../.git/x")),
    ("write_file", ["calc.py/x.py", "x\n"], "."), ("read_file", ["nowhere.py"], "calc.py.*pkg/util.py"), ("list_files", ["nowhere"], "calc.py"),
])  # fmt: skip
def test_what_can_not_be_done_is_an_error_that_helps(repo, make, name, args, words):
    long = "".join(f"value_{n} = {n}\n" for n in range(500))
    files = {"image.png": IMAGE, "long.py": long}
    before = {file: state(file) for file in write_files(repo, files).rglob("*") if file.is_file()}
    said = use(agent := make(), name, *args)
    assert said.startswith("error: ") and re.search(words, said) and not agent.turn.changed()
    assert {file: state(file) for file in before} == before


@pytest.mark.parametrize("path, before, after, named", [
    ("calc.py", CALC, CALC.replace("(a, b):", "(a, b"), True), ("new.py", None, "def f(:\n", True),
    ("broken.py", "def f(:\n", "def g(:\n", False),
    ("notes.txt", "x = 1\n", "def f(:\n", False),
])  # fmt: skip
def test_a_syntax_error_is_named_where_none_was(repo, make, path, before, after, named):
    write_files(repo, {path: before} if before else {})
    said = use(make(), "write_file", path, after)
    assert ("does not parse" in said) == named and (repo / path).read_text() == after


def test_an_import_that_is_still_used_stays(repo, make):
    write_files(repo, {"m.py": "import os\n\n\ndef here():\n    return os.sep\n"})
    use(make(), "write_file", "m.py", "def here():\n    return os.sep * 2\n")
    assert (repo / "m.py").read_text() == "import os\n\n\ndef here():\n    return os.sep * 2\n"


ONE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize("path, before, after, gone", [
    ("list.txt", "1\n2\n3\n4\n5\n6\n", "1\n2\n", "5"), ("calc.py", CALC, "x = 1\n" + ONE, "def sub"),
    ("test_x.py", "x = 1\n", "x = 2\n", "Change the program"), ("used.py", "def f():\n    pass\n\n\nf()\n", "f()\n", "def f"), ("long.txt", "".join(f"{n}\n" for n in range(300)), "1\n2\n", "298 lines"),
])  # fmt: skip
def test_a_write_that_would_lose_much_is_refused_once(repo, make, path, before, after, gone):
    write_files(repo, {path: before})
    agent = make()
    agent.turn.request = agent.turn.asked = "Fix it."
    said = use(agent, "write_file", path, after)
    assert said.startswith("error: nothing was written") and gone in said
    assert (repo / path).read_text() == before
    again = use(agent, "write_file", path, after)
    if path in ("used.py", "long.txt"):  # still called, or most of a long file: it can't be meant
        after, again = before, again.replace("error: nothing was written", "wrote ")
    assert again.startswith("wrote ") and (repo / path).read_text() == after


THREE = f"import os\n\n\n{CALC}\n\n@property\ndef third(a):\n    return os.sep\n"
MAIN = '\n\nif __name__ == "__main__":\n    add(1, 2)\n'
CART = "class Cart:\n    def __init__(self):\n        self.x = 1\n\n    def size(self):\n        return 1\n"


@pytest.mark.parametrize("before, part, after", [
    (THREE, "# calc.py\nimport os\n\ndef sub(a, b):\n    return b\n", THREE.replace("a - b", "b")),
    (THREE, "@cache\ndef third(a):\n    return 3\n",
     THREE.replace("@property\ndef third(a):\n    return os.sep", "@cache\ndef third(a):\n    return 3")),
    (CALC + MAIN, "def new():\n    pass\n", f"{CALC}\n\ndef new():\n    pass\n{MAIN}"),
    (CART, "    def size(self):\n        return 2\n", CART.replace("return 1", "return 2")),
    (CART, "    def new(self):\n        return 2\n", ""), (THREE, "import re\n\ndef sub(a):\n    a\n", ""),
    (CART + CART.replace("Cart", "B"), "class Cart:\n    def size(self):\n        return 2\n", ""), (THREE + "def sub():\n    pass\n", "def sub(a, b):\n    return b\n", ""),
])  # fmt: skip
def test_functions_alone_take_the_places_of_theirs_in_the_file(repo, make, before, part, after):
    write_files(repo, {"part.py": before})
    said = use(make(), "write_file", "part.py", part)
    assert (repo / "part.py").read_text() == (after or before)
    assert said.startswith("wrote " if after else "error: nothing was written")


@pytest.mark.parametrize("request_, after", [
    ("Remove sub from calc.py.", ONE),
    ("Rename the functions in calc.py.", CALC.replace("add", "plus").replace("sub", "minus")), ("Rename sub to _sub.", CALC.replace("sub", "_sub") + "\n\n_sub(1, 2)\n"),
])  # fmt: skip
def test_what_the_request_speaks_of_or_gets_another_name_is_no_loss(repo, make, request_, after):
    make(f"calc.py\n```\n{after}```").ask(request_)
    assert (repo / "calc.py").read_text() == after


@pytest.mark.parametrize(
    "raw", ["src/calc.py", "/calc.py", "path/to/CALC.py", ".\\calc.py", "Calc.PY"]
)
def test_a_path_that_is_nearly_right_is_resolved(repo, make, raw):
    assert use(make(), "read_file", raw).startswith("calc.py\n```\n")
    assert use(make(), "patch_file", raw, "a + b", "b + a").startswith("patched calc.py")


@posix
@pytest.mark.parametrize("name, values", [
    ("read_file", ()), ("patch_file", ("x", "y")), ("search", ()), ("list_files", ()),
    ("write_file", ("x\n",)),
])  # fmt: skip
def test_a_fifo_is_not_waited_for(repo, make, name, values):
    os.mkfifo(repo / "pipe.txt")
    with within(0.5):
        said = use(make(), name, "pipe.txt", *values)
    assert said.startswith("error: ") or name == "search"


@pytest.mark.parametrize("name, args, words", [
    ("run_shell", {}, "invalid arguments for run_shell: command is missing"),
    ("write_file", {"path": "a.txt"}, "content is missing"), ("search", {}, "is missing"),
    ("run_shell", {"command": "ls", "timeout": "soon"}, "invalid.*soon"),
])  # fmt: skip
def test_wrong_arguments_are_named_and_nothing_is_asked(make, name, args, words):
    asked = []
    agent = make(approval_policy="ask", ask_human=lambda *what: asked.append(what) or "n")
    said = agent.run_tool(name, args)
    assert re.match(f"(?s)error: .*{words}", said)
    assert ("soon" in said or "..." in said) and not asked


def test_a_subagent_only_looks_has_none_of_its_own_and_hands_back_its_answer(repo, make):
    replies = [shell("touch a.txt"), '<tool name="delegate">go on</tool>', "<final>It is.</final>"]
    agent = make('<tool name="delegate">write a.txt</tool>', *replies)
    agent.ask("What is here?")
    prompts = agent.model_client.prompts
    assert "approval denied for run_shell" in prompts[2] and not (repo / "a.txt").exists()
    assert "a subagent can't delegate" in prompts[3]
    said = use(make(*["<final>six</final>"] * 2), "delegate", "count")
    assert said == "delegate_result:\nsix"
