"""What the agent costs, apart from the model: `python tests/benchmark.py [tokens|harness|start]`.

Standard library only, no part of the test run. MCA_FILE names another file to measure. Times are
medians of runs on this machine; compare them with one another and with no other machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from ollama_replies import call, shell, write
from ollama_server import OllamaServer
from program import PROGRAM, START, clean_env

sys.path.insert(0, str(PROGRAM.parent))
import mini_coding_agent as mca

DONE, STEPS = "<final>done</final>", 400
VERDICTS: list[bool] = []


def target(what: str, value: float, most: float, unit: str) -> None:
    """Print OK or MISS for a figure."""
    VERDICTS.append(value <= most)
    print(
        f"  {'OK  ' if value <= most else 'MISS'} {what}: {value:.2f}{unit}, target {most:g}{unit}"
    )


@contextmanager
def project(files: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """A git repository with these files, and an environment for the program."""
    with tempfile.TemporaryDirectory() as name:
        folder, env = Path(name, "project"), clean_env(Path(name, "home"), Path(name, "tmp"), "b")
        for path in (folder, Path(name, "home"), Path(name, "tmp")):
            path.mkdir()
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First commit"]):
            subprocess.run(["git", *who, *args], cwd=folder, env=env, check=True)
        time.sleep(1.1)  # files as old as the index would be read again by every `git status`
        subprocess.run(["git", "update-index", "--refresh"], cwd=folder, env=env, check=True)
        yield folder, env


def run_program(folder: Path, env: dict[str, str], url: str, *args: str) -> None:
    """Run one request to its end, as an installed program with its bytecode cached."""
    command = [*START, "--host", url, "--cwd", str(folder), "--approval", "auto", *args]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the program failed: {done.stderr[-2000:]}")


# Tokens: what a server reads


def source(number: int) -> str:
    """A module of 90 lines, some 3,300 characters."""
    lines = [
        f"def task_{number}_{i}(left, right):\n    return left * {i} + right" for i in range(45)
    ]
    return "\n".join(lines) + "\n"


def step(number: int) -> str:
    """One of six kinds of calls in turn: reads, searches, edits, commands; some 1,800 characters."""
    path, turn = f"src/module_{number % 30:02}.py", number // 6
    name = f"def task_{number % 30}_{turn}(left, right):\n    return left"
    return (
        f'<tool name="read_file">{path}</tool>',
        f'<tool name="search" path="src">left \\* {turn} \\+ right</tool>',
        shell(f"head -c 3300 {path}; echo checked {number}"),
        call("patch_file", path=path, old_text=f"{name} * {turn} + right",
             new_text=f"{name} * {turn} - right"),
        "A new module.\n\n" + write(f"src/new_{number}.py", source(number + 100).partition(f"def task_{number + 100}_16(")[0]),
        shell(f"seq {number} {number + 800}"),
    )[number % 6]  # fmt: skip


def play(steps: int, cache: Any) -> list[float]:
    """Play a run; return calls, folds, tokens of the ideal, sent, and read anew by this cache."""
    files = {f"src/module_{number:02}.py": source(number) for number in range(30)}
    with project(files) as (folder, env), OllamaServer(cache=cache) as server:
        server.script([step(number) for number in range(steps)], then=DONE)
        run_program(folder, env, server.url, "--max-steps", str(steps + 1), "do a long job")
        (file,) = folder.glob(".mini-coding-agent/sessions/*.json")
        session = json.loads(file.read_text("utf-8"))
        failed = [e for e in session["history"] if not e.get("ok", True)]
        if failed or len(server.prompts) != steps + 1:
            sys.exit(f"the script did not play as written: {failed[:1]} {len(server.prompts)}")
        # The ideal: each token that was ever needed is read once, and nothing is folded.
        workspace = mca.WorkspaceContext.build(folder)
        session |= {"fold": 0, "history": session["history"][:-1]}
        whole = mca.MiniAgent(None, workspace, None, session).history_text()
        head, used = server.prompts[0].partition(whole[:20])[0], server.generations
        pairs = zip(server.prompts, server.prompts[1:])
        folds = sum(not new.startswith(old[: -len(old) // 3]) for old, new in pairs)
        sent, anew = (sum(getattr(g, n) for g in used) for n in ("prompt_tokens", "processed"))
        return [steps + 1, folds, server.prompt_tokens(head + whole), sent, anew]


def measure_tokens() -> None:
    print(f"""
Prompt tokens of a run, window 32,768. ideal: each token once, nothing folded; sent: all prompts;
read anew: (a) with any common prefix cached, (b) by a hybrid model, which resumes {mca.NUM_BATCH} tokens
before the last prompt's end.

  calls  folds  ideal     sent     (a)          (b)""")
    worst = 0.0
    for steps in (6, 20, 60):
        plain = play(steps, "attention")[-1]
        calls, folds, ideal, sent, hybrid = play(steps, "hybrid")
        a, b = plain / ideal, hybrid / ideal
        print(f"  {calls:5.0f}  {folds:5.0f}  {ideal:6.0f}  {sent:7.0f}  "
              f"{plain:6.0f} {a:.2f}  {hybrid:6.0f} {b:.2f}")  # fmt: skip
        worst = max(worst, b)
    target("read anew at worst, of the ideal (b)", worst, 1.2, " x")


# The harness: what passes between a reply and the next request


class Stopwatch(HTTPServer):
    """The least that passes for Ollama; notes when requests are in and when they are answered."""

    def __init__(self, replies: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.replies, self.url = replies, f"http://127.0.0.1:{self.server_port}"
        self.came: list[float] = []
        self.answered: list[float] = []

    def __enter__(self) -> Stopwatch:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    server: Stopwatch

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here, server = time.perf_counter(), self.server
        answer = b'{"model_info": {"general.architecture": "q", "q.context_length": 262144}}'
        if is_asked := self.path == "/api/generate":
            answer = stream(server.replies(len(server.came)), len(body))
            server.came.append(here)
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if is_asked:
            server.answered.append(time.perf_counter())
        self.wfile.write(answer)


def stream(text: str, size: int) -> bytes:
    """A reply as Ollama streams it, all at once, with the counts of a prompt of that size."""
    counts = {"prompt_eval_count": int(size / 3.6), "eval_count": len(text) // 4 + 1}
    lines: list[Any] = [{"response": text[at : at + 4]} for at in range(0, len(text), 4)]
    lines.append({"response": "", "done": True, "done_reason": "stop"} | counts)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def near(gaps: Sequence[float], number: int) -> float:
    """The median of the eleven steps around this one; a fold among them does not show."""
    low = max(min(number - 6, len(gaps) - 11), 0)
    return statistics.median(gaps[low : low + 11])


def measure_harness(runs: int = 3) -> None:
    text = "".join(f"line {line} of a part, with some words\n" for line in range(50))
    files = {f"part/p{number:03}.txt": text for number in range(STEPS)}
    found: dict[int, list[float]] = {10: [], 100: [], 400: []}
    slowest = []
    for _ in range(runs):
        with project(files) as (folder, env), Stopwatch(reading) as server:
            run_program(folder, env, server.url, "--max-steps", str(STEPS + 1), "read it all")
            if len(server.came) != STEPS + 1:
                sys.exit(f"the run ended after {len(server.came)} calls")
            gaps = [1000 * (b - a) for a, b in zip(server.answered, server.came[1:])]
            slowest.append(max(gaps))
            found = {at: [*times, near(gaps, at)] for at, times in found.items()}
    print(f"\nFrom a reply to the next request, in {STEPS} reads of 2 kB, a save included.")
    print(f"The slowest step, a fold, takes {statistics.median(slowest):.1f} ms.\n")
    for at, most in ((10, 3), (100, 6), (400, 6)):
        target(f"step {at}", statistics.median(found[at]), most, " ms")


def reading(index: int) -> str:
    return f'<tool name="read_file">part/p{index:03}.txt</tool>' if index < STEPS else DONE


# The start


def measure_start(runs: int = 15) -> None:
    files = {f"package{n // 100}/module{n % 100:02}.py": f"number = {n}\n" * 40 for n in range(200)}
    bare, whole = [], []
    with project(files) as (folder, env):
        for _ in range(runs):
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], env=env, cwd=folder)
            bare.append(1000 * (time.perf_counter() - before))
            with Stopwatch(lambda _: DONE) as server:
                before = time.perf_counter()
                run_program(folder, env, server.url, "--approval=ask", "See package0/module00.py.")
                whole.append(1000 * (server.came[0] - before))
            shutil.rmtree(folder / ".mini-coding-agent")
    python, start = statistics.median(bare), statistics.median(whole)
    print(f"\nTo the first request in a repository of 200 files: {start:.1f} ms.\n")
    target("over a bare Python", start - python, 60, " ms")


def main() -> int:
    wanted = sys.argv[1:]
    parts = {"tokens": measure_tokens, "harness": measure_harness, "start": measure_start}
    if not set(wanted) <= set(parts):
        print(__doc__)
        return 2
    print(f"Python {sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} processors")
    for name, measure in parts.items():
        if name in wanted or not wanted:
            measure()
    print(f"\n{sum(VERDICTS)} of {len(VERDICTS)} targets hold")
    return 0 if all(VERDICTS) else 1


if __name__ == "__main__":
    sys.exit(main())
