"""run_shell: what a command gets, what the model is told of it, and that it ends."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from conftest import write_files
from ollama_replies import shell

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
BEGIN = "sleep 30 & echo $! >new; mv new pid; wait"  # the id is there as a whole, or not
KILOBYTE = 1024 if sys.platform == "darwin" else 1  # as ru_maxrss counts
AUTO = ("--approval", "auto")


def did(make, command, **more):
    return make().run_tool("run_shell", {"command": command, **more})


def within(seconds, reached):
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    return reached()


def gone(file):
    """Whether the process whose id a file holds ends soon."""
    pid = file.read_text().strip()

    def is_over():
        ps = ["ps", "-o", "stat=", "-p", pid]
        return subprocess.run(ps, capture_output=True, text=True).stdout.strip()[:1] in ("", "Z")

    return pid.isdigit() and within(10, is_over)


NO_STATE = "(this does not last: each command starts anew in the project's folder)"
TOLD = {
    "echo one; echo two >&2; echo three": "exit code 0\none\ntwo\nthree",
    "echo why >&2; exit 3": "exit code 3\nwhy",
    "true": "exit code 0\n(no output)",
    "kill -9 $$": "exit code -9\n(no output)",
    "nosuchcommand 2>/dev/null": "exit code 127\n(no output)",
    "cat; read x; echo [$x]": "exit code 0\n[]",
    "test -t 0 || test -t 1 || test -t 2 || (: </dev/tty) 2>/dev/null || echo none": "exit code 0\nnone",
    r"printf '10%%\r50%%\r100%%\ndone\n'": "exit code 0\n100%\ndone",
    r"printf '\033[31mred\033[0m\033[K\n'": "exit code 0\nred",
    r"printf 'a\r\nb\r\n'": "exit code 0\na\nb",
    r"printf '\xff\xfe'": "exit code 0\n\ufffd\ufffd",
    "[[ abc == a* ]] && source <(echo 'echo sourced')": "exit code 0\nsourced",
    "cat <(echo {1..3}); : 2>&1": "exit code 0\n1 2 3",
    "echo A=1 >act; source ./act && echo $A": "exit code 0\n1",
    "cd pkg": f"exit code 0\n{NO_STATE}\n(no output)", "export A=1": f"exit code 0\n{NO_STATE}\n(no output)",
    "cd pkg && ls": "exit code 0\n__init__.py\nutil.py",
    "echo $GIT_EDITOR $EDITOR $GIT_TERMINAL_PROMPT": "exit code 0\nfalse false 0",
    "basename $(pwd)": "exit code 0\nrepo",
}  # fmt: skip


@pytest.mark.parametrize("command", TOLD)
def test_a_command_has_no_terminal_and_no_input_and_its_output_is_clean(make, command):
    assert did(make, command).replace("code 137", "code -9") == TOLD[command]  # in a sandbox


def test_a_command_that_closes_its_output_is_waited_for(make, repo):
    assert did(make, "exec >&- 2>&-; sleep 0.2; touch late; exit 3").startswith("exit code 3")
    assert (repo / "late").exists()


def test_a_failed_command_is_an_error_for_the_record(make):
    agent = make()
    for command, code in (("exit 3", 3), ("true", 0)):
        agent.run_tool("run_shell", {"command": command})
        event = agent.session["history"][-1]
        assert (event["exit_code"], event["ok"]) == (code, code == 0)


def test_a_timeout_ends_the_command_and_all_that_it_started(make, tmp_path):
    file, started = tmp_path / "pid", time.monotonic()
    told = did(make, f"echo begun; (sleep 30 & echo $! >{file}; wait) | cat", timeout=1)
    assert told == "error: stopped after 1 seconds\nbegun" and time.monotonic() - started < 3
    assert gone(file)


def test_what_is_left_in_the_background_ends_with_its_command(make, tmp_path):
    file, started = tmp_path / "pid", time.monotonic()
    assert did(make, f"sleep 30 & echo $! >{file}; echo begun") == "exit code 0\nbegun"
    assert time.monotonic() - started < 2 and gone(file)


def test_what_left_its_process_group_is_not_waited_for(make):
    started = time.monotonic()
    assert "begun" in did(make, "setsid sleep 4 & echo begun; sleep 0.2")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_the_program_ends_its_command(spawn, server, repo, number):
    file = repo / "pid"
    server.script([shell(BEGIN)])
    program = spawn("--cwd", repo, "--host", server.url, *AUTO, "Run it.")
    assert within(5, file.exists)
    program.send_signal(number)
    out, err = program.communicate(timeout=5)
    assert program.returncode == {signal.SIGINT: 130}.get(number, 128 + number)
    assert gone(file) and b"Traceback" not in err and out == b""


def test_much_output_is_clipped_in_the_open_and_never_held_as_a_whole(make):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = did(make, "yes | head -c 50000000; echo the end")
    assert len(told) < 10_000 and told.endswith("the end") and "left out ...]" in told
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000 * KILOBYTE


def test_variables_whose_names_say_secret_are_not_passed_on(make, monkeypatch):
    secret = "GITHUB_TOKEN aws_secret_access_key DB_PASSWORD OPENAI_API_KEY XCREDENTIALS".split()
    for name in [*secret, "PLAIN_NAME", "TOKE"]:
        monkeypatch.setenv(name, "shown")
    assert set(re.findall(r"(?m)^(\w+)=shown$", did(make, "env"))) == {"PLAIN_NAME", "TOKE"}


@pytest.mark.parametrize("command, advice", [
    ("git commit", "supply the message"), ("git commit --amend", "message"), ("git rebase -i HEAD", "editor"),
])  # fmt: skip
def test_an_editor_fails_at_once_with_gits_advice(make, git_repo, command, advice):
    started = time.monotonic()
    who = "git config user.name x; git config user.email x@y; echo x >calc.py; git add .; "
    told = did(make, (who if "commit" in command else "") + command)
    assert re.match(r"exit code [1-9]", told) and advice in told
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("command", "proves"), [("discover -p 'nothing*'", False), ("test_x", True)]
)
def test_a_run_of_no_tests_is_said_to_prove_nothing(make, repo, command, proves):
    test = "import unittest\n\n\nclass T(unittest.TestCase):\n    def test(self):\n        pass\n"
    write_files(repo, {"test_x.py": test})
    told = did(make, f'"{sys.executable}" -m unittest {command}')
    assert ("no test was run" not in told) == proves and ("Ran 1 test" in told) == proves
