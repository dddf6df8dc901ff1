"""What the agent costs, apart from the model: `python tests/benchmark.py [tokens|harness|start]`.

Standard library only, no part of the test run. MCA_FILE names another file to measure. Times are
medians of runs on this machine; compare them with one another and with no other machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Literal

from ollama_server import Generation, OllamaServer
from program import PROGRAM, clean_env

sys.path.insert(0, str(PROGRAM.parent))
import mini_coding_agent as mca

MODEL, NUM_BATCH = "qwen3.5:4b", 256
LABEL, TRANSCRIPT = "\nCurrent user request:\n", "\nTranscript:\n"
DONE = "<final>done</final>"
VERDICTS: list[bool] = []


def target(what: str, value: float, most: float, unit: str = "", best: float | None = None) -> None:
    """Print OK or MISS for a median; `best` is what a quiet machine would give."""
    VERDICTS.append(value <= most)
    verdict = "OK  " if value <= most else "MISS"
    spread = "" if best is None else f" (from the fastest runs {best:.2f})"
    print(f"  {verdict} {what}: {value:.2f}{unit}{spread}, target at most {most:g}{unit}")


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need."""
    cells = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    print(f"\n{title}\n")
    for row in [heads, *cells]:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join([first.strip().ljust(widths[0]), *rest]))
    print()


def call(name: str, /, **args: Any) -> str:
    return f"<tool>{json.dumps({'name': name, 'args': args})}</tool>"


def environment(folder: Path) -> dict[str, str]:
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return clean_env(folder / "home", folder / "tmp", "benchmark")


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, *args], cwd=folder, check=True, stdout=subprocess.DEVNULL)


# Tokens: what a server reads


def source(number: int) -> str:
    """A module of 90 lines, some 3,300 characters."""
    lines = [
        f"def task_{number}_{i}(left, right):\n    return left * {i} + right" for i in range(45)
    ]
    return "\n".join(lines) + "\n"


def make_project(folder: Path) -> Path:
    for number in range(30):
        path = folder / "src" / f"module_{number:02}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source(number))
    (folder / "README.md").write_text("# A project\n\nModules that compute.\n" * 9)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First commit")
    return folder


def step(number: int) -> str:
    """One of six kinds of calls in turn: reads, searches, edits, commands; 1,800 characters."""
    path, turn = f"src/module_{number % 30:02}.py", number // 6
    old = f"    return left * {turn} + right\ndef task_{number % 30}_{turn + 1}("
    new = f"    return left * {turn} - right\ndef task_{number % 30}_{turn + 1}("
    return (
        lambda: call("read_file", path=path, start=1, end=90),
        lambda: call("search", pattern=f"left \\* {turn} \\+ right", path="src"),
        lambda: call("run_shell", command=f"head -c 1500 {path}; echo checked {number}"),
        lambda: call("patch_file", path=path, old_text=old, new_text=new),
        lambda: call("write_file", path=f"src/new_{number}.py", content=source(number)[:1200]),
        lambda: call("run_shell", command=f"seq {number} {number + 200}"),
    )[number % 6]()


def run_program(folder: Path, url: str, steps: int) -> None:
    """Play one request with the program as a user starts it."""
    flags = ["--host", url, "--cwd", str(folder / "project"), "--approval", "auto"]
    command = [sys.executable, str(PROGRAM), *flags, "--max-steps", str(steps), "do a long job"]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the program failed: {done.stderr[-2000:]}")


@dataclass
class Played:
    """The calls of one run and the tokens that an ideal server would have to read."""

    generations: list[Generation]
    ideal: int

    def prompt(self, index: int) -> str:
        return str(self.generations[index].request.body["prompt"])

    def inner(self, index: int) -> bool:
        return "(read-only" in self.prompt(index).rpartition(LABEL)[2]

    def kinds(self) -> list[str]:
        """For each call: first, step, fold, enter (a subagent), inside, leave."""
        kinds = ["first"]
        for index in range(1, len(self.generations)):
            before, here = self.inner(index - 1), self.inner(index)
            known = {(False, True): "enter", (True, True): "inside", (True, False): "leave"}
            body = self.prompt(index - 1).rpartition(LABEL)[0]
            plain = "step" if self.prompt(index).startswith(body) else "fold"
            kinds.append(known.get((before, here), plain))
        return kinds

    def processed(self, *kinds: str) -> int:
        pairs = zip(self.kinds(), self.generations, strict=True)
        return sum(one.processed for kind, one in pairs if kind in kinds or not kinds)

    def excess(self) -> int:
        """The most tokens that a plain step read beyond what was new."""
        tokens = [one.prompt_tokens for one in self.generations]
        return max(
            self.generations[index].processed - max(tokens[index] - tokens[index - 1], 0)
            for index, kind in enumerate(self.kinds())
            if kind == "step"
        )


def play(cache: Literal["attention", "hybrid"], calls: Sequence[str]) -> Played:
    with tempfile.TemporaryDirectory() as name, OllamaServer(cache=cache) as server:
        folder = Path(name)
        (folder / "project").mkdir()
        project = make_project(folder / "project")
        server.script([*calls, DONE])
        run_program(folder, server.url, sum(text != DONE for text in calls))
        (file,) = (project / ".mini-coding-agent" / "sessions").glob("*.json")
        events = json.loads(file.read_text("utf-8"))["history"][:-1]
        failed = [e for e in events if e["role"] == "tool" and e["content"].startswith("error: ")]
        if failed or len(server.prompts) != len(calls) + 1:
            sys.exit(f"the script did not play as written: {failed[:1]} {len(server.prompts)}")
        head, tail = (
            server.prompts[0].partition(TRANSCRIPT)[0],
            server.prompts[-1].rpartition(LABEL)[2],
        )
        whole = mca.defuse(f"{head}{TRANSCRIPT}{mca.history_text(events)}{LABEL}{tail}")
        return Played(server.generations, server.prompt_tokens(whole))


def measure_tokens() -> None:
    rows: list[list[object]] = []
    figures: dict[int, tuple[float, int]] = {}
    for steps in (6, 20, 60):
        calls = [step(number) for number in range(steps)]
        any_prefix, hybrid = play("attention", calls), play("hybrid", calls)
        sent, ideal = sum(one.prompt_tokens for one in hybrid.generations), hybrid.ideal
        a, b = any_prefix.processed(), hybrid.processed()
        excess = hybrid.excess()
        folds = hybrid.kinds().count("fold")
        rows.append([steps, ideal, sent, sent / ideal, a, a / ideal, b, b / ideal, folds, excess])
        figures[steps] = a / ideal, excess
    heads = [
        "steps",
        "ideal",
        "sent",
        "/ideal",
        "(a)",
        "/ideal",
        "(b)",
        "/ideal",
        "folds",
        "excess",
    ]
    table(
        "Prompt tokens of a run, window 16,384. ideal: each token once, nothing folded; sent: all"
        "\nprompts; what a server reads anew with (a) any common prefix cached, (b) a hybrid model"
        "\nthat resumes num_batch before the last prompt's end; excess: the most that a plain step"
        "\nreads in (b) beyond its own new tokens.",
        heads, rows,
    )  # fmt: skip
    target("(a) at 20 steps, of the ideal", figures[20][0], 1.15)
    worst = max(excess for _, excess in figures.values())
    target("(b) beyond the new tokens of a step", worst, NUM_BATCH + 60, " tokens")
    measure_subagent()


def measure_subagent() -> None:
    inside = [step(number) for number in (12, 13, 18, 19)] + ["<final>found it</final>"]
    delegate = call("delegate", task="find out what task_5_5 returns", max_steps=4)
    calls = [*(step(number) for number in range(8)), delegate, *inside, step(8)]
    rows = []
    for name, cache in (("(a)", "attention"), ("(b)", "hybrid")):
        played = play(cache, calls)  # type: ignore[arg-type]
        parts = [played.processed(kind) for kind in ("enter", "inside", "leave")]
        rows.append([name, played.generations[8].prompt_tokens, *parts, sum(parts)])
    heads = ["engine", "parent's prompt", "enter", "inside", "leave", "together"]
    table(
        "Tokens read anew for a subagent of four steps, after eight steps of its parent.",
        heads,
        rows,
    )


# The harness: what passes between a reply and the next request


class Stopwatch(HTTPServer):
    """The least that passes for Ollama; notes when requests are in and when they are answered."""

    def __init__(self, replies: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.replies, self.url = replies, f"http://127.0.0.1:{self.server_port}"
        self.came: list[float] = []
        self.answered: list[float] = []

    def gaps(self) -> list[float]:
        """Milliseconds from each reply to the next request."""
        pairs = zip(self.answered, self.came[1:], strict=False)
        return [1000 * (after - before) for before, after in pairs]

    def __enter__(self) -> Stopwatch:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    server: Stopwatch
    known = {
        "/api/show": {
            "model_info": {"general.architecture": "q", "q.context_length": 262144},
            "capabilities": ["completion"],
        },
        "/api/ps": {"models": [{"name": MODEL, "model": MODEL, "context_length": 16384}]},
        "/api/tags": {"models": [{"name": MODEL, "details": {"context_length": 262144}}]},
    }

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here, server = time.perf_counter(), self.server
        answer = json.dumps(self.known.get(self.path, {})).encode()
        if self.path == "/api/generate":
            answer = stream(server.replies(len(server.came)), len(body))
            server.came.append(here)
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.path == "/api/generate":
            server.answered.append(time.perf_counter())
        self.wfile.write(answer)


def stream(text: str, size: int) -> bytes:
    """A reply as Ollama streams it, all at once, with the counts of a prompt of that size."""
    counts = {"prompt_eval_count": int(size / 3.6), "eval_count": len(text) // 4 + 1}
    final = {"response": "", "done": True, "done_reason": "stop", **counts}
    lines = [{"response": text[at : at + 4], "done": False} for at in range(0, len(text), 4)]
    return b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, final])


class ScriptedClient:
    """A model client that notes when it was called and when it answered."""

    def __init__(self, replies: Callable[[int], str]) -> None:
        self.replies = replies
        self.came: list[float] = []
        self.answered: list[float] = []

    def complete(self, prompt: str, max_new_tokens: int) -> mca.Completion:
        self.came.append(time.perf_counter())
        text = self.replies(len(self.came) - 1)
        counted = int(len(prompt.encode("utf-8", "surrogatepass")) / 3.6)
        self.answered.append(time.perf_counter())
        return mca.Completion(text, prompt_tokens=counted, output_tokens=len(text) // 4)

    gaps = Stopwatch.gaps


STEPS = 400
AT = (10, 100, 400)


def near(gaps: Sequence[float], number: int) -> float:
    """The median of the eleven steps around this one; a fold among them does not show."""
    low = max(min(number - 6, len(gaps) - 11), 0)
    return statistics.median(gaps[low : low + 11])


def reading(index: int) -> str:
    return call("read_file", path=f"part/p{index:03}.txt") if index < STEPS else DONE


def reading_project(folder: Path) -> Path:
    (folder / "project" / "part").mkdir(parents=True)
    for number in range(STEPS):
        text = "".join(f"line {line} of part {number}, with some words\n" for line in range(45))
        (folder / "project" / "part" / f"p{number:03}.txt").write_text(text)
    return folder / "project"


def new_agent(client: Any, project: Path, store: Any) -> mca.MiniAgent:
    return mca.MiniAgent(
        model_client=client, workspace=mca.WorkspaceContext.build(project), session_store=store,
        approval_policy="auto", max_steps=STEPS,
    )  # fmt: skip


def over_http() -> tuple[list[float], float]:
    """The gaps of a run of 400 steps by the whole program, and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as name, Stopwatch(reading) as server:
        folder = Path(name)
        flags = ["--host", server.url, "--cwd", str(reading_project(folder))]
        flags += ["--max-steps", str(STEPS), "--approval", "auto", "read all parts"]
        memory = peak_memory([sys.executable, str(PROGRAM), *flags], environment(folder))
        if len(server.came) != STEPS + 1:
            sys.exit(f"the run ended after {len(server.came)} calls")
        return server.gaps(), memory


# A child's peak counts what its parent had at the fork, so a small process must start it.
LAUNCHER = """
import os, resource, sys
devnull = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=devnull)
os.waitpid(pid, 0)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_memory(command: Sequence[str], env: dict[str, str]) -> float:
    """Run a command and return its peak resident memory in MB; 0 where the system does not tell."""
    if not hasattr(os, "posix_spawn"):
        subprocess.run(command, env=env, capture_output=True)
        return 0.0
    launcher = [sys.executable, "-IS", "-c", LAUNCHER, *command]
    printed = subprocess.run(launcher, env=env, capture_output=True, check=True).stdout
    return int(printed) / (1e6 if sys.platform == "darwin" else 1e3)


def in_process() -> list[float]:
    """The gaps of the same run by the loop alone."""
    with tempfile.TemporaryDirectory() as name:
        project = reading_project(Path(name))
        client = ScriptedClient(reading)
        store = mca.SessionStore(project / mca.STATE_DIR / "sessions")
        new_agent(client, project, store).ask("read")
        return client.gaps()  # type: ignore[arg-type]


def tool_time() -> float:
    """The median milliseconds of one such read, outside of any run."""
    with tempfile.TemporaryDirectory() as name:
        project = reading_project(Path(name))
        agent = new_agent(None, project, None)
        times = []
        for number in range(200):
            before = time.perf_counter()
            agent.run_tool("read_file", {"path": f"part/p{number:03}.txt"})
            times.append(1000 * (time.perf_counter() - before))
        return statistics.median(times)


def measure_harness(runs: int = 5) -> None:
    read = tool_time()
    loop = [in_process() for _ in range(runs)]
    whole, memory = zip(*(over_http() for _ in range(runs)), strict=True)
    rows, figures = [], {}
    for name, gaps in (("the loop alone, in process", loop), ("the program, over HTTP", whole)):
        steps = [[near(run, at) - read for run in gaps] for at in AT]
        slowest = statistics.median(max(run) for run in gaps)
        mean = statistics.median(map(sum, gaps)) / STEPS - read
        rows.append([name, *map(statistics.median, steps), slowest, mean])
        figures[name] = steps
    heads = ["milliseconds", *(f"step {at}" for at in AT), "slowest", "mean"]
    table(
        "Time from the end of a reply to the next request, in a run of 400 reads of 2 kB each,"
        f"\nsaving included, less the {read:.2f} ms of the read itself. Over HTTP it is seen at the"
        "\nserver: it holds connecting, sending and decoding too, and is what a user waits for.",
        heads, rows,
    )  # fmt: skip
    first, _, last = figures["the program, over HTTP"]
    target("step 10 over HTTP", statistics.median(first), 3, " ms", min(first))
    target("step 400 over HTTP", statistics.median(last), 6, " ms", min(last))
    with tempfile.TemporaryDirectory() as name:
        bare = peak_memory([sys.executable, "-c", "pass"], environment(Path(name)))
    print(f"\n  peak memory: {statistics.median(memory):.1f} MB, of a bare Python {bare:.1f} MB")


# The start


def spent(command: Sequence[str], env: dict[str, str], cwd: Path) -> float:
    """Milliseconds from the start of a command to its end."""
    before = time.perf_counter()
    subprocess.run(command, env=env, cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - before)


SCRIPT = [sys.executable, str(PROGRAM)]
ENTRY = "import sys; sys.path.insert(0, {!r}); import mini_coding_agent as m; sys.exit(m.main())"
INSTALLED = [sys.executable, "-c", ENTRY.format(str(PROGRAM.parent))]  # its bytecode is cached


def started(command: Sequence[str], folder: Path, env: dict[str, str]) -> float:
    """Milliseconds from a start in this folder to the first prompt at the server."""
    with Stopwatch(lambda _: DONE) as server:
        before = time.perf_counter()
        spent([*command, "--host", server.url, "--cwd", str(folder), "hello"], env, folder)
        shutil.rmtree(folder / mca.STATE_DIR)
        return 1000 * (server.came[0] - before)


LOGGER = """#!{python}
import json, os, sys
with open({log!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]) + "\\n")
os.execv({git!r}, ["git", *sys.argv[1:]])
"""


def git_commands(folder: Path, scratch: Path, env: dict[str, str]) -> list[Any]:
    """The git commands that a start in this folder runs: arguments, environment, folder."""
    found = shutil.which("git")
    log, wrapper = scratch / "git.log", scratch / "bin" / "git"
    wrapper.parent.mkdir(exist_ok=True)
    log.write_text("")
    wrapper.write_text(LOGGER.format(python=sys.executable, log=str(log), git=found))
    wrapper.chmod(0o755)
    started(INSTALLED, folder, env | {"PATH": f"{wrapper.parent}{os.pathsep}{env['PATH']}"})
    return [json.loads(line) for line in log.read_text().splitlines()]


def folders(scratch: Path) -> Iterator[tuple[str, Path]]:
    """An empty folder, and repositories of 200 and of 30,000 files."""
    for name, count in (("empty folder", 0), ("200 files", 200), ("30,000 files", 30_000)):
        folder = scratch / f"files{count}"
        folder.mkdir()
        for number in range(count):
            path = folder / f"package{number // 100:03}" / f"module{number % 100:02}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"number = {number}\n")
        if count:
            git(folder, "init", "-q")
            git(folder, "add", ".")
            git(folder, "commit", "-q", "-m", "First commit")
            time.sleep(1.1)  # files as old as the index would be read again by every `git status`
            git(folder, "update-index", "--refresh")
            if hasattr(os, "sync"):
                os.sync()
        yield name, folder


def measure_start(runs: int = 15) -> None:
    rows: list[list[Any]] = []
    best: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        env, bare = environment(scratch), [sys.executable, "-c", "pass"]
        for label, folder in folders(scratch):
            commands = git_commands(folder, scratch, env)
            samples = []
            for _ in range(runs):
                python = spent(bare, env, folder)
                script, installed = (started(how, folder, env) for how in (SCRIPT, INSTALLED))
                gits = sum(
                    spent([str(shutil.which("git")), *argv], vars_, Path(cwd))
                    for argv, vars_, cwd in commands
                )
                rest = python + gits
                samples.append([python, gits, script, installed, script - rest, installed - rest])
            medians = [statistics.median(column) for column in zip(*samples, strict=True)]
            rows.append([label, len(commands), *medians])
            python, gits, *starts = (min(column) for column in zip(*samples, strict=True))
            best[label] = [start - python - gits for start in starts[:2]]
        help_rows(env, scratch, runs)
    heads = ["milliseconds", "gits", "bare python", "git", "script", "installed"]
    table(
        "From the start to the first prompt at the server, as a script (compiled at each start) and"
        "\nas an installed command (bytecode cached); own: less `python -c pass` and the time that"
        "\nthe same git commands take when run by themselves.",
        [*heads, "own, script", "own, installed"], rows,
    )  # fmt: skip
    for label, *_, script, installed in rows[1:]:
        for how, value, least in zip(
            ("the script", "the installed command"), (script, installed), best[label], strict=True
        ):
            target(f"own time of {how} in {label}", value, 80, " ms", least)


NETWORK = ("urllib.request", "http.client", "ssl", "socket", "email.parser", "urllib.error")


def help_rows(env: dict[str, str], cwd: Path, runs: int) -> None:
    """Print what `--help` costs, and which of the network's modules it imports."""
    commands = (["-c", "pass"], [str(PROGRAM), "--help"])
    times = [[spent([sys.executable, *args], env, cwd) for args in commands] for _ in range(runs)]
    python, shown = (statistics.median(column) for column in zip(*times, strict=True))
    command = [sys.executable, "-X", "importtime", str(PROGRAM), "--help"]
    log = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True).stderr
    costs = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)", log)
    network = [module for _, _, _, module in costs if module in NETWORK]
    slow = sorted(((int(own), module) for own, _, _, module in costs), reverse=True)[:6]
    listed = ", ".join(f"{module} {own / 1000:.1f}" for own, module in slow)
    print(f"\n--help takes {shown - python:.1f} ms over a bare Python ({python:.1f} ms).")
    print(f"  dearest imports in ms: {listed}")
    target("network modules that --help imports", len(network), 0)


def noise() -> float:
    """How much longer a fixed piece of work takes in the median than at its fastest."""
    times = []
    for _ in range(60):
        before = time.perf_counter()
        sum(range(200_000))
        times.append(time.perf_counter() - before)
    return statistics.median(times) / min(times)


def main() -> int:
    wanted = sys.argv[1:]
    parts = {"tokens": measure_tokens, "harness": measure_harness, "start": measure_start}
    if not set(wanted) <= set(parts):
        print(__doc__)
        return 2
    print(f"Python {sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} processors")
    for name, measure in parts.items():
        if name in wanted or not wanted:
            before = noise()
            measure()
            worst = max(before, noise())
            if name != "tokens":
                quiet = "quiet" if worst < 1.15 else "NOT quiet: do not trust the times"
                print(f"\n  the machine was {quiet} (a fixed loop took {worst:.2f} of its best)")
    print(f"\n{sum(VERDICTS)} of {len(VERDICTS)} targets hold")
    return 0 if all(VERDICTS) else 1


if __name__ == "__main__":
    sys.exit(main())
