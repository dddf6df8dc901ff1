"""The gate: what may happen unasked, what a question shows, how long an answer holds."""

import json
import os
import re
import shutil
from typing import Any

import pytest

from conftest import DONE, FILES
from ollama_replies import call, shell, write

AUTO, SESSIONS = ("--approval", "auto"), ".mini-coding-agent/sessions/*.json"
DELEGATE = call("delegate", task="look into it")
RISKY = {
    "write_file": write("new.txt"),
    "patch_file": call("patch_file", path="calc.py", old_text="a + b", new_text="b + a"),
    "run_shell": shell("echo x > ran.txt"),
}
MODES: dict[str, tuple[list[str], str, bool, str, int]] = {  # ..., happens, told, exit code
    "auto": (["--approval", "auto", "Do it."], "", True, "", 0),
    "yes": ([], "Do it.\ny\n", True, "", 0),
    "always": ([], "Do it.\nAlways\n", True, "", 0),
    "no": ([], "Do it.\nn\n", False, ": n", 3),
    "nothing": ([], "Do it.\n\n", False, "the user says no", 3),
    "a reason": ([], "Do it.\nyes, but in z.py\n", False, "yes, but in z.py", 3),
    "end of input": ([], "Do it.\n", False, "", 130),
    "nobody there": (["Do it."], "", False, "--approval", 3),
    "piped data": (["Do it."], "y\ny\ny\n", False, "--approval", 3),
    "never": (["--approval", "never", "Fix it."], "y\n", False, "--approval", 3),
    "no order": (["--approval", "never", "Review it."], "", False, "in words", 0),
    "plan": (["--approval", "auto", "--plan", "Do it."], "", False, "plan mode", 0),
    "subagent": (["--approval", "auto", "Do it."], "", False, "subagent", 0),
}


def tree(root):
    files = [path for path in root.rglob("*") if path.is_file() and ".mini-" not in str(path)]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("tool", RISKY)
@pytest.mark.parametrize("mode", MODES)
def test_a_risky_call_happens_only_where_mode_and_human_let_it(agent, server, repo, mode, tool):
    flags, typed, happens, told, code = MODES[mode]
    before = tree(repo)
    replies = [DELEGATE, RISKY[tool]] if mode == "subagent" else [RISKY[tool]]
    done = agent(replies, *flags, stdin=typed)
    assert (tree(repo) != before) == happens and "Traceback" not in done.err
    denied = [prompt for prompt in server.prompts if f"approval denied for {tool}" in prompt]
    is_illustration = tool == "write_file" and mode in ("no order", "plan", "subagent")
    is_denied = not happens and code != 130 and not is_illustration
    assert bool(denied) == is_denied and all(told in p for p in denied)
    assert done.code == code and (mode != "never" or len(server.prompts) == 2), done.err


def test_always_holds_for_this_file_tool_or_this_command_until_the_program_ends(agent, repo):
    before = tree(repo)
    one, other = shell("echo x >> a.txt"), shell("echo x >> b.txt")
    left = {1: write("x.txt"), 2: write("y.txt"), 3: one, 4: one, 5: other, 6: RISKY["patch_file"]}

    def play(prompt, request):
        return left.pop(int(re.findall(r"Do (\d)", prompt)[-1]), DONE)

    typed = ["Do 1.", "a", "Do 2.", "Do 3.", "a", "Do 4.", "Do 5.", "n", "Do 6.", "n"]
    done = agent([play] * 40, stdin="\n".join(typed) + "\n")
    assert done.err.count("Allow?") == 4 and set(tree(repo)) == {*FILES, "x.txt", "y.txt", "a.txt"}
    assert (repo / "a.txt").read_text() == "x\nx\n" and tree(repo).items() >= before.items()
    (file,) = repo.glob(SESSIONS)
    assert {*json.loads(file.read_text())} <= {*"id workspace_root history fold".split()}
    done = agent([write("z.txt")], "--resume", "latest", stdin="Do 7.\nn\n")
    assert done.err.count("Allow?") == 1 and not (repo / "z.txt").exists()


def test_what_is_shown_is_what_happens(make, repo):
    shown: list[tuple[str, str]] = []

    def human(what, preview):
        shown.append((what, preview))
        return "y"

    agent = make(approval_policy="ask", ask_human=human)
    text = FILES["calc.py"].replace("a + b", "b + a") + "\n# end\n"
    agent.run_tool("write_file", {"path": "calc.py", "content": text})
    lines = shown[0][1].splitlines()
    assert [line[1:] for line in lines if line[:1] == "-" != line[1:2]] == ["    return a + b"]
    added = [line[1:] for line in lines if line[:1] == "+" != line[1:2]]
    assert added == ["    return b + a", "", "# end"] and lines[0] == "--- calc.py"
    assert (repo / "calc.py").read_text() == text
    agent.run_tool("run_shell", {"command": "echo 1\necho 2  >out.txt"})
    assert shown[1] == ("run_shell", "echo 1\necho 2  >out.txt")
    assert (repo / "out.txt").read_text() == "2\n"


@pytest.mark.parametrize("tool", ["write_file", "patch_file"])
def test_what_was_changed_while_the_question_stood_is_not_overwritten(make, repo, tool):
    mine = FILES["calc.py"] + "# mine\n"

    def human(what, preview):
        (repo / "calc.py").write_text(mine)
        return "y"

    args: dict[str, Any] = {"old_text": "a + b", "new_text": "b + a"}
    args = {"content": FILES["calc.py"].replace("a + b", "b + a")} if tool == "write_file" else args
    make(approval_policy="ask", ask_human=human).run_tool(tool, {"path": "calc.py"} | args)
    assert (repo / "calc.py").read_text().endswith("# mine\n")


def test_looking_asks_nobody(agent, repo):
    looks = [call("read_file", path="calc.py", start=2), call("search", pattern="add")]
    looks += [call("list_files", path="pkg")]
    done = agent(looks, "--approval", "never", "What is there?")
    assert done.code == 0 and "denied" not in done.err and done.err.count("* list_files pkg") == 1


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("flags", [AUTO, ("--approval", "ask")])
@pytest.mark.parametrize("has_path", [True, False])
def test_auto_writes_only_here_or_says_so(run, server, repo, tmp_path, flags, has_path):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "git"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    env = {} if has_path else {"PATH": str(tmp_path / "bin")}
    server.script([shell("echo 1 > ../out; echo 2 > in; echo 3 > $TMPDIR/in")], then=DONE)
    done = run("--cwd", repo, "--host", server.url, *flags, stdin="Run it.\ny\n", env=env)
    assert (repo / "in").exists() and (tmp_path / "tmp/in").exists()
    escapes, is_told = (tmp_path / "out").exists(), "commands can do whatever you can" in done.err
    assert is_told == (flags == AUTO and escapes) and (has_path or escapes)
