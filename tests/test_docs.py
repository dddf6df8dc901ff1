"""The documents: what they show is what the program does."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mini_coding_agent as mca
from conftest import OpenTerminal
from ollama_server import OllamaServer
from program import PROGRAM, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "EXAMPLE.md").read_text(encoding="utf-8")
QUESTION = "its reason: "


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
    text = re.sub(r"\d+ prompt tokens \(\d+% reused\), \d+ written \([\d.]+/s\)", "TOKENS", text)
    text = re.sub(r"^(  [a-z ]+|window) +\d+( tokens)?$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"[\d.]+ bytes per token, \d+% reused", "RATE", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_session_of_the_example_is_what_a_terminal_shows(
    terminal: OpenTerminal, tmp_path: Path, agent_env: dict[str, str]
) -> None:
    commands, session = blocks(EXAMPLE, "console")
    home = tmp_path / "binary-search"
    for line in commands.splitlines():
        words = shlex.split(line.removeprefix("$ "))
        if words[0] in ("mkdir", "git"):
            subprocess.run(
                words, cwd=home if home.exists() else tmp_path, env=agent_env, check=True
            )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    path = f"{bin_folder}:{agent_env['PATH']}"
    with OllamaServer(loaded={"qwen3.5:4b": 16384}) as server:
        server.script([text for _, *texts in mca.DEMO for text in texts])
        seen = terminal("--host", server.url, cwd=home, env={"PATH": path}, cols=250)
        for line in session.splitlines():
            if line.startswith("> "):
                seen.expect("> ")
                seen.line(line[2:])
            elif QUESTION in line:
                seen.expect(QUESTION)
                seen.line(line.partition(QUESTION)[2])
        assert seen.wait() == 0
    assert same(seen.screen(history=True)) == same(session)


def test_the_program_imports_nothing_but_the_standard_library() -> None:
    nodes = list(ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names <= {"tomllib"}
