"""The workspace: nothing outside is touched, nothing strange is opened, no byte is lost."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import FILES, Run
from ollama_replies import call
from ollama_server import OllamaServer
from program import at_most, without_root

Agent = Callable[..., Any]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX links, modes and pipes")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
SECRET = "the secret text"
DONE = "<final>all said</final>"


def tree(root: Path) -> dict[str, Any]:
    """Every path below a folder, but for the agent's state, its mode and what it holds."""
    found = {}
    for path in root.rglob("*"):
        if ".mini-coding-agent" not in path.parts:
            mode = path.lstat().st_mode
            holds: Any = path.readlink() if stat.S_ISLNK(mode) else None
            found[str(path)] = (mode, path.read_bytes() if stat.S_ISREG(mode) else holds)
    return found


def tools_on(path: str) -> list[tuple[str, dict[str, Any]]]:
    """A call of every tool that takes a path."""
    return [
        ("read_file", {"path": path}),
        ("list_files", {"path": path}),
        ("search", {"pattern": "secret", "path": path}),
        ("write_file", {"path": path, "content": "overwritten\n"}),
        ("patch_file", {"path": path, "old_text": "secret", "new_text": "patched"}),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The sample files without git, and a folder and a sibling of similar name outside."""
    root = tmp_path / "work"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("utf-8"))
    for name in ("out", "work-evil", "work2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret.txt").write_text(SECRET)
    return root


@pytest.fixture
def local(root: Path) -> Any:
    """An agent in this process that may do everything."""
    return mca.MiniAgent(
        model_client=mca.FakeModelClient([]), approval_policy="auto", session_store=None,
        workspace=mca.WorkspaceContext(cwd=str(root), repo_root=str(root)),
    )  # fmt: skip


@pytest.fixture
def agent(run: Run, run_here: Run, server: OllamaServer, root: Path) -> Agent:
    """agent(replies, *args) runs the program on a request with everything allowed."""

    def agent(replies: list[str], *args: str, cwd: Path = root, **kwargs: Any) -> Any:
        server.script(replies, then=DONE)
        limits = ("--max-steps", "80", "--num-ctx", "200000", "--max-new-tokens", "150000")
        flags = ("--cwd", cwd, "--host", server.url, "--approval", "auto", *limits)
        return (run if "argv" in kwargs else run_here)(*flags, *args, "go", **kwargs)

    return agent


# Outside

OUTSIDE = [
    "..", "../out", "../out/secret.txt", "../out/new.txt", "./../out/secret.txt", "../../", "/",
    "pkg/../../out/secret.txt", "pkg//..//..//out/secret.txt", "missing/../../out/secret.txt",
    "../work-evil/secret.txt", "../work2/secret.txt", "../work-evil", "/etc/passwd",
    "//etc/passwd", "/proc/self/environ", "/proc/self/root/etc/passwd", "/dev/stdin", "/dev/fd/0",
    "{out}", "{out}/secret.txt", "{work}-evil/secret.txt", "{work}2/new.txt",
    "{work}/../out/secret.txt",
]  # fmt: skip
LINKS = {
    "folder": "../out", "file": "../out/secret.txt", "absolute": "{out}/secret.txt", "one": "two",
    "two": "pkg/three", "pkg/three": "../../out/secret.txt", "dangling": "../out/missing.txt",
    "dangling folder": "../out/missing", "loop": "loop", "up": "..", "root": "/", "sibling": "../work2",
    "proc": "/proc/self/cwd", "alias": "/proc/self/root/etc",
}  # fmt: skip
THROUGH = [
    "folder", "folder/secret.txt", "folder/new.txt", "folder/../out/secret.txt", "file", "absolute",
    "one", "two", "pkg/three", "dangling", "dangling folder/new.txt", "loop", "loop/x",
    "up/out/secret.txt", "up/work/../out/secret.txt", "root/etc/passwd", "sibling/secret.txt",
    "alias/passwd", "proc/../../../etc/passwd",
]  # fmt: skip


@posix
@pytest.mark.parametrize("raw", OUTSIDE + THROUGH)
def test_no_file_tool_leaves_the_workspace(
    tmp_path: Path, root: Path, local: Any, raw: str
) -> None:
    for name, target in LINKS.items():
        (root / name).symlink_to(target.format(out=tmp_path / "out"))
    before = tree(tmp_path)
    for name, args in tools_on(raw.format(out=tmp_path / "out", work=root)):
        text = local.run_tool(name, args)
        assert text.startswith("error: ") and " failed: " not in text, (name, text)
        assert SECRET not in text and "root:" not in text
    assert tree(tmp_path) == before


@posix
def test_no_file_tool_of_the_program_leaves_the_workspace(
    tmp_path: Path, root: Path, server: OllamaServer, agent: Agent
) -> None:
    (root / "folder").symlink_to("../out")
    before = tree(tmp_path / "out")
    raws = ["../out/secret.txt", "folder/secret.txt", f"{root}-evil/secret.txt"]
    replies = [call(name, **args) for raw in raws for name, args in tools_on(raw)]
    done = agent(replies)
    assert server.prompts[-1].count("error: path escapes workspace: ") == len(replies)
    assert SECRET not in server.prompts[-1] and tree(tmp_path / "out") == before
    assert done.code == 0 and "Traceback" not in done.err


@posix
def test_absolute_paths_and_links_that_stay_inside_work(root: Path, local: Any) -> None:
    (root / "link.py").symlink_to("calc.py")
    (root / "folder").symlink_to("pkg")
    for raw in (
        str(root / "calc.py"),
        "./calc.py",
        "pkg/../calc.py",
        "folder/../calc.py",
        "link.py",
    ):
        assert "def add" in local.run_tool("read_file", {"path": raw}), raw
    patch = {"path": "link.py", "old_text": "a + b", "new_text": "b + a"}
    assert local.run_tool("patch_file", patch).startswith("patched ")
    assert (root / "link.py").is_symlink() and "b + a" in (root / "calc.py").read_text()
    local.run_tool("write_file", {"path": "folder/new.txt", "content": "x\n"})
    assert (root / "pkg" / "new.txt").read_text() == "x\n"


@posix
def test_a_workspace_that_is_given_by_a_link_is_its_target(
    tmp_path: Path, root: Path, server: OllamaServer, agent: Agent
) -> None:
    (tmp_path / "link").symlink_to("work")
    read = [
        call("read_file", path=path) for path in ("calc.py", str(tmp_path / "link" / "README.md"))
    ]
    agent([*read, call("write_file", path="new.txt", content="x\n")], cwd=tmp_path / "link")
    assert "def add" in server.prompts[-1] and "A calculator" in server.prompts[-1]
    assert (root / "new.txt").exists()


@linux
@pytest.mark.parametrize("path", ["proc/self/environ", "proc/cpuinfo", "dev/zero", "sys/kernel/mm"])
def test_the_kernels_own_files_are_refused_even_inside_the_workspace(path: str) -> None:
    agent = mca.MiniAgent(
        model_client=mca.FakeModelClient([]), approval_policy="auto", session_store=None,
        workspace=mca.WorkspaceContext(cwd="/", repo_root="/"),
    )  # fmt: skip
    for name, args in tools_on(path):
        assert agent.run_tool(name, args).startswith("error: "), name


# What is no regular file, what is no usable name


@posix
def test_pipes_sockets_and_devices_are_refused_in_words_and_keep_nobody_waiting(
    tmp_path: Path, root: Path, server: OllamaServer, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["pipe", "socket"]
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    try:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        names.append("device")
    except OSError:
        print("no device: only root can make one")
    (root / "to the pipe").symlink_to("pipe")
    before = tree(root)
    kinds = ("read_file", "list_files", "write_file", "patch_file")
    calls = [
        (name, args)
        for path in [*names, "to the pipe"]
        for name, args in tools_on(path)
        if name in kinds
    ]
    done = agent([*(call(name, **args) for name, args in calls), call("search", pattern="hello")])
    listener.close()
    assert done.code == 0 and tree(root) == before
    assert server.prompts[-1].count("\nerror: ") == len(calls)
    assert server.prompts[-1].count("not a regular file") >= 3 * len(names)
    assert "pkg/util.py:2: " in server.prompts[-1] and " failed: " not in server.prompts[-1]


BAD_NAMES = {
    "NUL": "a\0b", "NUL at the end": "calc.py\0", "too long": "a" * 300, "too deep": "a/" * 3000,
    "lone surrogate": "a\ud800b", "another": "\udc80", "below a file": "calc.py/x",
    "far below a file": "calc.py/x/y/z", "a folder": "pkg", "the workspace": ".",
}  # fmt: skip


@posix
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_is_an_error_for_the_model(root: Path, local: Any, name: str) -> None:
    before = tree(root)
    for tool, args in tools_on(BAD_NAMES[name]):
        text = local.run_tool(tool, args)
        if tool in ("write_file", "patch_file", "read_file"):
            assert text.startswith("error: "), (tool, text)
        assert " failed: " not in text, (tool, text)
        assert len(text) < 1500 and "\0" not in text
    assert tree(root) == before


@linux
def test_file_names_that_are_not_utf8_are_shown_and_do_no_harm(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    odd = os.fsdecode(b"caf\xe9.txt")
    (root / odd).write_text("wanted: coffee\n")
    replies = [call("list_files"), call("search", pattern="wanted")]
    replies += [call(name, **args) for name, args in tools_on(odd)]
    done = agent([*replies, call("read_file", path="calc.py"), call("launch\udce9")])
    assert done.code == 0 and "Traceback" not in done.err and " failed: " not in server.prompts[-1]
    assert "caf" in server.prompts[1] and "coffee" in server.prompts[2]
    assert "def add" in server.prompts[-1]


# What belongs to git and to the agent

PROTECTED = [
    ".git", ".git/config", ".git/hooks/pre-commit", ".GIT/config", ".Git/hooks/x", ".git./config",
    ".git /config", ".git. . /config", ".git::$INDEX_ALLOCATION/config", ".git:stream", "git~1/config",
    "GIT~2/config", ".g\u200cit/config", ".gi\ufefft/config", "\uff0egit/config", "pkg/.git",
    "pkg/.git/hooks/x", "pkg/sub/.GIT/config", "new/.git/config", "pkg/../.git/config",
    ".mini-coding-agent", ".mini-coding-agent/sessions/x.json", ".MINI-CODING-AGENT/x",
    ".mini-coding-agent./x", "mini-c~1/x", "pkg/.mini-coding-agent/sessions/x.json",
    "to git/config", "to state/x",
]  # fmt: skip


@posix
@pytest.mark.parametrize("there", [True, False], ids=["there", "absent"])
@pytest.mark.parametrize("raw", PROTECTED)
def test_git_and_the_state_folder_are_refused_in_every_spelling(
    root: Path, local: Any, raw: str, there: bool
) -> None:
    (root / "to git").symlink_to(".git")
    (root / "to state").symlink_to(".mini-coding-agent")
    for name in (".git", "pkg/.git", ".mini-coding-agent") if there else ():
        (root / name).mkdir()
        (root / name / "config").write_text("a secret")
    for policy in ("auto", "ask", "never"):
        local.approval_policy = policy
        for name, args in tools_on(raw):
            text = local.run_tool(name, args)
            assert text.startswith("error: ") and "a secret" not in text, (policy, name, text)
            assert " failed: " not in text
    left = {path.name for path in root.rglob("*")} - {"config"}
    known = {*(part for name in FILES for part in Path(name).parts), "to git", "to state"}
    assert left == known | ({".git", ".mini-coding-agent"} if there else set())


@pytest.mark.parametrize(
    "raw",
    [".gitignore", ".gitattributes", ".github/ci.yml", "git/x", "x.git/x", ".gitx", "digit~1",
     "mini-coding-agent/x", ".mini-coding-agents"],
)  # fmt: skip
def test_names_that_only_look_like_them_can_be_written(root: Path, local: Any, raw: str) -> None:
    text = local.run_tool("write_file", {"path": raw, "content": "x\n"})
    assert text.startswith("wrote ") and (root / raw).read_text() == "x\n"


# Large and binary files


@linux
def test_huge_files_and_lines_are_read_in_part_and_not_changed(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    for name in ("sparse.txt", "AGENTS.md", "zeros.bin"):
        with open(root / name, "wb") as file:
            file.write(b"" if name == "zeros.bin" else b"the first line is wanted\n" * 2000)
            file.truncate(5_000_000_000)
    (root / "line.txt").write_bytes(b"begin wanted " + b"x" * 50_000_000 + b" end\nlast\n")
    sizes = {path.name: path.stat().st_size for path in root.iterdir()}
    names = ["sparse.txt", "zeros.bin", "line.txt"]
    calls = [
        (name, args) for path in names for name, args in tools_on(path) if name != "list_files"
    ]
    calls += [("search", {"pattern": "wanted"}), ("list_files", {"path": "."})]
    calls += [("read_file", {"path": "line.txt", "start": 2})]
    argv = at_most("RLIMIT_AS", 600_000_000)
    done = agent([call(name, **args) for name, args in calls], argv=argv)
    assert done.code == 0 and "Traceback" not in done.err, done.err
    results = dict(zip((f"{n} {a.get('path')}" for n, a in calls), server.prompts[1:]))
    says = {name: prompt.rpartition("\n[tool:")[2] for name, prompt in results.items()}
    assert "MemoryError" not in server.prompts[-1] and " failed: " not in server.prompts[-1]
    assert (
        "the first line is wanted" in says["read_file sparse.txt"]
        and "begin wanted" in server.prompts[-1]
    )
    assert "binary" in says["read_file zeros.bin"]
    for name in ("write_file", "patch_file"):
        assert all("\nerror: " in says[f"{name} {path}"] for path in names)
    assert all(len(text) < 14_000 for text in says.values())
    assert {
        path.name: path.stat().st_size for path in root.iterdir() if path.name in sizes
    } == sizes


def test_a_binary_file_is_neither_shown_nor_patched_nor_searched(root: Path, local: Any) -> None:
    (root / "data.bin").write_bytes(b"wanted\0\x01\x02 secret")
    assert "binary" in local.run_tool("read_file", {"path": "data.bin"})
    patch = {"path": "data.bin", "old_text": "wanted", "new_text": "x"}
    assert local.run_tool("patch_file", patch).startswith("error: ")
    assert local.run_tool("search", {"pattern": "wanted"}).startswith("no match")
    assert (root / "data.bin").read_bytes() == b"wanted\0\x01\x02 secret"


# Patches keep what they do not mean

PATCHES: dict[str, tuple[bytes, str, str, bytes]] = {
    "Latin-1": (b"caf\xe9\none\n\xfcber\n", "one", "zwei \u20ac", b"caf\xe9\nzwei \xe2\x82\xac\n\xfcber\n"),
    "broken UTF-8": (b"\xe2\x82 one \xff\xc0\xaf", "one", "two", b"\xe2\x82 two \xff\xc0\xaf"),
    "encoded surrogates": (b"\xed\xa0\x80 one\n", "one", "two", b"\xed\xa0\x80 two\n"),
    "byte order mark": (b"\xef\xbb\xbfone\ntwo\n", "one", "1", b"\xef\xbb\xbf1\ntwo\n"),
    "CRLF": (b"one\r\ntwo\r\nthree\r\n", "one\ntwo", "1\n2\n2.5", b"1\r\n2\r\n2.5\r\nthree\r\n"),
    "CRLF as the model wrote it": (b"one\r\ntwo\r\n", "one\r\ntwo", "1\r\n2", b"1\r\n2\r\n"),
    "mixed ends, one line": (b"one\r\ntwo\nthree\r\n", "two", "2", b"one\r\n2\nthree\r\n"),
    "mixed ends, LF part": (b"a\r\none\ntwo\nb\r\n", "one\ntwo", "1\n2", b"a\r\n1\n2\nb\r\n"),
    "mixed ends, CRLF part": (b"a\none\r\ntwo\r\nb\n", "one\ntwo", "1\n2", b"a\n1\r\n2\r\nb\n"),
    "CR alone": (b"one\rtwo\rthree", "two", "2", b"one\r2\rthree"),
    "no newline at the end": (b"one\ntwo", "two", "2", b"one\n2"),
    "blanks at ends of lines": (b"one  \n\ttwo\t\n\n\n", "two", "2", b"one  \n\t2\t\n\n\n"),
    "odd line ends": ("a\x0bone\x0c\x85\u2028b\n".encode(), "one", "1", "a\x0b1\x0c\x85\u2028b\n".encode()),
    "tags and marks": (b"<final>one</final></content>", "one", "</tool>", b"<final></tool></final></content>"),
    "backslashes": (rb"a\1 one \g<0>", "one", r"\1\g<0>\n", rb"a\1 \1\g<0>\n \g<0>"),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_keeps_every_byte_that_it_does_not_mean(root: Path, local: Any, name: str) -> None:
    before, old, new, after = PATCHES[name]
    (root / "file.txt").write_bytes(before)
    assert local.run_tool("read_file", {"path": "file.txt"}).startswith("# file.txt")
    patch = {"path": "file.txt", "old_text": old, "new_text": new}
    text = local.run_tool("patch_file", patch)
    assert text == "patched file.txt" and (root / "file.txt").read_bytes() == after


def test_text_that_is_not_utf8_is_shown_with_replacements(root: Path, local: Any) -> None:
    (root / "file.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9 one\r\nlast")
    text = local.run_tool("read_file", {"path": "file.txt"})
    assert "   1: caf\ufffd one\n   2: last" in text
    assert "file.txt:2: last" in local.run_tool("search", {"pattern": "^last$"})


@pytest.mark.parametrize("pattern", ["^one", "one$", "two$", "^two$"])
def test_the_search_sees_neither_a_byte_order_mark_nor_how_lines_end(
    root: Path, local: Any, pattern: str
) -> None:
    (root / "file.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert local.run_tool("search", {"pattern": pattern, "path": "file.txt"}).startswith(
        "file.txt:"
    )


def test_a_patch_of_what_was_shown_as_a_replacement_changes_nothing(root: Path, local: Any) -> None:
    (root / "file.txt").write_bytes(b"caf\xe9 one\n")
    patch = {"path": "file.txt", "old_text": "caf\ufffd one", "new_text": "caf\ufffd two"}
    assert local.run_tool("patch_file", patch).startswith("error: ")
    assert (root / "file.txt").read_bytes() == b"caf\xe9 one\n"


@posix
@pytest.mark.parametrize("mode", [0o755, 0o600, 0o444, 0o666, 0o640])
def test_a_changed_file_keeps_its_mode(root: Path, local: Any, mode: int) -> None:
    (root / "calc.py").chmod(mode)
    local.run_tool("patch_file", {"path": "calc.py", "old_text": "a + b", "new_text": "b + a"})
    assert "b + a" in (root / "calc.py").read_text()
    assert stat.S_IMODE((root / "calc.py").stat().st_mode) == mode
    local.run_tool("write_file", {"path": "calc.py", "content": "pass\n"})
    assert (root / "calc.py").read_text() == "pass\n"
    assert stat.S_IMODE((root / "calc.py").stat().st_mode) == mode


@posix
def test_a_new_file_gets_the_mode_that_the_user_is_used_to(root: Path, local: Any) -> None:
    before = os.umask(0o027)
    try:
        local.run_tool("write_file", {"path": "new/file.txt", "content": "x\n"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "new" / "file.txt").stat().st_mode) == 0o640


def test_a_file_that_is_written_as_it_is_is_not_called_empty(root: Path, local: Any) -> None:
    for name, content, said in (
        ("calc.py", FILES["calc.py"], "calc.py: as it is already"),
        ("new.txt", "", "new.txt: an empty file"),
        ("pkg/__init__.py", "", "pkg/__init__.py: as it is already"),
    ):
        assert mca.write_file(local, name, content).preview() == said


# A write that fails

# Root may write anywhere: taken from it are the capabilities 1 and 2, which let it.


@linux
def test_a_write_into_a_read_only_folder_leaves_the_old_file(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    (root / "pkg").chmod(0o555)
    before = tree(root)
    calls = [
        ("write_file", {"path": path, "content": "x\n"}) for path in ("pkg/util.py", "pkg/new.py")
    ]
    calls += [("write_file", {"path": "pkg/new/deep.py", "content": "x\n"})]
    calls += [("patch_file", {"path": "pkg/util.py", "old_text": "hello", "new_text": "bye"})]
    argv = without_root()
    done = agent([call(name, **args) for name, args in calls], argv=argv)
    (root / "pkg").chmod(before[str(root / "pkg")][0])
    if "root stays root" in done.err:
        pytest.skip("root cannot be stopped from writing here")
    assert done.code == 0 and tree(root) == before
    assert server.prompts[-1].count("not written: Permission denied") == len(calls)


@posix
def test_a_write_that_finds_the_disk_full_leaves_the_old_file(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    (root / "large.txt").write_text("old\n" + "x" * 49_000)
    before = tree(root)
    patch = call("patch_file", path="large.txt", old_text="old", new_text="new" * 1000)
    argv = at_most("RLIMIT_FSIZE", 50_000)
    agent([call("write_file", path="calc.py", content="x" * 60_000), patch], argv=argv)
    assert tree(root) == before
    assert server.prompts[-1].count("not written: File too large") == 2


# Search


def found(text: str) -> set[str]:
    return {line.partition(":")[0] for line in text.splitlines() if ":" in line}


@posix
def test_the_search_skips_binaries_links_and_ignored_folders(
    git_repo: Path, tmp_path: Path, server: OllamaServer, agent: Agent
) -> None:
    for name in ("build/a.txt", "a.log", "node_modules/a.js", ".venv/a.py", "src/a.txt", ".hidden"):
        (git_repo / name).parent.mkdir(parents=True, exist_ok=True)
        (git_repo / name).write_text("wanted\n")
    (git_repo / ".git" / "wanted.txt").write_text("wanted\n")
    (git_repo / "data.bin").write_bytes(b"wanted\0\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "far.txt").write_text("wanted\n")
    for name, target in {"link.txt": "src/a.txt", "far.txt": "../outside/far.txt",
                         "far": "../outside", "near": "src", "round": "."}.items():  # fmt: skip
        (git_repo / name).symlink_to(target)
    agent([call("search", pattern="^wanted$")], cwd=git_repo)
    said = server.prompts[1].rpartition("\n[tool:search]\n")[2].partition("\n\n")[0]
    assert found(said) == {"src/a.txt", ".hidden"}


def test_a_catastrophic_pattern_ends_with_what_was_found_so_far(
    root: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mca, "SEARCH_SECONDS", 0.3)
    (root / "a.txt").write_text("aaaa\n")
    (root / "z.txt").write_text("a" * 60 + "!\n")
    text = local.run_tool("search", {"pattern": "^(a+)+$"})
    if hasattr(os, "fork"):
        assert "a.txt:1: aaaa" in text and "stopped after" in text
    local.run_tool("read_file", {"path": "calc.py"})


@posix
def test_a_catastrophic_pattern_ends_in_a_subagent_too(
    root: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mca, "SEARCH_SECONDS", 0.3)
    (root / "z.txt").write_text("a" * 60 + "!\n")
    search = call("search", pattern="^(a+)+$", path="z.txt")
    local.model_client = mca.FakeModelClient([call("delegate", task="find it"), search, DONE, DONE])
    assert local.ask("go") == "all said"
    assert "stopped after" in local.model_client.prompts[2]


def test_a_search_of_many_files_ends_in_time_with_what_was_found(
    root: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "0.txt").write_text("wanted\n")
    for number in range(1500):
        if number % 100 == 0:
            (root / f"many{number}").mkdir()
        (root / f"many{number // 100 * 100}" / f"{number}.txt").write_text("text\n" * 50)
    began = time.monotonic()
    local.run_tool("search", {"pattern": "text that is nowhere"})
    monkeypatch.setattr(mca, "SEARCH_SECONDS", (time.monotonic() - began) / 4)
    text = local.run_tool("search", {"pattern": "wanted"})
    assert "0.txt:1: wanted" in text and "stopped after" in text


def test_a_search_of_a_large_folder_finds_everything_or_says_that_it_did_not(
    root: Path, local: Any
) -> None:
    for number in range(2100):
        (root / f"{number}.txt").write_text(f"wanted {number}\n" if number % 25 == 0 else "")
    text = local.run_tool("search", {"pattern": "wanted"})
    assert text.count("wanted") >= 84 or "[" in text


@pytest.mark.parametrize("pattern", ["[[a]", "[a--b]", "[a||b]", "[a&&b]"])
def test_what_python_says_of_a_pattern_stays_off_the_screen(
    root: Path, agent: Agent, server: OllamaServer, pattern: str
) -> None:
    done = agent([call("search", pattern=pattern, path="calc.py")])
    assert "calc.py:1: def add" in server.prompts[1] or "no match" in server.prompts[1]
    assert "Warning" not in done.err and "mini_coding_agent.py" not in done.err


def test_the_search_names_the_nearest_files_first(root: Path, local: Any) -> None:
    for name in ("a/b/c.txt", "a/d.txt", "e.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("wanted\n")
    text = local.run_tool("search", {"pattern": "wanted"})
    assert text == "e.txt:1: wanted\na/d.txt:1: wanted\na/b/c.txt:1: wanted"


PLAIN = ["value[", "f(x", "*args", "a{1,99999999999}", "(?P<", "\\", "x)(", "(" * 3000]


@pytest.mark.parametrize("pattern", PLAIN, ids=range(len(PLAIN)))
def test_a_pattern_that_is_none_is_searched_as_plain_text(
    root: Path, local: Any, pattern: str
) -> None:
    (root / "a.txt").write_text(f"first\nhere: {pattern} and more\n")
    assert local.run_tool("search", {"pattern": pattern}).startswith("a.txt:2: here: ")
    text = local.run_tool("search", {"pattern": f"{pattern}missing"})
    assert text.startswith("no match") and "plain text" in text
