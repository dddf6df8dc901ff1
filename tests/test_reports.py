"""What people report of coding agents, each kind tried here: paths, search, files, git, shell."""

import base64
import os
import stat

import pytest

import mini_coding_agent as mca
from conftest import DONE, write_files
from ollama_replies import call, shell, write
from ollama_server import OllamaServer

AUTO = ("--approval", "auto")
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


SEARCHES = {
    "a match far right in a line": (r"needl\w", {"wide.txt": "x" * 5000 + " the needle\n"}, "the needle"),
    "one at the end of a huge line": (r"n.edle", {"wide.txt": "x" * 90_000 + "needle"}, "xneedle"),
    "grep's alternation": (r"def main\|def run", {"a.py": "def run():\n"}, "a.py:1: def run"),
    "code as it stands": ("total += price(a, b)", {"a.py": "total += price(a, b)\n"}, "a.py:1: total"),
    "grep's classes": ("ab[[:space:]]cd", {"a.txt": "ab cd\n"}, "a.txt:1: ab cd"),
    "UTF-16 as PowerShell writes it": ("naïve", {"p.txt": "so naïve\r\n".encode("utf-16")}, "p.txt:1: so naïve"),
    "below 300 folders": ("deep down", {"d/" * 300 + "f.txt": "deep down\n"}, "f.txt:1: deep down"),
    "behind 300 folders": ("after it", {"d/" * 300 + "f.txt": "", "z.txt": "after it\n"}, "z.txt:1: after"),
    "a folder that git ignores, named": ("built", {"build/out.txt": "built\n"}, "build/out.txt:1: built"),
    "a file that git ignores, named": ("noise", {"x.log": "noise\n"}, "x.log:1: noise"),
}  # fmt: skip


@posix
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds(git_repo, make, name):
    pattern, files, found = SEARCHES[name]
    write_files(git_repo, files)
    args = {"path": next(iter(files)).partition("/")[0]} if "named" in name else {}
    said = make().run_tool("search", {"pattern": pattern} | args)
    assert found in said and said.count("\n") == 0 and len(said) < 1000


def test_a_search_says_what_it_left_out_and_ignored_folders_do_not_fill_it(git_repo, make):
    agent, many = make(), {f"build/{n}.txt": "greeting\n" for n in range(200)}
    write_files(git_repo, many | {"x.txt": "greeting\n"})
    assert agent.run_tool("search", {"pattern": "greeting"}) == "x.txt:1: greeting"
    assert "git ignores" in agent.run_tool("search", {"pattern": "nowhere"})
    assert "[F] 7.txt" in agent.run_tool("list_files", {"path": "build"})


def test_rules_in_utf_16_are_read_and_a_file_in_it_stays_so(repo, make):
    write_files(
        repo,
        {"AGENTS.md": "Be kind.\r\n".encode("utf-16"), "p.txt": "one\r\ntwo\r\n".encode("utf-16")},
    )
    agent = make()
    assert "Be kind." in agent.prefix
    agent.run_tool("patch_file", {"path": "p.txt", "old_text": "two", "new_text": "2"})
    assert (repo / "p.txt").read_bytes() == "one\r\n2\r\n".encode("utf-16")


def test_a_file_that_is_no_utf_8_is_not_rewritten_and_all_are_told(do, server, repo):
    latin = "café\n".encode("latin-1")
    write_files(repo, {"old.txt": latin})
    done = do("Change old.txt to tea.", write("old.txt", "tea\n"))
    assert (repo / "old.txt").read_bytes() == latin
    assert "no file of UTF-8 text" in done.err and "no file of UTF-8 text" in server.prompts[1]


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="root alone gives files away")
def test_a_file_keeps_its_owner_and_mode(repo, make):
    os.chown(repo / "calc.py", 12345, 23456)
    (repo / "calc.py").chmod(0o640)
    make().run_tool("patch_file", {"path": "calc.py", "old_text": "a + b", "new_text": "b + a"})
    now = (repo / "calc.py").stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (12345, 23456, 0o640)


@pytest.mark.parametrize("name, text", [
    ("tsconfig.json", '{\n  // comments\n  "strict": true,\n}\n'), ("old.py", 'print "true"\n'),
])  # fmt: skip
def test_a_file_that_did_not_parse_before_may_be_changed(repo, make, name, text):
    write_files(repo, {name: text})
    said = make().run_tool("patch_file", {"path": name, "old_text": "true", "new_text": "false"})
    assert said.startswith("patched") and "parse" not in said


def test_a_change_in_a_huge_line_is_shown_bounded_in_the_open(agent, server, repo):
    write_files(repo, {"min.js": "x" * 600_000 + "needle\n"})
    patch = call("patch_file", path="min.js", old_text="needle", new_text="pin")
    done = agent([patch], stdin="Change min.js.\ny\n")
    assert (repo / "min.js").read_text().endswith("xpin\n") and len(done.err) < 50_000
    assert done.err.count("characters left out") == 1 and len(server.prompts[1]) < 20_000


@pytest.mark.parametrize(
    "name", ["core.hooksPath", "core.sshCommand", "another owner", "a submodule"]
)
def test_git_is_read_in_spite_of(git_repo, git, monkeypatch, tmp_path, name):
    if name == "another owner":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    elif name == "a submodule":
        git("clone", "-q", str(git_repo), str(tmp_path / "inner"), cwd=tmp_path)
        allow = ("-c", "protocol.file.allow=always")
        git(*allow, "submodule", "add", "-q", str(tmp_path / "inner"), "sub", cwd=git_repo)
    else:
        git("config", name, ".husky", cwd=git_repo)
    write_files(git_repo, {"calc.py": "changed\n", "x.log": "", "new.txt": ""})
    found = mca.WorkspaceContext.build(git_repo)
    assert "M calc.py" in found.status and found.recent_commits == ["First commit"]
    assert "x.log" not in found.files and "new.txt" in found.files


@pytest.mark.parametrize("typed", ["/home/me/app.py crashes, why?", "quit it"])
def test_a_request_may_begin_as_a_command_does(agent, server, typed):
    agent([], stdin=f"{typed}\n")
    assert typed in server.prompts[0]


def test_an_answer_keeps_ordinary_blanks_and_joiners_and_a_question_spells_them_out(agent, repo):
    odd = "⚠\ufe0f 10\u00a0MB\u3000👩\u200d👩"
    done = agent(
        [shell(f"echo '{odd}'"), f"<final>{odd}</final>"], stdin="What does echo say?\ny\n"
    )
    assert odd in done.out and odd not in done.err
    assert r"echo '⚠\ufe0f 10\xa0MB\u3000👩\u200d👩'" in done.err


def test_a_quoted_name_attaches_and_one_that_is_not_there_is_said(agent, server, repo):
    write_files(repo, {"my notes.md": "remember\n", "big.txt": "x" * 9000})
    done = agent([], 'What do @"my notes.md" and @nope.txt say?')
    assert "my notes.md\n```\nremember" in server.prompts[0]
    assert "[attached] no nope.txt, my notes.md" in done.err


def test_user_and_password_in_the_address_are_sent_and_never_shown(run_here, repo):
    with OllamaServer() as server:
        server.script([], then=DONE)
        url = server.url.replace("http://", "http://me:p%40ss@")
        done = run_here("--cwd", repo, "--host", url, stdin="hello?\n/model none\n")
        word = base64.b64encode(b"me:p@ss").decode()
        assert {r.headers.get("Authorization") for r in server.requests} == {f"Basic {word}"}
        assert done.code == 0 and "ss@" not in done.err and "there is no model" in done.err.lower()


def test_an_error_behind_a_proxy_names_the_proxy(run_here, repo):
    env = {"http_proxy": "http://me:secret@127.0.0.1:9", "no_proxy": None}
    done = run_here("--cwd", repo, "--host", "http://10.9.8.7:11434", "hello?", env=env)
    assert done.code == 1 and "10.9.8.7:11434 (through the proxy 127.0.0.1:9)" in done.err
    assert "secret" not in done.err
