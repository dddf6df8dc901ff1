"""What the agent costs, apart from the model: `python tests/benchmark.py [tokens|harness|start]`.

Standard library only, no part of the test run. Prints OK or MISS for each target; the exit code is
1 after a miss. MCA_FILE names another file to measure. Times hold for this machine, if it is quiet.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from http_wire import Handler, Server
from ollama_engine import LEAD, TRAIL, common_prefix, go_json, utf8_tokens
from ollama_server import OllamaServer
from program import Processes, clean_env

DONE = "<final>done</final>"
STATE_DIR = ".mini-coding-agent"
VERDICTS: list[bool] = []


def target(what: str, value: float, most: float, unit: str, more: str = "") -> None:
    """Print OK or MISS for a figure."""
    VERDICTS.append(value <= most)
    print(
        f"  {'OK  ' if value <= most else 'MISS'} {what}: {value:.2f}{unit}, target at most {most:.2f}{unit}{more}"
    )


@contextlib.contextmanager
def workspace(files: dict[str, str]) -> Iterator[tuple[Path, Processes]]:
    """A folder with these files, and what starts programs in it."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as home:
        root = Path(name)
        for path, text in files.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text, "utf-8")
        processes = Processes(clean_env(Path(home), Path(home), "benchmark"), root)
        with contextlib.closing(processes):
            yield root, processes


def play(processes: Processes, url: str, steps: int, request: str) -> None:
    """Run one request to its end; every call of the script must have done what it says."""
    flags = ("--host", url, "--approval", "auto", "--max-steps", str(steps + 1))
    done = processes.run(*flags, request, timeout=300)
    (file,) = (processes.cwd / STATE_DIR / "sessions").glob("*.json")
    events = json.loads(file.read_text("utf-8"))["history"]
    bad = [event for event in events if not event.get("ok", event["role"] != "slip")]
    if done.code or bad or len(events) != steps + 2:  # the request and the answer
        sys.exit(f"the script did not play as written: {bad[:1]} {done.err[-2000:]}")


# -- Tokens: what the server reads -----------------------------------------------------------------


def source(number: int) -> str:
    """A module of 90 lines and some 2,900 characters, 800 tokens."""
    return "".join(
        f"def task_{number}_{i}(left, right):\n    return left * {i} + right\n" for i in range(45)
    )


def settings(number: int) -> str:
    """A small file of 16 lines, 100 tokens, in its version of this number."""
    return f"VERSION = {number}\n" + "".join(f"OPTION_{i} = {i * i}  # kept\n" for i in range(15))


def step(number: int) -> str:
    """The reply of a step: three files are read, two listings change a file, a command is run."""
    if number % 6 in (1, 4):
        return f"settings.py\n```python\n{settings(number)}```"
    if number % 6 == 5:
        return f'<tool name="run_shell">seq {number} {number + 100}</tool>'
    return f'<tool name="read_file">module_{number:02}.py</tool>'


def ideal_tokens(prompts: Sequence[str]) -> int:
    """The tokens that no server can do without.

    A prompt is final if the next one is shorter (the transcript was folded) or if there is none.
    The ideal is the number of tokens of all final prompts, template included, each evaluated once:
    of a final prompt, what it shares with an earlier final one from the first byte on is not
    counted again. So the tails of the other prompts are excess, and so is whatever a hybrid
    (recurrent) model evaluates again because its state can't be rolled back: nothing is added
    for either. What the model writes is not counted, on either side.
    """
    total, earlier = 0, list[str]()
    for prompt, after in zip(prompts, [*prompts[1:], ""], strict=True):
        if len(after) < len(prompt):
            known = max((common_prefix(prompt, other) for other in earlier), default=0)
            total += LEAD + utf8_tokens(prompt) + TRAIL
            total -= LEAD + utf8_tokens(prompt[:known]) if known else 0
            earlier.append(prompt)
    return total


def evaluated(cache: str, steps: int) -> tuple[int, int, int, int]:
    """Play a run; return its ideal, what was evaluated, what was sent, and the number of folds."""
    files = {f"module_{i:02}.py": source(i) for i in range(60)} | {"settings.py": settings(-1)}
    with workspace(files) as (_, processes), OllamaServer(cache=cache, chunk=64) as server:
        server.script([*map(step, range(steps)), DONE])
        play(processes, server.url, steps, "do a long job")
        lengths = [len(prompt) for prompt in server.prompts]
        folds = sum(after < before for before, after in zip(lengths, lengths[1:]))
        read = sum(one.processed for one in server.generations)
        sent = sum(one.prompt_tokens for one in server.generations)
        return ideal_tokens([p.strip() for p in server.prompts]), read, sent, folds


def measure_tokens() -> None:
    print("\nTokens evaluated anew, of the ideal: each token of the final prompts once.")
    for steps in (6, 20, 60):
        ideal, read, sent, folds = evaluated("hybrid", steps)
        _, least, _, _ = evaluated("attention", steps)
        more = f"\n         ideal {ideal:,}, evaluated {read:,}, sent {sent:,}, folds {folds};"
        more += f" excess: {least - ideal:,} tails and folds, {read - least:,} roll-back (hybrid)"
        target(f"{steps} steps", read / ideal, 1.2, " x", more)


# -- Harness: from a reply to the next request -----------------------------------------------------


class Stopwatch(Server):
    """The least that passes for Ollama; notes when requests are in and when they are answered."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = replies
        self.shown, self.came, self.answered = list[float](), list[float](), list[float]()
        super().__init__(Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.stop()

    def gaps(self) -> list[float]:
        """Milliseconds from the end of each reply to the next request."""
        return [1000 * (came - done) for done, came in zip(self.answered, self.came[1:])]


class Answer(Handler):
    server: Stopwatch

    def do_POST(self) -> None:
        body, server = self.rfile.read(int(self.headers["Content-Length"])), self.server
        here, is_show = time.perf_counter(), self.path == "/api/show"
        (server.shown if is_show else server.came).append(here)
        if is_show:
            return self._send(200, {"model_info": {}})
        text = server.replies[min(len(server.came), len(server.replies)) - 1]
        text = text.partition("</tool>")[0]  # a stop string
        pieces = [{"response": text[at : at + 4]} for at in range(0, len(text), 4)]
        counts = {"prompt_eval_count": int(len(body) / 3.6), "eval_count": len(pieces)}
        last = {"response": "", "done": True, "done_reason": "stop"} | counts
        data = b"".join(go_json(line) + b"\n" for line in [*pieces, last])
        self._head(200, {"Content-Length": str(len(data))})
        server.answered.append(time.perf_counter())
        self.wfile.write(data)


def measure_harness(steps: int = 410, runs: int = 3) -> None:
    print(f"\nFrom a reply to the next request, one of {steps} reads of different files of 1 kB.")
    files = {f"part_{i:03}.py": source(i)[:1000] + "\n" for i in range(450)}
    replies = [f'<tool name="read_file">{path}</tool>' for path in [*files][:steps]] + [DONE]
    gaps = list[list[float]]()
    for _ in range(runs):
        with workspace(files) as (_, processes), Stopwatch(replies) as server:
            play(processes, server.url, steps, "look at all parts")
            gaps.append(server.gaps())
    for number, most in ((10, 3.0), (400, 6.0)):
        near = [statistics.median(run[number - 6 : number + 5]) for run in gaps]  # 11 steps
        more = f" (best of {runs} runs {min(near):.2f})"
        target(f"around step {number}", statistics.median(near), most, " ms", more)
    mean, slowest = (statistics.median(map(of, gaps)) for of in (statistics.mean, max))
    print(f"       mean of all steps {mean:.2f} ms, slowest {slowest:.2f} ms")


# -- Start: from the process to the first request --------------------------------------------------


def measure_start(runs: int = 15) -> None:
    print("\nFrom the start of the installed command to its first request, less `python -c pass`.")
    files = {f"package{i // 20}/module{i % 20:02}.py": source(i)[:1000] for i in range(200)}
    with workspace(files) as (root, processes):
        who = "-c user.name=Test -c user.email=test@example.org"
        for line in "init -q", "add .", f"{who} commit -q -m First", "update-index --refresh":
            time.sleep(0.4)  # `git status` reads files anew that are as old as the index
            subprocess.run(["git", *line.split()], cwd=root, check=True)
        samples = []
        for _ in range(runs + 1):
            before = time.perf_counter()
            processes.run(argv=[sys.executable, "-c", "pass"])
            bare = time.perf_counter() - before
            with Stopwatch([DONE]) as server:
                before = time.perf_counter()
                processes.run("--host", server.url, "hello")
            times = (bare, server.shown[0] - before, server.came[0] - before)
            samples.append([1000 * seconds for seconds in times])
            shutil.rmtree(root / STATE_DIR)
        columns = list(zip(*samples[1:]))  # the first one may have written the bytecode
        (bare, shown, came), least = map(statistics.median, columns), [*map(min, columns)]
        more = f" (fastest {least[2] - least[0]:.2f}; bare Python {bare:.2f};"
        more += f" the look at the server after {shown - bare:.2f})"
        target("first request", came - bare, 60, " ms", more)


def noise() -> float:
    """How much longer a fixed piece of work takes in the median than at its fastest."""
    times = []
    for _ in range(60):
        before = time.perf_counter()
        sum(range(200_000))
        times.append(time.perf_counter() - before)
    return statistics.median(times) / min(times)


def main() -> int:
    parts = {"tokens": measure_tokens, "harness": measure_harness, "start": measure_start}
    wanted = sys.argv[1:] or [*parts]
    if not set(wanted) <= set(parts):
        print(__doc__)
        return 2
    for name in wanted:
        before = noise()
        parts[name]()
        if name != "tokens" and (worst := max(before, noise())) > 1.15:
            print(f"       the machine was not quiet: a fixed loop took {worst:.2f} of its best")
    print(f"\n{sum(VERDICTS)} of {len(VERDICTS)} targets hold")
    return 0 if all(VERDICTS) else 1


if __name__ == "__main__":
    sys.exit(main())
