"""`--demo`: what a newcomer runs first."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import Git, Run
from ollama_server import OllamaServer
from program import Result

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links to programs")


def only(tmp_path: Path, *names: str) -> dict[str, str]:
    """An environment whose PATH holds these programs and no other."""
    folder = tmp_path / "only"
    folder.mkdir()
    for name in names:
        target = sys.executable if name.startswith("python") else shutil.which(name)
        assert target
        (folder / name).symlink_to(target)
    return {"PATH": str(folder)}


def left_behind(tmp_path: Path) -> Path:
    """The folder that the demo left in the temporary folder of the test."""
    (folder,) = [path for path in (tmp_path / "tmp").iterdir() if path.is_dir()]
    return folder


def check_story(done: Result, tmp_path: Path, run: Run) -> None:
    assert done.code == 0 and "Traceback" not in done.err, done.err
    assert "script" in done.out.partition("binary_search")[0]
    folder = left_behind(tmp_path)
    assert str(folder) in done.out
    assert {"binary_search.py", "test_binary_search.py"} <= {path.name for path in folder.iterdir()}
    test = [sys.executable, "-m", "unittest", "-q"]
    assert run(argv=test, cwd=folder).code == 0
    assert "FAILED" in done.out and "exit_code: 0" in done.out
    for name in ("write_file", "patch_file", "run_shell"):
        assert name in done.out


@posix
def test_the_demo_needs_only_python_and_git(tmp_path: Path, run: Run) -> None:
    check_story(run("--demo", env=only(tmp_path, "python3", "git")), tmp_path, run)
    assert (left_behind(tmp_path) / ".git").is_dir()


@posix
def test_the_demo_works_without_git_too(tmp_path: Path, run: Run) -> None:
    check_story(run("--demo", env=only(tmp_path, "python3")), tmp_path, run)


def test_the_demo_shows_of_each_prompt_how_much_of_it_was_there_before(
    tmp_path: Path, run: Run
) -> None:
    done = run("--demo")
    found = re.findall(r"prompt\D+(\d+) bytes\D+(\d+) ?%", done.out)
    (file,) = left_behind(tmp_path).glob(".mini-coding-agent/sessions/*.json")
    replies = [
        event
        for event in json.loads(file.read_text("utf-8"))["history"]
        if event["role"] in ("tool", "assistant")
    ]
    sizes = [int(size) for size, _ in found]
    assert len(sizes) >= 8 and sizes == sorted(sizes)
    assert all(int(share) >= 75 for _, share in found[1:])
    assert len(found) == len(replies), "each prompt, also those that an answer came from"


def test_the_demo_asks_no_server_and_touches_nothing_where_it_is_started(
    tmp_path: Path, git_repo: Path, git: Git, run: Run, server: OllamaServer
) -> None:
    done = run("--demo", cwd=git_repo, env={"OLLAMA_HOST": server.url}, stdin="y\n")
    assert done.code == 0 and server.requests == []
    assert git("status", "--porcelain", "--ignored", cwd=git_repo) == ""
    assert [
        path.name for path in tmp_path.iterdir() if path.name not in ("repo", "home", "tmp")
    ] == []


def test_the_conversation_of_the_demo_can_be_continued(
    tmp_path: Path, run: Run, server: OllamaServer
) -> None:
    assert run("--demo").code == 0
    folder = left_behind(tmp_path)
    done = run("--cwd", folder, "--host", server.url, "--resume", "latest", "what was that")
    assert done.code == 0 and "binary_search" in server.prompts[0]
