"""`--demo`: what a newcomer runs first."""

import re
import shlex
import sys

from program import PROGRAM


def test_the_demo_is_one_page_and_ends_with_a_command_that_goes_on(tmp_path, run, server):
    done = run("--demo", program=PROGRAM, env={"OLLAMA_HOST": server.url})
    shown = done.err + done.out
    assert done.code == 0 and 'agent.py", line' not in shown and server.requests == []
    assert len(shown.splitlines()) <= 60 and "a script plays the model" in shown
    for words in ("-print('Hello, ' + nmae)", "+print('Hello, ' + name)", "Allow? [y]es"):
        assert words in shown
    assert re.search(r"exit code 1\b.*\n(.*\n)*.*NameError", shown) and "code 0" in shown
    (folder,) = (tmp_path / "tmp").iterdir()
    assert (folder / "greet.py").read_text().endswith("print('Hello, ' + name)\n")
    python, *args = shlex.split(done.err.splitlines()[-1])
    assert python.startswith("python") and args[:3] == [str(PROGRAM), "--cwd", str(folder)]
    server.script(["It greets Ada."] * 2)
    done = run(*args, argv=[sys.executable], env={"OLLAMA_HOST": server.url})
    assert (done.code, done.out) == (0, "It greets Ada.\n")
    assert "the name was misspelt" in server.prompts[0]
