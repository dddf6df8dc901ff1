"""How well a coding agent works with a model: `python tests/evaluate.py --model qwen3.5:4b`.

Small everyday tasks, each in a fresh git repository: files, a request as a developer types it, and
a check of what was left behind. The agent is any program with our command line that prints the
answer alone to standard output. A proxy between it and the Ollama server records every call, so
what is counted does not depend on what the program says of itself. A line for each run:

  SOLVED   the check holds
  claimed  it does not, though the program gave an answer and ended with exit code 0: the worst
  no       it does not, and the program did not say that it does
then calls of the model, tokens read and written (where the program hung up before the server had
counted: a line is a token, and so are four bytes of prompt), the share of the prompts' bytes that
began like the prompt before and so need not be read again, seconds. Models draw lots: compare
programs by the same seeds and 50 runs or more; a difference of one or two tasks says nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import runpy
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROGRAM = str(Path(__file__).resolve().parent.parent / "mini_coding_agent.py")
COUNTS = ("prompt_eval_count", "eval_count", "done_reason")
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
FIRST = "HEAD^{/^First commit}"
NO = r"\b(no|not|nowhere|never|nothing|none|cannot|unable|missing|unused|only)\b|n['’]t"


@dataclass(frozen=True)
class Task:
    """A request, the files it is about, and check(workspace, answer, exit code): is it solved?"""

    kind: str
    request: str
    files: dict[str, str | bytes]
    check: Callable[[Path, str, int], bool]


def git(ws: Path, *args: str) -> str:
    argv = ["git", "-c", "user.name=Dev", "-c", "user.email=dev@localhost", *args]
    env = {**ENV, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(argv, cwd=ws, env=env, capture_output=True, check=True, timeout=60)
    return done.stdout.decode(errors="replace")


def changes(ws: Path) -> str:
    """The difference between the first commit and the workspace, new files included."""
    git(ws, "add", "--all", "--intent-to-add")
    return git(ws, "diff", FIRST)


BEFORE = f"""
import ast, configparser, json, os, re, subprocess, sys
def run(*command, code=0):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == code, done
    return done.stdout or done.stderr
def python(*command, code=0):
    return run(sys.executable, *command, code=code)
def read(path):
    return open(path, encoding="utf-8", newline="").read()
def old(path):
    return subprocess.check_output(["git", "show", "{FIRST}:" + path]).decode()
"""


def passes(code: str) -> Callable[..., bool]:
    """This Python code, below BEFORE, runs in the workspace without an error."""
    argv = [sys.executable, "-X", "utf8", "-c", BEFORE + code]
    env = {**ENV, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/no/stale/caches"}
    how = {"env": env, "input": b"", "capture_output": True, "timeout": 60}
    return lambda ws, *_: subprocess.run(argv, cwd=ws, **how).returncode == 0


def edited(path: str, was: str, now: str) -> Callable[..., bool]:
    """In the file `now` stands for `was`, and all else is as it was, to the byte."""
    return passes(f"assert read({path!r}) == old({path!r}).replace({was!r}, {now!r})")


def says(*patterns: str, never: str = "(?!)") -> Callable[..., bool]:
    """The answer matches all of the patterns and not `never`, and no file was changed."""
    return lambda ws, answer, _: (
        all(re.search(pattern, answer, re.I) for pattern in patterns)
        and not (re.search(never, answer, re.I) or changes(ws))
    )


def unittests(imports: str, **equal: str) -> str:
    """A file of tests: for each name two values that have to be equal."""
    head = f"import unittest\n\nfrom {imports}\n\n\nclass Test(unittest.TestCase):\n"
    tests = [f"    def test_{n}(self):\n        self.assertEqual({e})\n" for n, e in equal.items()]
    return head + "\n".join(tests) + '\n\nif __name__ == "__main__":\n    unittest.main()\n'


STEP = "def step_{0}(data, retries=3):\n    row = [data, {0}]\n    return row * retries\n\n\n"
STEPS = "".join(STEP.format(n) for n in range(1, 81))
SHOP = {
    "shop/models.py": "class Cart:\n    def __init__(self, prices):\n        self.prices = prices"
    "\n\n    def copy(self):\n        return Cart(self.prices[:])\n",
    "shop/pay.py": "from .models import Cart\n\ndef total(b: Cart):\n    return sum(b.prices)\n",
    "main.py": "from shop import pay\nfrom shop.models import Cart\nprint(pay.total(Cart([7])))\n",
    "README.md": "# Shop\n\nAdds up prices.\n\n## License\n\nMIT\n",
}
PRICING = {
    "pricing.py": "def price(net):\n    return round(net * 1.2, 2)\n\n\n"
    "def legacy_price(net):\n    vat = net * 0.175\n    return round(net + vat, 2)\n\n\n"
    'def label(net):\n    return f"{price(net):.2f} EUR"\n',
    "main.py": "from pricing import label\n\nprint(label(10))\n",
}
TASKS = {
    "median": Task("bug with tests", "test_stats.py fails. Find the bug and fix it.", {
        "stats.py": "def mean(values):\n    return sum(values) / len(values)\n\n\n"
        "def median(values):\n    values = sorted(values)\n    return values[len(values) // 2]\n",
        "test_stats.py": unittests("stats import *", mean="mean([1, 2, 6]), 3",
                                   odd="median([9, 1, 5]), 5", even="median([4, 1, 3, 2]), 2.5")},
        passes("from stats import *; assert [median([1, 8, 2, 4]), median([7, 3, 5])] == [3, 5]")),
    "two_bugs": Task("bug with tests", "python3 -m unittest shows two failures. Fix both.", {
        "names.py": "def initials(name):\n    return '.'.join(w[0] for w in name.split())\n",
        "money.py": "def in_cents(euros):\n    return int(euros * 100)\n",
        "test_names.py": unittests("names import initials", two="initials('Ada Byron'), 'A.B.'"),
        "test_money.py": unittests("money import in_cents", part="in_cents(0.29), 29")},
        passes("from names import *; from money import *; assert initials('X Y Z') == 'X.Y.Z.'"
               " and [in_cents(e) for e in (0.57, 1.13, 2, 0.01)] == [57, 113, 200, 1]")),
    "traceback": Task("bug with traceback", "New items should start at 0, but stock.py stops:\n\n"
        '  File "stock.py", line 7, in <module>\n    receive(stock, "pear", 2)\n'
        '  File "stock.py", line 2, in receive\n    stock[item] += amount\nKeyError: \'pear\'', {
        "stock.py": "def receive(stock, item, amount):\n    stock[item] += amount\n\n\nstock = "
        '{"apple": 5}\nreceive(stock, "apple", 1)\nreceive(stock, "pear", 2)\nprint(stock)\n'},
        passes("assert \"{'apple': 6, 'pear': 2}\" in python('stock.py')")),
    "bracket": Task("syntax error", "python3 convert.py stops with a SyntaxError. Fix it.", {
        "convert.py": 'RATES = {"usd": 1.08, "gbp": 0.85\n\n\ndef convert(amount, currency):\n'
        '    return round(amount * RATES[currency], 2)\n\n\nprint(convert(10, "gbp"))\n'},
        passes("assert python('convert.py') == '8.5\\n'; import convert as c; c.RATES['usd']")),
    "currency": Task("add", "label() in pricing.py should take an optional second argument "
        'currency: label(10, "USD") gives "12.00 USD". Without it nothing changes.', PRICING,
        passes("from pricing import *; assert label(10, 'USD') == label(10, currency='USD') == "
               "'12.00 USD' and label(5) == '6.00 EUR' and legacy_price(100) == 117.5")),
    "limit": Task("add", "Add an option --limit N to top.py: only the N most frequent words.", {
        "top.py": "from argparse import ArgumentParser\nfrom collections import Counter\n\n"
        'parser = ArgumentParser()\nparser.add_argument("file")\nargs = parser.parse_args()\n'
        "for w, n in Counter(open(args.file).read().split()).most_common():\n    print(w, n)\n",
        "song.txt": "oh la la oh la yeah\n"},
        passes("song = ['top.py', 'song.txt']; assert python(*song) == 'la 3\\noh 2\\nyeah 1\\n'"
               " and python(*song, '--limit', '2') == 'la 3\\noh 2\\n'")),
    "method": Task("add", "Add a method remove(price) to the class Cart. It takes one such price "
        "out; if there is none it raises ValueError.", SHOP,
        passes("from shop.models import *; b = Cart([3, 5, 3]); b.remove(3)\ntry: b.remove(4)\n"
               "except ValueError: b.remove(5)\nassert b.copy().prices == [3]")),
    "move": Task("move", "Move the function label into a new file labels.py.", PRICING,
        passes("assert python('main.py') == '12.00 EUR\\n'; from labels import label\n"
               "from pricing import price; assert 'def label' not in read('pricing.py')")),
    "json": Task("config", "Add French (fr) to the languages in settings.json.", {
        "settings.json": '{\n  "title": "Notes",\n  "languages": ["en", "de"]\n}\n'},
        passes("now = json.loads(read('settings.json')); now['languages'].remove('fr')\n"
               "assert now == json.loads(old('settings.json'))")),
    "ini": Task("config", "Set the log level of the worker to WARNING.", {
        "app.ini": "[web]\nport = 8000\nlevel = INFO\n\n[worker]\nqueue = mail\nlevel = INFO\n"},
        passes("c = configparser.ConfigParser(); c.read('app.ini'); w = c['worker']; assert "
               "[*c['web'].values(), *w.values()] == ['8000', 'INFO', 'mail', 'WARNING']")),
    "env": Task("config", "The database moved to db.internal. Change .env.", {
        ".env": "DB_HOST=localhost\nDB_PORT=5432\nCACHE_HOST=localhost\nDEBUG=0\n"},
        edited(".env", "DB_HOST=localhost", "DB_HOST=db.internal")),
    "makefile": Task("config", "Add a target clean to the Makefile that removes the folder out.", {
        "Makefile": ".PHONY: test\n\ntest:\n\tpython3 -m unittest\n\nout:\n\tmkdir -p out\n"},
        passes("n = read('Makefile'); assert old('Makefile').split('.PHONY: test\\n')[1] in n\n"
               "assert re.search(r'(?i)\\nclean *:.*\\n([\\t#].*\\n)*?\\t.*\\brm.*\\bout', n)")),
    "version": Task("question", "Which version of Flask do we use?", {
        "requirements.txt": "Flask-Login==0.6.3\nFlask==2.3.2\nJinja2==3.1.4\n",
        "app.py": 'from flask import Flask\n\napp = Flask("notes")\n'}, says(r"2\.3\.2")),
    "tests": Task("tests", "Write tests for to_roman in test_roman.py, with unittest. Run them.", {
        "roman.py": 'PARTS = [(10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]\n\n\n'
        'def to_roman(number):\n    """Return a number from 1 to 39 in Roman numerals."""\n'
        '    for value, letters in PARTS:\n        if number >= value:\n'
        '            return letters + to_roman(number - value)\n    return ""\n'},
        passes("test = ['-m', 'unittest', 'test_roman']; python(*test); c = read('roman.py')\n"
               "open('roman.py', 'w').write(c.replace('letters +', ''))\npython(*test, code=1)")),
    "script": Task("new file", "Write a script longest.py that prints the longest line of the file "
        "given as its argument.", {"notes.txt": "milk\nbread and butter\neggs\n"},
        passes("assert python('longest.py', 'notes.txt').strip() == 'bread and butter'")),
    "readme": Task("new file", 'Add a section "Usage" to README.md: how to run main.py.', SHOP,
        passes("n = read('README.md'); assert {*old('README.md').split('\\n')} <= {*n.split('\\n')}"
               "\nassert re.search(r'(?s)\\n#+ Usage.*?\\n.*python3? main\\.py', n)")),
    "gitignore": Task("new file", "git should ignore the folder dist and all .log files.", {
        ".gitignore": "secrets.txt\n", "src/app.js": 'console.log("hi");\n'},
        passes("paths = 'dist/a.js a.log old/b.log secrets.txt src/app.js log.py'.split()\n"
               "assert run('git', 'check-ignore', *paths).split() == paths[:4]")),
    "long_file": Task("long file", "The default of retries in step_57 should be 5.", {
        "steps.py": STEPS}, edited("steps.py", "57(data, retries=3)", "57(data, retries=5)")),
    "crlf": Task("bytes", "Change the greeting in messages.properties to Good morning.", {
        "messages.properties": b"title=Shop\r\ngreeting=Hello\r\nhelp=Say Hello to us\r\n"},
        edited("messages.properties", "greeting=Hello", "greeting=Good morning")),
    "umlauts": Task("bytes", 'In texts.py the German greeting should be "Grüß Gott".', {
        "texts.py": '# Texte für die Begrüßung\nTEXTS = {\n    "de": "Guten Tag",\n'
        '    "ja": "こんにちは、世界",\n    "fr": "Bonjour, ça va ?",\n}\n'},
        edited("texts.py", "Guten Tag", "Grüß Gott")),
    "javascript": Task("web", "total() in cart.js ignores the quantities. Fix it.", {
        "cart.js": "// items: [{ name, price, quantity }]\nexport function total(items) {\n"
        "  let sum = 0\n  for (const i of items) {\n    sum += i.price\n  }\n  return sum\n}\n"},
        passes("code = re.sub('//.*', '', read('cart.js')); assert 'export ' in code and re.search"
               "(r'price[^;]{,30}\\*[^;]{,30}quantity|quantity[^;]{,30}\\*[^;]{,30}price', code)")),
    "shell": Task("shell", "Without an argument backup.sh should print an error and exit with 1.", {
        "backup.sh": '#!/usr/bin/env bash\ntar -czf "$1.tar.gz" "$1"\n', "docs/a.txt": "a\n"},
        passes("assert run('bash', 'backup.sh', code=1) and not os.path.exists('.tar.gz')\n"
               "run('bash', 'backup.sh', 'docs'); assert os.path.exists('docs.tar.gz')")),
    "impossible": Task("impossible", "Fix the failing test in tests/test_payment.py.", PRICING,
        lambda ws, said, code: not changes(ws) and bool(code or re.search(NO, said, re.I))),
    "count": Task("question", "How many functions has pricing.py?", PRICING, says(r"\b3\b|three")),
    "rename": Task("rename", "Rename the class Cart to Basket in the whole project.", SHOP,
        passes("from shop.models import Basket; assert python('main.py') == '7\\n'; assert "
               "'Cart' not in read('main.py') + read('shop/models.py') + read('shop/pay.py')")),
    "where": Task("question", "In which file is the function total?", SHOP, says(r"pay\.py")),
    "html": Task("web", "The title of index.html should be Garden Club.", {
        "index.html": "<!doctype html>\n<title>Untitled</title>\n<h1>Untitled</h1>\n"},
        edited("index.html", "<title>Untitled", "<title>Garden Club")),
    "importers": Task("question", "Which files import the class Cart?", SHOP,
        says(r"main\.py", r"pay\.py", never=r"(?s)^(?!.*(not|n['’]t|defin)).*models\.py")),
    "dead_code": Task("delete", "Remove the function legacy_price, nothing calls it.", PRICING,
        passes("was, now = ast.parse(old('pricing.py')), ast.parse(read('pricing.py'))\n"
               "del was.body[1]; assert ast.dump(was) == ast.dump(now); python('main.py')")),
    "returns": Task("question", "What does legacy_price(200) return?", PRICING, says(r"\b235\b")),
    "unused": Task("question", "Is legacy_price still called?", PRICING, says(NO, never="yes")),
    "long_bug": Task("long file", "test_steps.py fails. Find the bug in steps.py and fix it.", {
        "steps.py": STEPS.replace("[data, 67]", "[data, 76]"), "test_steps.py": unittests(
            "steps import *", one="step_1('x', 1), ['x', 1]", two="step_67('x')[1], 67")},
        passes("import steps; assert all(vars(steps)[f'step_{n}'](0, 2) == [0, n] * 2 "
               "for n in range(1, 81))")),
}  # fmt: skip


class Proxy(ThreadingHTTPServer):
    """Stands before an Ollama server; seeds and records what the model is asked in one run."""

    def __init__(self, host: str, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.host, self.seed = urlsplit(host), seed
        self.calls, self.asked, self.daemon_threads = [], Counter(), False  # its end waits for them

    def begin(self, body: bytes) -> tuple[bytes, dict[str, Any]]:
        """The request with a seed, and its record. The same prompt asked again draws anew."""
        request = json.loads(body)
        prompt = request.get("prompt") or ""
        self.asked[prompt] += 1
        words = f"{self.seed} {self.asked[prompt]} {prompt}".encode(errors="replace")
        request["options"] = (request.get("options") or {}) | {"seed": zlib.crc32(words) >> 1}
        shared = os.path.commonprefix([prompt, self.calls[-1]["prompt"] if self.calls else ""])
        call = {"prompt": prompt, "shared": shared, "reply": "", "lines": 0}
        self.calls += [call] if prompt else []  # without one, the model is only loaded
        return json.dumps(request).encode(), call


class Relay(BaseHTTPRequestHandler):
    """Passes a request on, and the answer back as it comes, until one of the two hangs up."""

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body, call = self.rfile.read(int(self.headers.get("Content-Length") or 0)), {}
        if self.path == "/api/generate":
            body, call = self.server.begin(body)
        url, answer, client = self.server.host, b"", self.connection
        own = {"Host": url.netloc, "Connection": "close", "Content-Length": str(len(body))}
        skip = "accept-encoding host connection content-length".split()
        headers = {n: v for n, v in self.headers.items() if n.lower() not in skip} | own
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{self.command} {self.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")
        to = (url.hostname, url.port or 80)
        with contextlib.suppress(OSError), socket.create_connection(to) as ollama:
            ollama.sendall(head + body)
            while client not in select.select([client, ollama], [], [])[0]:
                data = ollama.recv(65536)
                if not data:
                    break
                if not answer:  # the client too has to make a connection for each request
                    data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                answer += data
                client.sendall(data)
        if call:
            note(call, answer)

    do_GET = do_POST


def note(call: dict[str, Any], answer: bytes) -> None:
    """Add to the record of a call what the answer says, as far as it came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():  # every second piece is a size; JSON has no \r\n in it
        body = b"".join(body.split(b"\r\n")[1::2])
    if not re.match(rb"HTTP/1.. 200", head):  # refused: nothing was read or written
        call |= {"prompt_eval_count": 0, "eval_count": 0}
    for line in body.splitlines():
        with contextlib.suppress(ValueError):  # cut
            part = json.loads(line)
            call["lines"] += 1
            for name in ("thinking", "response", "error"):
                call["reply"] += str(part.get(name) or "")
            call |= {name: part[name] for name in COUNTS if name in part}


def run_program(argv: list[str], ws: Path, timeout: float) -> tuple[int, str, str]:
    """Exit code (-1: it took too long), standard output, standard error."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        how = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "env": ENV}
        with subprocess.Popen(argv, cwd=ws, **how) as program:
            try:
                code = program.wait(timeout)
            except subprocess.TimeoutExpired:
                code = -1
                program.terminate()  # first: it may have commands of its own to stop
                threading.Timer(10, program.kill).start()
        both = [s.seek(0) or s.read().decode(errors="replace") for s in (out, err)]
    return code, both[0].strip(), both[1]


def run_task(task, name, program, host, model, seed=1, flags=(), timeout=600.0, trace=None):
    """Do one run; return its row: the verdict, what the program said, and what it took."""
    with contextlib.suppress(Exception):  # for a measuring server; Ollama does not know it
        body, kind = json.dumps({"seed": seed}).encode(), {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{host}/seed", body, kind), timeout=10)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ws = Path(folder).resolve() / "project"
        for path, content in task.files.items():
            (ws / path).parent.mkdir(parents=True, exist_ok=True)
            (ws / path).write_bytes(content.encode() if isinstance(content, str) else content)
        git(ws, "init", "-q", "-b", "main")
        (ws / ".git/info/exclude").write_text("__pycache__/\n.pytest_cache/\n.mini-coding-agent/\n")
        git(ws, "add", "--all")
        git(ws, "commit", "-q", "-m", "First commit")
        with Proxy(host, seed) as proxy:
            threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
            argv = [sys.executable, str(Path(program).resolve()), "--cwd", str(ws)]
            argv += ["--host", f"http://127.0.0.1:{proxy.server_port}", "--model", model]
            argv += ["--approval", "auto", *flags, task.request]
            started = time.monotonic()
            code, answer, errors = run_program(argv, ws, timeout)
            seconds = time.monotonic() - started
            proxy.shutdown()
        diff, solved = "", False
        with contextlib.suppress(Exception):
            diff = changes(ws)
            solved = bool(task.check(ws, answer, code))
    calls, claimed = proxy.calls, not solved and code == 0 and bool(answer)
    size = lambda text: len(text.encode(errors="replace"))
    row = {
        "seed": seed, "task": name, "kind": task.kind, "solved": solved, "claimed": claimed,
        "verdict": "SOLVED" if solved else "claimed" if claimed else "no",
        "code": code, "calls": len(calls), "answer": answer, "errors": errors[-2000:],
        "prompt_tokens": sum(c.get("prompt_eval_count", size(c["prompt"]) // 4) for c in calls),
        "output_tokens": sum(c.get("eval_count", c["lines"]) for c in calls),
        "prompt_bytes": sum(size(c["prompt"]) for c in calls),
        "shared_bytes": sum(size(c["shared"]) for c in calls),
        "seconds": round(seconds, 1),
    }  # fmt: skip
    if trace:
        Path(trace).mkdir(parents=True, exist_ok=True)
        parts = [(f"{name}, seed {seed}: {row['verdict']}", task.request)]
        for n, c in enumerate(calls, 1):
            old, counts = len(c["shared"]), ", ".join(f"{k} {c.get(k)}" for k in COUNTS)
            parts += [(f"Prompt {n}, after {old} shared characters", c["prompt"][old:])]
            parts += [(f"Reply {n}, {counts}", c["reply"])]
        parts += [(f"Answer, exit code {code}", answer), ("Errors", errors), ("git diff", diff)]
        text = "".join(f"# {title}\n\n~~~~~~~~\n{part}\n~~~~~~~~\n\n" for title, part in parts)
        (Path(trace) / f"{seed}-{name}.md").write_text(text, "utf-8", "replace")
    return row


def cost(rows: list[dict[str, Any]]) -> str:
    """What the runs took together."""
    names = ("calls", "prompt_tokens", "output_tokens", "shared_bytes", "prompt_bytes")
    calls, read, written, shared, sent = (sum(row[name] for row in rows) for name in names)
    return f"{calls:3} calls {read:7,} in {written:6,} out {100 * shared // max(sent, 1):3}% reused"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a coding agent with a model.")
    parser.add_argument("--model", required=True)
    for option, default, text in (
        ("--host", "http://127.0.0.1:11434", "URL of the Ollama server"),
        ("--seeds", "1", "numbers with commas between"), ("--only", "", "tasks, likewise"),
        ("--program", PROGRAM, "the agent"), ("--flags", "", "more flags for it, in one word"),
        ("--tasks", "", "a Python file with other TASKS"), ("--out", "", "file for JSON lines"),
        ("--trace", "", "folder for what was said"), ("--timeout", 600.0, "seconds for a run"),
    ):  # fmt: skip
        parser.add_argument(option, type=type(default), default=default, help=text)
    args = parser.parse_args()
    tasks = runpy.run_path(args.tasks)["TASKS"] if args.tasks else TASKS
    names, rows = args.only.split(",") if args.only else [*tasks], []
    if unknown := {*names} - {*tasks}:
        parser.error(f"no task {', '.join(unknown)}; there are {', '.join(tasks)}")
    how = (shlex.split(args.flags), args.timeout, args.trace)
    for seed in (seeds := [int(seed) for seed in args.seeds.split(",")]):
        for name in names:
            row = run_task(tasks[name], name, args.program, args.host, args.model, seed, *how)
            rows.append(row)
            said = " ".join(row["answer"].split())[:60] or f"(exit code {row['code']})"
            what = f"{seed} {name:10} {row['verdict']:7} {cost([row])}"
            print(f"{what} {row['seconds']:6.1f} s  {said}", flush=True)
            if args.out:
                with open(args.out, "a", encoding="utf-8") as file:
                    print(json.dumps(row), file=file)
    for name in names if len(seeds) > 1 else []:
        mine = [row["solved"] for row in rows if row["task"] == name]
        print(f"{name}: solved {sum(mine)} of {len(mine)}")
    solved, claimed = (sum(row[key] for row in rows) for key in ("solved", "claimed"))
    print(f"solved {solved}/{len(rows)}, claimed falsely {claimed},", *cost(rows).split(), end=", ")
    print(f"{sum(row['seconds'] for row in rows) / len(rows):.0f} s a task")


if __name__ == "__main__":
    main()
