"""The documents: what they show is what the program does."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mini_coding_agent as mca
from conftest import OpenTerminal, Run
from ollama_server import OllamaServer
from program import PROGRAM, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "EXAMPLE.md").read_text(encoding="utf-8")
QUESTION = "or why not: "


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def parser_flags() -> dict[str, argparse.Action]:
    actions = mca.build_arg_parser()._actions
    return {flag: action for action in actions for flag in action.option_strings}


def test_the_readme_lists_exactly_the_flags_that_there_are() -> None:
    told = set(re.findall(r"^\| .*", README, re.MULTILINE))
    rows = {flag for row in told for flag in re.findall(r"`(--?[a-z][a-z-]*)", row.split("|")[1])}
    assert rows == set(parser_flags()) - {"-h"}


def test_the_readme_gives_the_defaults_that_the_program_has() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)[^|]*\| `([^`]+)` \|", README, re.MULTILINE)
    assert len(rows) >= 8
    flags = parser_flags()
    assert [row for row in rows if str(flags[row[0]].default) != row[1]] == []


def test_the_readme_and_help_describe_a_flag_in_the_same_words() -> None:
    rows = re.findall(
        r"^\| (?:`-p TEXT`, )?`(--[a-z-]+)[^|]*\|[^|]*\| (.+) \|$", README, re.MULTILINE
    )
    flags = parser_flags()
    told = {name: re.sub(r"`| \(.*?\)", "", text) for name, text in rows}
    helps = {name: str(flags[name].help).partition(" (default")[0] for name in told}
    assert len(told) >= 18 and told == helps


def test_the_readme_lists_exactly_the_commands_that_there_are() -> None:
    rows = re.findall(r"^\| (`/[^|]*)\|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(/[a-z]+)", row)} == set(mca.COMMANDS)


def test_help_names_every_command_and_every_flag_has_a_help_text() -> None:
    shown = mca.show_help(None, "")  # type: ignore[arg-type]
    assert all(re.search(rf"(?m)^[^\n]*{re.escape(name)}\b", shown) for name in mca.COMMANDS)
    assert all(action.help for action in parser_flags().values())


def test_what_the_readme_says_where_to_find_exists() -> None:
    section = README.partition("## How it works")[2].partition("\n## ")[0]
    names = re.findall(r"^\| [^|]*\| [^|]*\| (.*) \|$", section, re.MULTILINE)
    found = [name for cell in names for name in re.findall(r"`([A-Za-z_]+)`", cell)]
    assert len(found) > 10
    assert [name for name in found if not hasattr(mca, name)] == []


def test_the_commands_of_the_first_screen_are_those_of_the_checks() -> None:
    first = blocks(README, "bash")[0].splitlines()
    assert first[0] == "python mini_coding_agent.py --demo"
    assert "pytest" in first[1] and first[1].startswith("python -m venv .venv && ")
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_python_blocks_of_the_readme_run() -> None:
    for block in blocks(README, "python"):
        before = (dict(mca.TOOLS), dict(mca.COMMANDS))
        try:
            exec(compile(block, "README.md", "exec"), {**vars(mca), "__name__": "readme"})
        finally:
            for table, kept in zip((mca.TOOLS, mca.COMMANDS), before, strict=True):
                table.clear()
                table.update(kept)  # type: ignore[arg-type]


def same(text: str) -> str:
    """A transcript without what differs from run to run."""
    text = re.sub(r"^\| (workspace|session) .*", r"| \1", text, flags=re.MULTILINE)
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{6}", "ID", text)
    text = re.sub(r"^  in /\S+, at", "  in DIR, at", text, flags=re.MULTILINE)
    text = re.sub(r"\d+(\.\d+)? s\b", "N s", text)
    text = re.sub(r"^(  [a-z ]+|window) +\d+( tokens)?$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"[\d.]+ bytes per token, \d+% reused", "RATE", text)
    summary = r"(?m)^\d+ steps?, (?:.*\n)+?(?=>|\Z)"  # where its lines end depends on the figures
    text = re.sub(summary, lambda found: " ".join(found[0].split()) + "\n", text + "\n")
    text = re.sub(r"\d+ prompt tokens \(\d+% reused\), \d+ written \([\d.]+/s\)", "TOKENS", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


CALC = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"
SUB = [
    '<tool>{"name":"read_file","args":{"path":"calc.py"}}</tool>',
    """<tool name="patch_file" path="calc.py"><old_text>    return a - b</old_text><new_text>\
    if isinstance(a, str) or isinstance(b, str):
        raise TypeError("sub() takes numbers")
    return a - b</new_text></tool>""",
    "<final>sub() now raises TypeError for strings.</final>",
]
SESSIONS = {
    "README": (blocks(README, "console")[0], SUB),
    "EXAMPLE": ("\n".join(blocks(EXAMPLE, "console")), [t for _, *ts in mca.DEMO for t in ts]),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("name", SESSIONS)
def test_the_session_of_a_document_is_what_a_terminal_shows(
    terminal: OpenTerminal, tmp_path: Path, agent_env: dict[str, str], name: str
) -> None:
    text, replies = SESSIONS[name]
    (tmp_path / "calculator").mkdir()
    (tmp_path / "calculator" / "calc.py").write_text(CALC)
    subprocess.run(["git", "init", "-q", "-b", "main", "calculator"], cwd=tmp_path, check=True)
    commands = [
        shlex.split(line[2:], comments=True) for line in text.splitlines() if line[:2] == "$ "
    ]
    session = "\n".join(line for line in text.splitlines() if line[:2] != "$ ").strip()
    home = tmp_path
    for words in commands:
        if words[0] == "cd":
            home /= words[1]
        elif words[0] != "python":
            subprocess.run(words, cwd=home, env=agent_env, check=True)
    assert commands[-1] == ["python", "path/to/mini_coding_agent.py"]
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    path = f"{bin_folder}:{agent_env['PATH']}"
    with OllamaServer(loaded={"qwen3.5:4b": 16384}) as server:
        server.script(replies)
        seen = terminal("--host", server.url, cwd=home, env={"PATH": path}, cols=100)
        for line in session.splitlines():
            if line.startswith("> "):
                seen.expect("> ")
                seen.line(line[2:])
            elif QUESTION in line:
                seen.expect(QUESTION)
                seen.line(line.partition(QUESTION)[2])
        if not session.endswith("/exit"):
            seen.expect("> ")
            seen.line("/exit")
            session += " /exit"
        assert seen.wait() == 0
    if os.environ.get("MCA_SHOW"):  # to bring a document up to date
        Path(os.environ["MCA_SHOW"]).write_text(seen.screen(history=True))
    assert same(seen.screen(history=True)) == same(session)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_the_commands_for_scripts_run_as_they_stand(
    run: Run, server: OllamaServer, repo: Path, tmp_path: Path
) -> None:
    (block,) = [block for block in blocks(README, "bash") if "git diff" in block]
    lines = block.splitlines()
    assert all(line.endswith("# needs Ollama") for line in lines) and len(lines) == 3
    (repo / "calc.py").write_text(CALC)
    shutil.copy(PROGRAM, repo)
    (tmp_path / "python").symlink_to(sys.executable)
    env = {"OLLAMA_HOST": server.url, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    server.script([SUB[-1], SUB[-1], *SUB])
    done = run(argv=["/bin/sh", "-ec", block], cwd=repo, env=env)
    assert done.code == 0, done.err
    plain, as_json, piped = done.out.splitlines()
    assert (
        plain == piped == json.loads(as_json)["answer"] == "sub() now raises TypeError for strings."
    )
    assert "raise TypeError" in (repo / "calc.py").read_text()


def test_the_commands_for_developers_are_those_of_the_checks() -> None:
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lint, test, benchmark, everything = blocks(README, "bash")[-1].splitlines()
    assert all(part.strip() in checks for part in lint.partition("#")[0].split("&&"))
    assert test.split()[:3] == ["python", "-m", "pytest"]
    for line in (benchmark, everything):
        assert (ROOT / line.split()[1]).is_file()


def test_an_agent_with_the_client_of_the_readme_answers(
    run: Run, server: OllamaServer, repo: Path, tmp_path: Path
) -> None:
    (client,) = [block for block in blocks(README, "python") if "class Echo" in block]
    source = PROGRAM.read_text(encoding="utf-8")
    source = re.sub(
        r"model = OllamaModelClient\((?:.|\n)*?\n    \)", "model = Echo()", source, count=1
    )
    before, last, after = source.rpartition('\nif __name__ == "__main__"')
    (tmp_path / "mine.py").write_text(f"{before}\n{client}\n{last}{after}", encoding="utf-8")
    done = run(
        "--cwd", repo, program=tmp_path / "mine.py", stdin="hello\n/model\n/model x\n/help\n"
    )
    assert done.code == 0 and "512 tokens of room" in done.out and "Traceback" not in done.err
    assert server.requests == []


def test_the_program_imports_nothing_but_the_standard_library() -> None:
    nodes = list(ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names <= {"tomllib"}
