"""The workspace: what the snapshot says, and that a hostile folder runs and reveals nothing."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mini_coding_agent as mca
from conftest import FILES, Git, write_files
from ollama_replies import call

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX links, pipes and programs")
SECRET = "the secret text"


def test_the_snapshot_tells_branch_status_commits_rules_and_files(agent, server, git_repo, git):
    git("update-ref", "refs/remotes/origin/trunk", "HEAD", cwd=git_repo)
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk", cwd=git_repo)
    (git_repo / "calc.py").write_text("changed\n")
    found = mca.WorkspaceContext.build(git_repo)
    assert (found.branch, found.default_branch) == ("main", "trunk")
    assert found.status.strip() == "M calc.py" and found.repo_root == str(git_repo)
    assert len(found.recent_commits) == 1 and "First commit" in found.recent_commits[0]
    agent([], "hello?")
    for text in ("main", "trunk", "M calc.py", "First commit", "Keep functions short.", *FILES):
        assert text in server.prompts[0], text


def test_the_list_of_files_is_bounded_and_says_so(agent, server, repo):
    write_files(repo, {f"deep/d{n}/f{n}.txt": "x" * 100 for n in range(300)})
    agent([], "hello?")
    listed = server.prompts[0].partition("The project has ")[2].partition("\n\n")[0].splitlines()
    assert len(listed) <= 63 and "calc.py" in listed and listed[0].startswith("300 .txt files")
    assert f"{300 + len(FILES) - 60} more" in server.prompts[0]


@pytest.mark.parametrize("with_git", [True, False])
def test_what_git_ignores_and_clutter_is_neither_listed_nor_searched(make, git_repo, with_git):
    hidden = {"node_modules/m.js": "greet\n", "__pycache__/c.py": "greet\n", ".git/x": "greet\n"}
    ignored = {"build/b.py": "greet\n", "x.log": "greet\n"}
    write_files(git_repo, hidden | (ignored if with_git else {}))
    if not with_git:
        (git_repo / ".git").rename(git_repo / "venv")
    local = make()
    found = local.run_tool("search", {"pattern": "gree[t]"}).splitlines()
    found += local.run_tool("list_files", {}).splitlines()
    names = {line[4 * line.startswith("[") :].partition(":")[0] for line in found}
    assert names == {name for name in FILES if "/" not in name} | {"pkg/util.py", "pkg"}
    assert {*local.workspace.files} == {*FILES}


# A repository that its author made to attack who opens it

Plant = Callable[[Path, Path, str, Git], None]


def config(*pairs):
    def plant(repo, outside, program, git):
        for pair in pairs:
            key, _, value = pair.partition("=")
            git("config", key, value.format(program=program, outside=outside), cwd=repo)
        attributes = "* filter=x diff=x merge=x\n" if pairs else "* filter=lfs\n"
        write_files(repo, {".gitattributes": attributes, "calc.py": "changed\n"})
        os.utime(repo / "README.md")

    return plant


def hooks(repo, outside, program, git):
    for name in ("post-index-change", "post-checkout", "pre-commit", "reference-transaction"):
        (repo / ".git" / "hooks" / name).parent.mkdir(exist_ok=True)
        (repo / ".git" / "hooks" / name).write_text(f"#!/bin/sh\n{program}\n")
        (repo / ".git" / "hooks" / name).chmod(0o755)
    os.utime(repo / "README.md")


def include(repo, outside, program, git):
    text = f'[filter "x"]\nclean = {program}\nrequired = true\n[core]\nfsmonitor = {program}\n'
    write_files(repo, {".gitattributes": "* filter=x\n", "more": text, "calc.py": "changed\n"})
    git("config", "include.path", "../more", cwd=repo)
    os.utime(repo / "README.md")


def git_file(repo, outside, program, git):
    (repo / ".git").rename(repo.parent / "moved")
    (repo / ".git").write_text(f"gitdir: {outside}/.git\n")


def git_link(repo, outside, program, git):
    (repo / ".git").rename(repo.parent / "moved")
    (repo / ".git").symlink_to(outside / ".git")


def fetch(repo, outside, program, git):
    config("extensions.partialClone=o", "remote.o.promisor=true", "remote.o.url=ssh://h/r", "core.sshCommand={program}")(repo, outside, program, git)  # fmt: skip
    head = git("rev-parse", "HEAD", cwd=repo).strip()
    (repo / ".git/objects" / head[:2] / head[2:]).unlink()


def links(repo, outside, program, git):
    for name in ("AGENTS.md", "README.md", "calc.py"):
        (repo / name).unlink()
        (repo / name).symlink_to(outside / "secret.txt")
    (repo / "folder").symlink_to(outside)


def pipes(repo, outside, program, git):
    for name in ("AGENTS.md", "README.md", "calc.py"):
        (repo / name).unlink()
        os.mkfifo(repo / name)


HOSTILE: dict[str, Plant] = {
    "fsmonitor": config("core.fsmonitor={program}"),
    "hooksPath": config("core.hooksPath=."),
    "pager": config("core.pager={program}", "pager.log={program}", "pager.status={program}"),
    "filter": config("filter.x.clean={program}", "filter.x.smudge={program}"),
    "process": config("filter.x.process={program}", "filter.x.required=true"),
    "lfs": config("lfs.extension.x.clean={program}"), "a filter of the user's": config(),
    "diff": config("diff.x.textconv={program}", "diff.external={program}"),
    "signature": config("log.showSignature=true", "gpg.program={program}"),
    "alias": config("alias.status=!{program}", "core.sshCommand={program}"),
    "worktree": config("core.worktree={outside}"),
    "hooks": hooks, "include": include, ".git as a file": git_file, ".git as a link": git_link,
    "links": links, "pipes": pipes, "a missing object": fetch,
}  # fmt: skip


@posix
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_runs_nothing_and_brings_nothing_from_outside(
    agent, server, git_repo, git, tmp_path, name
):
    outside, canary = write_files(tmp_path / "outside", {"secret.txt": SECRET}), tmp_path / "canary"
    git("init", "-q", cwd=outside)
    git("checkout", "-q", "-b", "secret-branch", cwd=outside)
    git("add", ".", cwd=outside)
    git("commit", "-q", "-m", "secret-commit", cwd=outside)
    (outside / "secret-change").write_text(SECRET)
    program = git_repo / "post-index-change"
    write_files(git_repo, {program.name: f"#!/bin/sh\ntouch {canary}\ncat\n"})
    program.chmod(0o755)
    HOSTILE[name](git_repo, outside, str(program), git)
    env = {"GIT_CONFIG_GLOBAL": str(tmp_path / "global")}  # what git-lfs installs for its users
    (tmp_path / "global").write_text(f'[filter "lfs"]\n\tclean = {program}\n\trequired = true\n')
    started = time.monotonic()
    looks = [call("search", pattern="."), call("list_files"), call("read_file", path="calc.py")]
    done = agent([*looks, call("search", pattern="s", path="folder")], "What is calc.py?", env=env)
    assert time.monotonic() - started < 5 and "Traceback" not in done.err and done.out == "done\n"
    assert not canary.exists()
    assert ("M calc.py" in server.prompts[0]) or name != "a filter of the user's"
    assert all(word not in "".join(server.prompts) for word in (SECRET, "secret-", str(outside)))


@posix
def test_tools_never_leave_the_workspace(make, repo, tmp_path):
    for name in ("out", "repo-evil"):
        write_files(tmp_path / name, {"secret.txt": SECRET})
    links = {"folder": "../out", "file": "../out/secret.txt", "one": "two", "two": "folder"}
    links |= {"dangling": "../out/new", "loop": "loop", "root": "/"}
    for name, target in links.items():
        (repo / name).symlink_to(target)
    os.mkfifo(repo / "pipe")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    raws = [*links, "..", "../out", "../out/secret.txt", "folder/secret.txt", "one/secret.txt", "pipe",
            "../repo-evil/secret.txt", str(tmp_path / "out/secret.txt"), "/proc/self/environ",
            "pkg/../../out/secret.txt", "root/etc/passwd", "~/x", "a\0b", "a\nb", ".git/config",
            ".GIT/x", "pkg/.git/x", ".mini-coding-agent/x", ".git./x", "x" * 300, "calc.py/x"]  # fmt: skip
    agent = make()
    for raw in raws:
        for name, args in [
            ("read_file", {}), ("write_file", {"content": "new\n"}),
            ("patch_file", {"old_text": "secret", "new_text": "x"}),
            ("list_files", {}), ("search", {"pattern": "secret"}),
        ]:  # fmt: skip
            told = agent.run_tool(name, {"path": raw} | args)
            is_ours = (name, raw) in [("search", "pipe"), ("list_files", "pipe")]
            assert (told.startswith("error: ") or is_ours) and SECRET not in told, (name, raw, told)
    after = [path for path in tmp_path.rglob("*") if path.is_file() and ".mini-" not in str(path)]
    assert {path: path.read_bytes() for path in after} == before
    assert make().ask("What is calc.py?")  # which lists the files: a dangling link is none
    assert stat.S_ISFIFO((repo / "pipe").lstat().st_mode)
