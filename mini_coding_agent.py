#!/usr/bin/env python3
"""Mini-Coding-Agent: a coding agent in one file, for small models on your own machine.

A language model can only write text. A coding agent is the loop that lets this text act:

    record the files that the request names, and the request
    while steps are left:
        reply = model(prefix + transcript + tail)       (chapter 2)
        if it can't be read:    say why, in the tail of the next prompt
        if it holds calls:      check each, ask the human if it is risky, run it, record the result
        if it is an answer:     run the tests; return it, or doubt it if the record contradicts it

The loop stands first; six chapters say how it holds up when the model is small, the window is full
or the human says no; then come the server and the terminal. A `ToolError` is for the model, a
`RuntimeError` for the human. Transcript and memory are made of events, see `Event`, alone.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import difflib
import functools
import inspect
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import ProxyHandler, Request, build_opener, getproxies, proxy_bypass

__version__ = "0.2.0"
Event = dict[str, Any]  # role, content, created_at; a call's also name, args, ok, what it did


class ToolError(ValueError):
    """A mistake that the model can mend: the text says what is wrong and what to do instead."""


# -- The loop --------------------------------------------------------------------------------------
# A small model answers far too early, and is always sure of success. So the program runs the tests
# itself, because an exit code can't be talked into anything; an answer that the record contradicts
# is doubted; and whatever the model says, the human's summary is made from the record. A reply that
# can't be read, or repeats what was done, is a slip; three in a row end the request.

MAX_SLIPS, PIPED = 3, "\n\nStandard input:\n"
FORMS = "Use one of the forms above: a path with a code block below it, or a <tool> call."
NEXT = "If the request is fulfilled now, answer in the form <final>your answer to the user, in "
NEXT += "your own words</final>. If not, do what is missing, in one of the forms above."
AGAIN = "The last call failed or was refused. Correct it, in one of the forms above."
NOTHING = "Nothing was changed yet. Write the changed file now: its path, and below it its "
NOTHING += "complete new text in a code block."
CUT = "Your last reply was too long and was cut off. No explanations now, and one file at a time."
# In a question an order begins a sentence, or follows "and" or "can you"; no clause is an order.
CLAUSE = r"(?i)\b(how|what|which|that|where|why|when|if|whether|who)\b[^.!?,:;\n]*"
VERBS = "fix|add|create|write|rename|change|replace|remove|delete|update|move|turn|set|make"
VERBS += "|implement|refactor|rewrite|convert|extract|improve|simplify|correct|insert|combine"
ORDER = r"(?i)(^|[.!?,:;\n]\s*|\b(and|then|please|(can|could|would) (you( \w+)?|we)) +)({})\b"
QUESTION = r"(?i)^\W*(please )?(what|where|why|how|explain|describe|tell|run|list|show me)\b|\?\s*$"


@dataclass
class MiniAgent:
    """The agent: a model, a workspace, and a session that grows turn by turn."""

    model_client: Any
    workspace: WorkspaceContext
    session_store: SessionStore | None
    session: dict[str, Any] = field(default_factory=dict)
    approval_policy: str = "ask"
    max_steps: int = 6
    max_new_tokens: int = 512
    depth: int = 0
    max_depth: int = 1
    read_only: bool = False
    plan: bool = False  # as read_only, but the human can switch it
    ask_human: Callable[[str, str], str] | None = None  # (what, preview) -> the answer
    tell: Callable[[str, Any], None] = lambda kind, what: None  # for the terminal
    may_check: bool = True  # until the human declines a check

    def __post_init__(self) -> None:
        self.root = Path(self.workspace.cwd)
        self.session = self.session or new_session(self.root)
        self.prefix = build_prefix(self.workspace)
        self.bytes_per_token = 3.0  # until the first reply tells
        self.turn = Turn(self)
        self.always: set[str] = set()  # what the human allowed until the program ends
        self.undo: list[Turn] = []

    def ask(self, user_message: str) -> str:
        """Work on one request; return the answer, or why there is none. Raise RuntimeError."""
        self.turn = Turn(self, user_message)
        self.undo.append(self.turn)
        if re.search(r"(?i)\bfail", self.turn.asked) and self.turn.wants_change():
            self.turn.run_check()  # how it fails is worth more to the model than the files
        attach_files(self)
        self.record({"role": "user", "content": user_message})
        self.turn.work()
        self.record({"role": "assistant", "content": self.turn.answer})
        return self.turn.answer

    def run_tool(self, name: str, args: dict[str, Any]) -> str:
        """Run one call as if the model had written it; return the result's text."""
        return str(self.record(run_call(self, Call(name, args)))["content"])

    def prompt(self, user_message: str) -> str:
        """Return the prompt for a request that is not recorded yet."""
        return f"{self.prefix}{self.history_text()}\n{REQUEST} {user_message}\n"

    def history_text(self) -> str:
        """Return the transcript as the model reads it: what was folded, then each event."""
        history, fold = self.session["history"], self.session.get("fold", 0)
        return folded_text(history[:fold]) + "".join(map(event_text, history[fold:]))

    def record(self, item: Event) -> Event:
        """Add an event to the history and save the session."""
        self.session["history"].append({"created_at": time.strftime("%Y-%m-%dT%H:%M:%S")} | item)
        if self.session_store:
            self.session_store.save(self.session)
        return item

    def may_act(self) -> bool:
        """Tell whether a risky call can be allowed at all."""
        can_say_yes = {"auto": True, "ask": self.ask_human is not None}.get(self.approval_policy)
        return bool(can_say_yes) and not (self.read_only or self.plan)

    def path(self, raw: str) -> Path:
        """Return the real path of one that the model wrote; raise ToolError if it leaves."""
        if re.search(r"[\x00-\x1f\x7f]|^~|^\$|^[A-Za-z]:[\\/]", raw):
            raise ToolError(f"{raw!r} is no path relative to the project, in plain characters")
        real = Path(os.path.realpath(self.root / raw.replace("\\", "/")))
        if (real != self.root and self.root not in real.parents) or real.is_symlink():  # a loop
            raise ToolError(f"path escapes workspace: {raw}")
        if PROTECTED & {part.casefold().rstrip(". ") for part in real.relative_to(self.root).parts}:
            raise ToolError(f"{raw} belongs to git or to this program; it is not for the tools")
        return real

    def reset(self) -> None:
        """Begin a new session in the same workspace; the old one stays on the disk."""
        self.session, self.undo, self.may_check = new_session(self.root), [], True
        self.turn = Turn(self)


class Turn:
    """One request at work: the loop, and what it counts. All else stands in the events."""

    def __init__(self, agent: MiniAgent, request: str = "") -> None:
        self.agent, self.request, self.started = agent, request, time.monotonic()
        self.asked = request.partition(PIPED)[0]  # by the human; what is piped in may be anything
        self.first = len(agent.session["history"])  # the index of its first event
        self.steps = self.slips = 0  # slips: those in a row
        self.patience = MAX_SLIPS if agent.may_act() or not self.wants_change() else 1
        self.notice, self.was_cut = "", False  # for the next prompt's tail; by the token limit
        self.changes: Changes = {}  # what its writes did, for the summary and for undo
        self.warned: set[str] = set()  # files whose loss was warned of, see `guard`
        self.answer, self.outcome = "", "finished"  # or contradicted, limit, error, interrupted
        self.tokens = (0, 0)  # read and written

    def work(self) -> None:
        """Ask the model, and do what it says, until its answer is believed or a limit is met."""
        while self.slips < self.patience:
            raw = self.query()
            try:
                reply = parse(raw, self.was_cut, View(self.agent))
            except ToolError as problem:  # the reply is not recorded, so not shown to the model
                self.slip(CUT if self.was_cut else f"That did nothing: {problem}. {FORMS}")
                continue
            if isinstance(reply, list) and self.steps >= self.agent.max_steps:
                break  # only an answer may follow the last step
            if isinstance(reply, list):
                self.run_calls(reply)
            elif self.believes(reply):
                return
        why = "the model gets nowhere" if self.slips == self.patience else "--max-steps is reached"
        self.outcome, self.answer = "limit", f"Stopped: {why}. Try a larger model, or other words."

    def query(self) -> str:
        """Send the prompt, folded if it is too long; return the model's reply."""
        agent, session = self.agent, self.agent.session
        # A file is written whole, so there is room for the largest one shown; more after a cut.
        shown = session["history"][session.get("fold", 0) :][-40:]
        files = [event_text(event) for event in shown if "file" in event]
        room = agent.max_new_tokens + count_tokens(agent, max(files, key=len, default=""))
        room *= 2 if self.was_cut else 1
        prompt = fit_prompt(agent, room)
        try:
            reply = agent.model_client.complete(prompt, room, stop=STOPS)
        except ModelError as fault:
            if "longer than the server's window" not in str(fault) or agent.bytes_per_token == 1:
                raise
            agent.bytes_per_token = 1.0  # a token has fewer bytes than we thought, so fold
            return self.query()
        self.was_cut, self.notice = getattr(reply, "cut", False), ""
        read, written = getattr(reply, "tokens", (0, 0))
        self.tokens = self.tokens[0] + read, self.tokens[1] + written
        if read > 100:  # 5 % on the safe side
            agent.bytes_per_token = len(prompt.encode("utf-8", "replace")) / read * 0.95
        return str(reply)

    def run_calls(self, calls: Sequence[Call]) -> None:
        """Run the calls of a reply in their order, up to the first that fails."""
        if all(self.is_repeated(call) for call in calls):
            self.slip(f"You did this already; its result stands above. {self.doubt() or NEXT}")
        else:
            for call in calls:
                if not self.agent.record(run_call(self.agent, call))["ok"]:
                    break
            self.steps, self.slips = self.steps + 1, 0

    def slip(self, notice: str) -> None:
        """Count a reply that led nowhere: the next one is asked for with a notice."""
        self.slips, self.notice = self.slips + 1, notice
        self.agent.tell("to the model", notice)

    def believes(self, answer: str) -> bool:
        """Tell whether an answer may stand; the third in a row does, even if contradicted."""
        self.answer = answer
        if self.changed() and not self.has_failed() and not self.run_check():
            self.steps += 1  # or it might go on without an end
            return False
        doubt = self.doubt()
        if doubt and self.slips < self.patience - 1:
            self.slip(doubt)
            return False
        self.outcome = "contradicted" if doubt else "finished"
        return True

    def run_check(self) -> bool:
        """Run the command that judges the work, if it may; False only if it ran and failed."""
        agent = self.agent
        command = check_command(agent) if agent.may_act() and agent.may_check else ""
        passed = [call["args"].get("command") for call in self.since_effect() if call["ok"]]
        if not command or command in passed:
            return True
        event = run_call(agent, Call("run_shell", {"command": command}), check=True)
        if event["content"].startswith(f"error: {DENIED}"):
            agent.may_check = False
            return True  # the human does without it, and the model need not know
        return bool(agent.record(event)["ok"])

    def doubt(self) -> str:
        """Return why the record contradicts any answer, as the model is told; "" if it doesn't."""
        wants_change = self.wants_change()
        if self.has_failed() and (self.changed() or wants_change is not False):
            return AGAIN
        if self.is_unchanged() and wants_change:
            return NOTHING
        asks_run = re.search(ORDER.format("run|execute"), self.asked)
        if asks_run and not any(event["name"] == "run_shell" for event in self.results()):
            return 'Nothing was run yet. Run it: <tool name="run_shell">the command</tool>'
        is_idle = not (self.results() or View(self.agent).seen or self.slips)
        return f"You have not looked at anything yet. {FORMS}" if is_idle else ""

    def wants_change(self) -> bool | None:
        """Tell whether the request orders a change (words are not enough) or not; None: unsure."""
        rest = re.sub(CLAUSE, "", NAMED_COMMAND.sub("", self.asked))
        is_question = self.agent.approval_policy == "never" or re.search(QUESTION, self.asked)
        is_order = re.search(ORDER.format(VERBS), rest)
        if self.agent.read_only or self.agent.plan or (is_question and not is_order):
            return False
        return bool(re.search(rf"(?i)\b({VERBS}|should|must|needs|has to|fails?)\b", rest)) or None

    def results(self) -> list[Event]:
        """Return the turn's calls with their results: the model's, and checks."""
        return [e for e in self.agent.session["history"][self.first :] if e["role"] == "tool"]

    def has_failed(self) -> bool:
        """Tell whether the last call failed."""
        return [call["ok"] for call in self.results()[-1:]] == [False]

    def changed(self) -> list[str]:
        """Return the files that this turn changed, and not back again."""
        return [name for name, (old, new) in self.changes.items() if old != new]

    def is_unchanged(self) -> bool:
        """Tell whether neither a tool changed a file nor a command that does such things ran."""
        commands = " ".join(c["args"]["command"] for c in self.results() if "exit_code" in c)
        changes = r"\b(rm|mv|cp|mkdir|chmod|touch|install|commit|checkout|branch)\b|sed -i|> ?\w"
        return not (self.changed() or re.search(changes, commands))

    def since_effect(self) -> list[Event]:
        """Return the turn's calls from the last change, or the last command that ran, on."""
        calls = self.results()
        changes = [i for i, call in enumerate(calls) if "changed" in call or "exit_code" in call]
        return calls[changes[-1] if changes else 0 :]

    def is_repeated(self, call: Call) -> bool:
        """Tell whether this call was made since the last change, and not refused by a guard."""
        same = [e for e in self.since_effect() if (e["name"], e["args"]) == (call.name, call.args)]
        return any(not event["content"].startswith(f"error: {GUARDED}") for event in same)


# -- 1. Live repo context --------------------------------------------------------------------------
# The snapshot is taken once: a fresh one in every prompt would cost a full re-read (chapter 2). The
# folder may be hostile, and plain `git status` runs what core.fsmonitor, a hook or a filter names:
# so the user's and the system's configuration are off, the repository's is overridden, and where
# it has filters, which can't be, status is left out.

STATE_DIR = ".mini-coding-agent"
PROTECTED = {".git", STATE_DIR}
CLUTTER = {"node_modules", "__pycache__", ".venv", "venv", ".tox", ".mypy_cache", ".pytest_cache"}
SHOWN_FILES = 60  # in the prompt
DOCUMENTS = {"AGENTS.md": 2000, "README.md": 400}  # how many characters of each are shown
GIT_OPTIONS = f"""--no-optional-locks --no-pager -c core.fsmonitor=false -c core.pager=cat
    -c core.hooksPath={os.devnull} -c log.showSignature=false"""
GIT_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}


def find_repository(root: Path) -> Path | None:
    """Return the folder around the workspace with a `.git`, None if that is a link or a file."""
    folder = next((p for p in (root, *root.parents) if os.path.lexists(p / ".git")), root)
    git_dir = folder / ".git"
    return folder if git_dir.is_dir() and not git_dir.is_symlink() else None


def git(root: Path, *args: str) -> str:
    """Return what a git command prints; "" if it fails, takes 5 seconds or there is no git."""
    repo = find_repository(root)
    if not repo:
        return ""
    place = [f"--git-dir={repo}/.git", f"--work-tree={repo}"]  # or core.worktree moves it
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            ["git", *GIT_OPTIONS.split(), *place, *args], cwd=root, check=True,
            env=os.environ | GIT_ENVIRONMENT | {"GIT_ALLOW_PROTOCOL": "none"},  # it may fetch
            stdin=subprocess.DEVNULL, capture_output=True, timeout=5,
        ).stdout.decode("utf-8", "replace")  # fmt: skip
    return ""


def list_workspace(root: Path) -> list[str]:
    """Return the paths of the workspace's files, sorted, without clutter and what git ignores."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = listed.split("\0")
    for folder, folders, names in os.walk(root) if not listed else []:
        folders[:] = sorted(set(folders) - CLUTTER - PROTECTED)
        paths += [Path(folder, name).relative_to(root).as_posix() for name in names]
    kept = {path for path in paths if (CLUTTER | PROTECTED).isdisjoint(path.split("/"))}
    return sorted(path for path in kept if os.path.isfile(root / path))


@dataclass
class WorkspaceContext:
    """What is known of the folder when the session starts. `cwd` is the border of the tools."""

    cwd: str
    repo_root: str
    branch: str = "-"
    default_branch: str = "-"
    status: str = "no git repository"
    recent_commits: list[str] = field(default_factory=list)
    project_docs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, cwd: str | Path) -> WorkspaceContext:
        """Take the snapshot: six git processes at most, bounded time and text."""
        root = Path(cwd).resolve()
        repo = find_repository(root)
        made = cls(str(root), str(repo or root), files=list_workspace(root))
        for name, most in DOCUMENTS.items():
            with contextlib.suppress(ToolError):
                made.project_docs[name] = clip(read_text(root / name).strip(), most)
        if repo:
            head = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
            made.default_branch = head.strip().removeprefix("origin/") or "-"
            made.branch = git(root, "symbolic-ref", "--short", "HEAD").strip() or "-"
            made.recent_commits = visible(git(root, "log", "-5", "--format=%s"), "\n").splitlines()
            names = git(root, "config", "--list", "--name-only", "--includes")
            safe = names and not re.search(r"(?im)^(filter|lfs)\.", names)  # or it runs a program
            text = git(root, "status", "--short", "--ignore-submodules=all") if safe else "left out"
            made.status = clip(visible(text.rstrip(), "\n"), 800) or "clean"
        return made

    def text(self) -> str:
        """Return the snapshot as it stands in the prompt, counted, as small models can't count."""
        shown = sorted(sorted(self.files, key=lambda path: path.count("/"))[:SHOWN_FILES])
        kinds = Counter(Path(path).suffix or "other" for path in self.files)
        counts = ", ".join(f"{count} {kind} files" for kind, count in kinds.most_common(6))
        lines = [f"The project has {counts or 'no files yet'}:", *map(visible, shown)]
        if more := len(self.files) - len(shown):
            lines.append(f"... and {more} more; list_files shows those of a folder, and")
            lines.append('<tool name="delegate">a question about many files</tool> asks a helper.')
        lines.append(f"\nGit branch: {self.branch} (default: {self.default_branch})")
        lines += [f"Git status: {self.status}", "Commits:", *self.recent_commits]
        for name, text in self.project_docs.items():
            lines.append(f"\nFrom {name}:\n{textwrap.indent(text, '  ')}")
        return "\n".join(lines)


# -- 2. Prompt shape and cache reuse ---------------------------------------------------------------
# On a laptop most of the waiting is the model reading. The server keeps the key/value cache of the
# last prompt, and what the next one shares with it from the first byte on costs nothing. So:
#     PREFIX      rules and forms, the snapshot      never changes; subagents share it
#     TRANSCRIPT  every event, rendered once         only grows
#     TAIL        what is next, or what went wrong   alone is replaced, so it is short
# INVARIANT: between two folds, resets or undos, a prompt without its tail starts with the one
# before without its tail, byte for byte. So no clock and no counter stands in the prefix.
# The forms decide more than anything else in this file. Code models write prose, a path, and below
# it the whole file in a code block, whatever they are told; so this is the form of writing. <final>
# is not among them, or a small model would write it first: the tail offers it after a step.

PLACEHOLDER = "the whole text of the file, every line of it"
RULES = """\
Act as an expert software developer. You work on the user's project: you look at it, change it and \
run it in the forms below, until the request is fulfilled.

To change or create a file, write its path on a line of its own and below it, in a code block, the \
complete new text of the file:

{file}
```
{placeholder}
```

Several files can follow each other. Never leave lines out, never write "..." for the rest.

To look or to run something, write one of these and wait for the result:
{tools}

"""
SMALL_WORKSPACE, ATTACHED_FILE = 6_000, 16_000  # bytes
REQUEST, STEP, RESULT, ANSWER = "The request:", "Your step:", "Its result:", "Your answer:"
# The server ends a reply at these: what follows a call would be an invented result.
STOPS = ["</tool>", "</final>", f"\n{RESULT}", f"\n{STEP}", f"\n{REQUEST}"]
# What a server reads as a control token, such as `<|im_end|>` in a file, or what poses as a label
# of ours, is broken by a zero-width space. BROKEN takes it, and a first label, out of a reply.
TOKENS = r"\|[a-z_]+\|?>|｜|/?think>|/?tool_call>|/?INST\]|(?:start|end)_of_turn>|/?s>"
LABELS, BREAK = f"{REQUEST}|{STEP}|{RESULT}|{ANSWER}", "\u200b"
CONTROL = re.compile(rf"(?m)(?<=[<\[])(?={TOKENS})|^(?={LABELS})")
BROKEN = re.compile(rf"{BREAK}(?={TOKENS}|{LABELS})|\A\s*(?:{LABELS})")


@functools.lru_cache(maxsize=2_000)  # or each prompt would search the whole transcript again
def defused(text: str) -> str:
    """Return a text in which nothing passes for a control token or for a label of ours."""
    return CONTROL.sub(BREAK, text)


def build_prefix(workspace: WorkspaceContext) -> str:
    """Return the part of the prompt that never changes."""
    likely = [path for path in workspace.files if path.endswith((".py", ".js", ".ts", ".json"))]
    file = (likely or workspace.files or ["README.md"])[0]
    forms = [tool.form.replace("{file}", file) for tool in TOOLS.values() if tool.form]
    rules = RULES.format(file=file, placeholder=PLACEHOLDER, tools="\n".join(forms))
    return defused(rules + workspace.text()) + "\n"


def as_listing(path: str, text: str) -> str:
    """Return a file as the model reads and writes it: its path, its text in a code block."""
    fence = max(re.findall(r"(?m)^[ \t]*(`{3,})", text), key=len, default="``") + "`"
    newline = "" if text.endswith("\n") or not text else "\n"
    return f"{path}\n{fence}\n{text}{newline}{fence}"


def event_text(event: Event) -> str:
    """Return an event as the model reads it, the same way for ever."""
    role, content = event["role"], defused(event["content"])
    if role == "tool":
        call = defused(render(Call(event["name"], event["args"])))
        return f"\n{STEP}\n{call}\n{RESULT}\n{content}\n"
    asked, said = f"\n{REQUEST} {content}\n", f"\n{ANSWER}\n{content}\n"
    return {"user": asked, "assistant": said, "file": f"\n{content}\n"}[role]


def attach_files(agent: MiniAgent) -> None:
    """Show the model the files that the request names, or a small workspace, before it is asked."""
    view, shown = View(agent), agent.history_text()
    attached = [f"no {p}" for p in view.absent() if re.search(f'@"?{re.escape(p)}', view.request)]
    sizes = {path: os.path.getsize(agent.root / path) for path in view.files}
    names, wanted = view.identifiers(), list(sizes)
    if sum(sizes.values()) > SMALL_WORKSPACE:
        fitting = [path for path, size in sizes.items() if 0 < size <= ATTACHED_FILE]
        defining = [p for p in fitting[:1_000] if names and view.defined(p) & set(names)]
        wanted = [p for p in dict.fromkeys(view.named() + defining) if p in fitting][:3]
    for path in wanted:
        with contextlib.suppress(ToolError):
            text, facts = read_file(agent, path)
            if defused(text) not in shown:
                attached.append(agent.record({"role": "file", "content": text} | facts)["file"])
    agent.tell("attached", ", ".join(attached) or "nothing new")


# -- 3. Tools, validation, permissions -------------------------------------------------------------

# ---- 3a. The reply: what models really write ----
# A file is changed by a listing: a path, below it the file in a code block. Models know a dozen
# ways to write one, and each that is not understood costs the task:
#     above the block                            is read as
#     a path: bare, **x**, `x`:, ### x, 1. `x`   that file
#     something else                             the one file in view of which it holds half, or all
#                                                that it defines; or the one new file asked for
#     something else, and it is shell, or quotes an illustration
# INVARIANT: a risky call that breaks off, in an open block or at the token limit, is not run.
# INVARIANT: a call inside of thinking or of a file is not run. (A <tool> alone in a block is.)


class Call(NamedTuple):
    """A tool call as the model meant it."""

    name: str
    args: dict[str, Any]


SUFFIX = re.compile(
    r"\w\.(pyi?|[cm]?jsx?|tsx?|json|md|rst|txt|toml|ya?ml|ini|cfg|conf|html?|css|sh|sql|csv|xml|go"
    r"|rs|java|kt|rb|php|[ch]|cc|[ch]pp|cs|swift)$|(^|/)(Makefile|Dockerfile|\.gitignore|\.env)$"
)
NO_FILES = "sh bash shell console zsh cmd bat powershell diff patch".split()  # a block's language
Block = tuple[str, str, str]  # the line above it, its language, its text
FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^`\n]*?)\s*")
OPENING = re.compile(r"(?<![`\"'\w])(<tool(?:_call)?\b|<final>)")
DEFINED = re.compile(
    r"(?m)^[ \t]*(?:export |default |pub |public |private |static |async |abstract )*"
    r"(?:def|class|function|fn|func|struct|interface|enum) +(\w+)"
)


class View:
    """What a reply can refer to: the workspace's files, those in view, the request."""

    def __init__(self, agent: MiniAgent) -> None:
        self.agent, self.root, self.request = agent, agent.root, agent.turn.request
        shown = agent.session["history"][agent.session.get("fold", 0) :]
        self.seen = list(dict.fromkeys(event["file"] for event in shown if "file" in event))

    @functools.cached_property
    def files(self) -> list[str]:
        """The workspace's files as they are now."""
        return list_workspace(self.root)

    def text(self, path: str) -> str:
        """Return a file's text, its line ends as LF; "" if there is none."""
        with contextlib.suppress(ToolError):
            return read_text(self.agent.path(path)).replace("\r\n", "\n")
        return ""

    def nearest(self, path: str) -> str:
        """Return the path, or that of the one file of this name: calc.py for path/to/calc.py."""
        path = path.replace("\\", "/").removeprefix("./")
        folder, _, name = path.rpartition("/")
        if os.path.exists(self.root / path) or (folder and os.path.isdir(self.root / folder)):
            return path
        same = [file for file in self.files if file.rpartition("/")[2].lower() == name.lower()]
        return same[0] if len(same) == 1 else path

    def is_path(self, word: str) -> bool:
        """Tell whether a word is a file's path: one that is there, or looks like nothing else."""
        return SUFFIX.search(word) is not None or os.path.isfile(self.root / word)

    def named(self) -> list[str]:
        """Return the paths that the request names, whether they are there or not."""
        words = re.findall(r'@"([^"\n]+)"|([\w./\\-]*\w)', self.request)
        paths = [quoted or word for quoted, word in words if self.is_path(quoted or word)]
        return list(dict.fromkeys(self.nearest(path) for path in paths))

    def absent(self) -> list[str]:
        """Return the files that the request names and that are not there."""
        return [path for path in self.named() if not os.path.exists(self.root / path)]

    def identifiers(self) -> list[str]:
        """Return what looks like code (`add(`, `to_upper`) in the request and a failed check."""
        checks = [event["content"] for event in self.agent.turn.results() if event["check"]]
        text = "\n".join([self.request, *checks])
        return sorted(set(re.findall(r"\b\w+(?=\()|\b\w*[a-z]_\w+|\b\w+[a-z][A-Z]\w*", text)))

    def defined(self, path: str) -> set[str]:
        """Return the names of the functions and classes in a file."""
        return set(DEFINED.findall(self.text(path)))

    def is_half(self, path: str, text: str) -> bool:
        """Tell whether at least half of a file's lines stand in a text."""
        new = {line.strip() for line in text.splitlines()}
        old = [line.strip() for line in self.text(path).splitlines() if line.strip()]
        return bool(old) and sum(line in new for line in old) >= len(old) / 2


def parse(raw: str, cut: bool, view: View) -> list[Call] | str:
    """Read a reply, `cut` by the token limit or not: return its calls, or an answer, or raise."""
    text = BROKEN.sub("", raw.rpartition("</think>")[2]).strip()
    is_echo = len(text) > 20 and text in NEXT + AGAIN + NOTHING + CUT
    if not text or is_echo or text.startswith("<think>"):
        raise ToolError("it is empty, or it only repeats this notice")
    blocks, element, is_open = read_blocks(text)
    answer = element.removeprefix("<final>").partition("</final>")[0].strip()
    if not element.startswith("<tool"):
        blocks += [block for block in read_blocks(answer)[0] if view.is_path(head_of(block[0]))]
    if is_open or cut:
        raise ToolError("a code block has no sure end; around other blocks it needs longer fences")
    is_question = view.agent.turn.wants_change() is False  # its blocks are illustrations
    calls = [] if is_question else written_files(blocks, view)
    if element.startswith("<tool"):
        calls.append(read_call(element))
    return calls or answer or text


def written_files(blocks: Sequence[Block], view: View) -> list[Call]:
    """Return the calls that blocks are, one for each file: the last counts."""
    calls: dict[str, Call] = {}
    for call in filter(None, [block_call(*block, view) for block in blocks]):
        path, content = call.args["path"], call.args["content"]
        is_file = content and content.rstrip() == view.text(path).rstrip()
        if PLACEHOLDER not in content and not is_file:  # or it only quotes: our example, the file
            calls[path] = call
    return list(calls.values())


def read_blocks(text: str) -> tuple[list[Block], str, bool]:
    """Return the closed code blocks, the rest from the first call on, and if a block is open."""
    blocks: list[Block] = []
    above, fence, indent, depth, language, body = "", "", 0, 0, "", ""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        mark = FENCE.fullmatch(line)
        if fence:
            is_fence = mark and mark[2].startswith(fence) and len(mark[1]) <= indent
            if mark and is_fence and mark[3]:  # of a block in the block
                depth += 1
            elif is_fence and depth:
                depth -= 1
            elif is_fence:
                blocks.append((above, language, body))
                fence, above = "", body.strip() if body.count("\n") == 1 else ""  # a path alone
                continue
            body += line[min(indent, len(line) - len(line.lstrip(" \t"))) :]
        elif mark and "<tool " in "".join(lines[number + 1 : number + 2]) and not head_of(above):
            continue  # a call that was put into a block
        elif mark:
            indent, fence, depth, body = len(mark[1]), mark[2], 0, ""
            language, *more = re.split(r"[\s:=\"]+", mark[3])  # ```python or ```python:src/app.py
            above = next(filter(SUFFIX.search, [language, *more]), above)
        elif opening := OPENING.search(line):
            return blocks, line[opening.start() :] + "".join(lines[number + 1 :]), False
        elif line.strip():
            above = line.strip()
    return blocks, "", bool(fence)


def head_of(line: str) -> str:
    """Return `calc.py` of "### **`calc.py`**:" and its like, "" of a line with more words."""
    decoration = r"(?i)^[\s#>*`-]*(\d+\.\s)?[\s*`]*((new |updated )?file(name)?:)?[\s*`]*|[\s*`:]+$"
    head = re.sub(decoration, "", line)
    return head if re.fullmatch(r"[\w.$@+/\\()\[\]-]+", head) else ""


def block_call(above: str, language: str, text: str, view: View) -> Call | None:
    """Return the call that a code block is, None for an illustration."""
    head, likely, names = head_of(above), list[str](), set(DEFINED.findall(text))
    if head and view.is_path(head) and language not in ("diff", "patch"):
        near = view.nearest(head)
        is_near = view.is_half(near, text) or ("/" not in head and names & view.defined(near))
        likely = [near if is_near else head]
    elif text.strip() and language.lower() not in NO_FILES:
        if any(f"{text.strip()}\n" in view.text(file) for file in view.seen):
            return None  # it quotes
        halves = [file for file in view.seen if view.is_half(file, text)]
        same = [file for file in view.seen if names and names <= view.defined(file)]
        new = view.absent() if language and text.count("\n") > 1 else []
        likely = halves if len(halves) == 1 else same or new
    is_clear = len(likely) == 1 and (text.strip() or not os.path.exists(view.root / likely[0]))
    return Call("write_file", {"path": likely[0], "content": text}) if is_clear else None


def read_call(text: str) -> Call:
    """Read the call that begins here, its arguments as attributes, elements or bare text."""
    name = next(iter(re.findall(r"<tool\b[^\w>]*(?:name\s*=)?[\"' ]*(\w+)", text)), "")
    if name not in TOOLS:
        raise ToolError(f"there is no tool {name!r}; the tools are {', '.join(TOOLS)}")
    spec, text = TOOLS[name], text.partition("</tool>")[0]
    head = re.findall(r'^(?:"[^"]*"|[^>])*', text)[0]  # a > in quotes does not end it
    body = text[len(head) + 1 :]
    given = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', head))
    given |= dict(re.findall(r"(?s)<(\w+)>(?:[ \t]*\n)?(.*?)</\1>", body))
    args = {key: value for key, value in given.items() if key in spec.params}
    is_bare = not body.lstrip().startswith(tuple(f"<{name}>" for name in spec.params))
    if spec.bare and spec.bare not in args and is_bare and body.strip():
        args[spec.bare] = re.sub(r"(?s)^(`+)(?:\w*\n)?(.*?)\s*\1$", r"\2", body.strip())
    spec.validate(args)
    return Call(spec.name, args)


def render(call: Call) -> str:
    """Return a call in the form that we teach, whatever form the model wrote it in."""
    args, spec = call.args, TOOLS.get(call.name)
    if call.name == "write_file":
        return as_listing(str(args.get("path")), str(args.get("content")))
    if spec and spec.bare in args:
        more = "".join(f' {key}="{value}"' for key, value in args.items() if key != spec.bare)
        return f'<tool name="{call.name}"{more}>{args[spec.bare]}</tool>'
    elements = "".join(f"<{key}>{value}</{key}>\n" for key, value in args.items())
    return f'<tool name="{call.name}">\n{elements}</tool>'


# ---- 3b. Declaring a tool ----
# A tool is one decorated function: name, checks and errors come from its signature; its result is a
# text for the model, or text and facts for the event. A risky one is a generator: it yields what it
# would do, and does it only when asked to go on. So what the human sees is what happens.

TOOLS: dict[str, Tool] = {}


class Tool:
    """The decorator that makes a tool of a function `run(agent, **arguments)`."""

    def __init__(self, form: str = "") -> None:
        self.form = form  # its line in the prompt; "" if it is taught only where it is needed

    def __call__(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the function; what it takes besides the agent is for the model to fill in."""
        self.run, self.name, self.risky = run, run.__name__, inspect.isgeneratorfunction(run)
        params = list(inspect.signature(run).parameters.values())[1:]
        self.params = [param.name for param in params]
        self.required = [param.name for param in params if param.default is param.empty]
        self.bare = self.params[0] if len(self.required) < 2 else ""  # may stand as bare text
        TOOLS[self.name] = self
        return run

    def validate(self, args: dict[str, Any]) -> None:
        """Raise ToolError that says what is wrong with arguments, and shows the form."""
        wrong = [f"{name} is missing" for name in self.required if name not in args]
        if wrong:
            form = render(Call(self.name, dict.fromkeys(self.params, "...")))
            raise ToolError(f"invalid arguments for {self.name}: {'; '.join(wrong)}. Form:\n{form}")


# ---- 3c. The tools ----
# A result says what is so now: a missed patch answers with what stands in the file.
READ_LINES, READ_CHARS, RESULT_CHARS, LONG_FILE = 400, 32_000, 6_000, 120
PART_FORM = "\n[{path} has {lines} lines. To change it, write just the functions that change.]"
PATCH_FORM = """
[{path} has {lines} lines. To change some of them, write <tool name="patch_file"><path>{path}</path>
<old_text>the lines to be replaced, exactly as they are</old_text>
<new_text>the lines that stand there afterwards</new_text></tool>]"""
DENIED, GUARDED = "approval denied", "nothing was written"
NEEDED = re.compile(r"(?m)(?:import |^(?=[A-Z_]+ = ))(\w+)")  # imports, constants
REMOVES = r"(?i)\b(remov|delet|renam|mov(e|ing)|replac|combin|inlin|rid of|split|merg)"
Changes = dict[str, tuple[bytes | None, bytes]]  # what files were (None: not there), what they are


def visible(text: str, keep: str = "") -> str:
    r"""Return text with what could fool a reader or command a terminal spelt out: ESC is `\x1b`."""
    odd = {c for c in set(text) if not c.isprintable() or "\ufe00" <= c <= "\ufe0f"}
    escapes = {ord(c): c.encode("unicode_escape").decode() for c in odd if c not in keep}
    return text.translate(escapes)


def one_line(text: str, limit: int) -> str:
    """Return the beginning of a text with all white space as single blanks."""
    words = " ".join(text[: 4 * limit].split())
    return words if len(words) <= limit else words[: limit - 3] + "..."


def clip(text: str, limit: int) -> str:
    """Return about `limit` characters: head, a mark that says how many are left out, and tail."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3  # errors stand at the end
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"


def encoding_of(data: bytes) -> str:
    """Return the encoding that a byte order mark tells, as Windows' programs write; or UTF-8."""
    mark = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else mark


def read_text(path: Path) -> str:
    """Return a file's text with its own line ends; raise ToolError if it is no readable text."""
    try:
        data = path.read_bytes() if stat.S_ISREG(os.lstat(path).st_mode) else b"\xff"  # a FIFO
        return data.decode(encoding_of(data))
    except OSError as error:
        raise ToolError(f"{path.name} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ToolError(f"{path.name} is no file of UTF-8 text; use run_shell") from None


def find(agent: MiniAgent, raw: str, folder: bool = False) -> tuple[str, Path]:
    """Return name and path of a file (or folder) that is there; raise ToolError with those near."""
    view = View(agent)
    path = agent.path(view.nearest(raw))
    if path.is_file() or (folder and path.is_dir()):
        return path.relative_to(agent.root).as_posix(), path
    raise ToolError(f"there is no file {raw}. The files are: {', '.join(view.files[:SHOWN_FILES])}")


@Tool('<tool name="read_file">{file}</tool>')
def read_file(agent: MiniAgent, path: str, start: int = 0) -> tuple[str, Event]:
    """Show a file from a line on; of a long one, without a line, what the request names."""
    name, real = find(agent, path)
    text = read_text(real)
    lines, first, note = text.splitlines(keepends=True), max(int(start), 1), ""
    shown, last = lines[first - 1 :][:READ_LINES], first - 1 + READ_LINES
    known = definitions(text) if len(lines) > LONG_FILE else []
    names = View(agent).identifiers() if known and not int(start) else []
    if parts := [part for other, part in known if other in names]:
        shown, last = ["\n\n\n".join(parts)], 0
    if last < len(lines):
        more = f'<tool name="read_file" start="{last + 1}">{name}</tool>'
        what = f"lines {first} to {last} are shown" if last else "what the request names is shown"
        note = f"\n[{what}; to go on: {more}]"
    if len(lines) > LONG_FILE:
        note += (PART_FORM if known else PATCH_FORM).format(path=name, lines=len(lines))
    listing = as_listing(name, clip("".join(shown), READ_CHARS))
    return listing + note, {"file": name, "lines": len(lines)}


def find_below(agent: MiniAgent, raw: str) -> tuple[str, list[str]]:
    """Return a folder and the paths of its files; what git ignores counts if it is named."""
    name, real = find(agent, raw, folder=True)
    files = [f for f in View(agent).files if name in (".", f) or f.startswith(name + "/")]
    ignored = [name] if real.is_file() else [f"{name}/{file}" for file in list_workspace(real)]
    return name, files or ignored


@Tool('<tool name="search">a text or regular expression</tool>')
def search(agent: MiniAgent, pattern: str, path: str = ".") -> str:
    """Return the lines that match, as path:number: line."""
    view, found, expression = View(agent), list[str](), re.compile(re.escape(pattern))
    with contextlib.suppress(re.error, OverflowError, RecursionError):
        # What may run for ever, as (a+)+$ or a*a*a*b, repeats a group or repeats too often.
        if not re.search(r"\)[*+{]|([*+{].*){3}", pattern):  # \| and [:space:] are grep's
            known = pattern.replace("\\|", "|").replace("[:space:]", r"\s")
            expression = re.compile(f"{known}|{re.escape(pattern)}")
    for name in find_below(agent, path)[1]:
        for number, line in enumerate(view.text(name).splitlines(), 1):
            # In pieces that overlap, since some expressions take the square of a line's length.
            pieces = [line[at : at + 1000] for at in range(0, len(line) or 1, 800)]
            if match := next(filter(None, map(expression.search, pieces)), None):
                start = max(match.start() - 100, 0)
                found.append(f"{name}:{number}: {match.string[start : start + 300]}")
    hint = "as text or, with few + and *, as an expression (what git ignores: only by its path)"
    return clip("\n".join(found), RESULT_CHARS) or f"no line matches {pattern!r} {hint}"


@Tool('<tool name="list_files">.</tool>')
def list_files(agent: MiniAgent, path: str = ".") -> str:
    """List a folder: [D] for folders, [F] for files; what git ignores is left out."""
    folder, files = find_below(agent, path)
    names = [Path(file).relative_to(folder).as_posix() for file in files]
    lines = {f"[D] {name.split('/')[0]}" if "/" in name else f"[F] {name}" for name in names}
    return clip("\n".join(sorted(lines)), RESULT_CHARS) or "(no files)"


@Tool()
def write_file(agent: MiniAgent, path: str, content: str) -> Iterator[Any]:
    """Write a whole file, as a listing is one; functions alone take the places of the old ones."""
    after = content.replace("\r\n", "\n").rstrip() + "\n" if content.strip() else ""
    before = View(agent).text(path)
    if lost_names(agent, before, after) and not re.search(REMOVES, agent.turn.asked):
        after = merge(before, after) or after
    yield from change_file(agent, agent.path(path), after, "wrote")


def definitions(text: str) -> list[tuple[str, str]]:
    """Return name and text of each function and class of a Python program; [] if it is none."""
    lines, found = text.split("\n"), list[tuple[str, str]]()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
                found.append((node.name, "\n".join(lines[first - 1 : node.end_lineno])))
    return found


def merge(text: str, part: str) -> str:
    """Return a text with the definitions of `part` in it; "" if `part` is no part of it."""
    rest = textwrap.dedent(part).strip("\n")
    parts, known = definitions(rest), definitions(text)
    if not known or len(dict(parts)) < len(parts):
        return ""
    for name, new in parts:
        if new not in rest:
            continue  # it stands inside of the one before
        rest = rest.replace(new, "")
        old = [old for other, old in known if other == name]
        if len(old) == 1 and old[0]:
            indent = old[0].partition(old[0].lstrip())[0]
            text = text.replace(old[0], textwrap.indent(new, indent), 1)
        elif old or "(self" in new:  # of which class?
            return ""
        else:  # a new one stands at the end, but above what starts the program
            head, start, tail = text.partition("\nif __name__")
            text = f"{head.rstrip()}\n\n\n{new}\n" + (f"\n{start}{tail}" if start else "")
    # Comments, and what the file has already, are no reason to refuse the part.
    new_lines = set(map(str.strip, rest.split("\n"))) - set(map(str.strip, text.split("\n")))
    return text if parts and all(line.startswith("#") for line in new_lines - {""}) else ""


@Tool()
def patch_file(agent: MiniAgent, path: str, old_text: str, new_text: str) -> Iterator[Any]:
    """Replace a text that stands exactly once in a file."""
    name, real = find(agent, path)
    before = read_text(real)
    texts = (text.replace("\r\n", "\n").strip("\n") for text in (old_text, new_text))
    old, new = (text.replace("\n", "\r\n" if "\r\n" in before else "\n") for text in texts)
    count = before.count(old) if old.strip() else 0
    if count != 1:
        shown = as_listing(name, clip(before, RESULT_CHARS))
        raise ToolError(f"old_text stands {count} times in {name}, not once. There is:\n{shown}")
    yield from change_file(agent, real, before.replace(old, new), "patched")


def change_file(agent: MiniAgent, real: Path, after: str, verb: str) -> Iterator[Any]:
    """Yield the diff of a change; then make it and yield the result."""
    name = real.relative_to(agent.root).as_posix()
    before = read_text(real) if real.exists() else ""
    old = real.read_bytes() if real.exists() else None
    if "\r\n" in before and "\r\n" not in after:
        after = after.replace("\n", "\r\n")
    if before == after and old is not None:
        raise ToolError(f"{name} has exactly this text already; nothing was changed")
    guard(agent, name, before, after)
    texts = before.splitlines(), after.splitlines()
    diff = list(difflib.unified_diff(*texts, name if old else "/dev/null", name, lineterm="", n=2))
    yield "\n".join(diff) or f"{name}: {'only line ends change' if old else 'a new empty file'}"
    if old != (real.read_bytes() if real.exists() else None):
        raise ToolError(f"{name} was changed in the meantime; read it again")
    new = after.encode(encoding_of(old or b""), "replace")
    real.parent.mkdir(parents=True, exist_ok=True)
    replace_file(real, new)
    agent.turn.changes[name] = agent.turn.changes.get(name, (old, new))[0], new
    said = f"{verb} {name} ({len(after)} chars)" + (", a new file" if old is None else "")
    problem = "" if syntax_error(name, before) else syntax_error(name, after)
    said += f"\nerror: but {name} does not parse: {problem}. Correct it." if problem else ""
    counts = [sum(line[0] == sign for line in diff[2:]) for sign in "+-"]
    yield said, {"file": name, "changed": counts, "ok": not problem}


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put bytes in place in one step: a crash leaves the old file or the new one, with its mode."""
    temporary = path.with_name(f".{path.name[:80]}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.write_bytes(data)
        if mode or path.exists():
            temporary.chmod(mode or path.stat().st_mode & 0o7777)
        with contextlib.suppress(OSError, AttributeError):  # root may, Windows can't
            os.chown(temporary, path.stat().st_uid, path.stat().st_gid)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def syntax_error(name: str, text: str) -> str:
    """Return why a Python program does not parse; "" if it does, or is something else."""
    try:
        if name.endswith(".py"):
            compile(text, name, "exec", dont_inherit=True)
    except (ValueError, SyntaxError, RecursionError) as error:
        return str(error)
    return ""


def lost_names(agent: MiniAgent, before: str, after: str) -> dict[str, bool]:
    """Return the names that a change takes away, and if each is still used."""
    old, new, asked = DEFINED.findall(before), DEFINED.findall(after), agent.turn.asked
    gone = Counter(old + NEEDED.findall(before)) - Counter(new + NEEDED.findall(after))
    told = asked if re.search(REMOVES, asked) else ""
    used = {name: bool(re.search(rf"(?<![.\w]){name}[(.\[]", after)) for name in gone}
    lost = {name: yes for name, yes in used.items() if yes or (name in old and name not in told)}
    return lost if len(new) < len(old) or set(new) & set(old) else {}  # or all got other names


def guard(agent: MiniAgent, name: str, before: str, after: str) -> None:
    """Raise ToolError at a write that looks like a mistake, once for each file or for good."""
    turn, why, kept = agent.turn, "", set(after.splitlines())
    gone = [line for line in before.splitlines() if line.strip() and line not in kept]
    is_fix = re.search(r"(?i)\b(fix|fixes|bugs?|fail\w*)\b(?! test_)", turn.asked)
    is_test = re.search(r"(^|/)test_|[._]test\.", name)
    lost = lost_names(agent, before, after)
    is_most = len(gone) >= 4 and not View(agent).is_half(name, after)
    if gone and is_fix and is_test and f"in {name}" not in turn.asked:
        why = "the tests say what is right. Change the program, not the tests."
    elif is_most or lost:
        why = f"it would remove {len(gone)} lines of {name}:\n" + "\n".join(gone[:8])
        why += "\nWrite the complete new text of the file, with everything that stays."
    is_final = any(lost.values()) or (is_most and len(gone) > LONG_FILE)  # it can't be meant
    if why and (is_final or name not in turn.warned):
        turn.warned.add(name)
        raise ToolError(f"{GUARDED}, since {why}")


SECRET = re.compile(r"(?i)TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL")  # names of variables
NOISE = re.compile(r"(?m)^[^\n]*\r(?!\n)|\x1b\[[0-9;?]*[A-Za-z]")  # overwritten, colours


@functools.cache
def sandbox(root: Path) -> list[str]:
    """Return how bubblewrap lets a command write only here, in the temporary and caches; or []."""
    argv = ["bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--die-with-parent"]
    for folder in (tempfile.gettempdir(), Path.home() / ".cache", root):
        argv += ["--bind-try", *[os.path.realpath(folder)] * 2]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([*argv, "true"], check=True, capture_output=True, timeout=5)
        return argv
    return []


@Tool('<tool name="run_shell">a shell command</tool>')
def run_shell(agent: MiniAgent, command: str, timeout: int = 60) -> Iterator[Any]:
    """Run a command without terminal, input and secret variables, for `timeout` seconds at most."""
    seconds = min(int(timeout), 600)
    yield visible(command, "\n")
    env = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    env |= {"GIT_EDITOR": "false", "EDITOR": "false", "PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}
    confined = sandbox(agent.root) if agent.approval_policy == "auto" else []
    argv = [*confined, shutil.which("bash") or "sh", "-c", command]
    process = subprocess.Popen(
        argv if os.name != "nt" else command, shell=os.name == "nt", cwd=agent.root, env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    output = bytearray()

    def read_output() -> None:
        while block := os.read(process.stdout.fileno(), 65536):  # type: ignore[union-attr]
            output.extend(block)
            if len(output) > 1_000_000:  # it may never end
                output[250_000:-250_000] = b"\n[...]\n"

    reader, code = threading.Thread(target=read_output, daemon=True), None
    try:
        reader.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(seconds)
    finally:
        with contextlib.suppress(OSError):  # and all that it started
            os.killpg(process.pid, signal.SIGKILL) if os.name != "nt" else process.kill()
    reader.join(1)  # what has left its process group may hold the pipe open
    text = NOISE.sub("", output.decode("utf-8", "replace").replace("\r\n", "\n")).strip("\n")
    said = f"exit code {code}" if code is not None else f"error: stopped after {seconds} seconds"
    if re.search(r"(?i)Ran 0 tests|no tests ran|collected 0 items", text):
        said += "\n(no test was run, so this proves nothing)"
    if re.fullmatch(r"\s*(cd|export)\b[^&;|\n]*", command):
        said += "\n(this does not last: each command starts anew in the project's folder)"
    said += "\n" + (clip(text, RESULT_CHARS) or "(no output)")
    yield said, {"exit_code": code, "ok": code == 0}


PYTHON = "python3" if shutil.which("python3") else "python"
NAMED_COMMAND = re.compile(
    r"`((?:python3?|node|npm|pytest|cargo|go|make|bash|sh) [^`\n]*)`"
    r"|\b(python3? (?:-m \w+|[\w./-]+\.py)|(?:npm|cargo|go) test)\b(?! +[\d\"'-])"
)
TESTS = [  # a file that there is, what it holds, the command that runs the tests
    (r"(tests?/)?test_[^/]*\.py", r"pytest|\ndef test_|\nclass \w+:", f"{PYTHON} -m pytest -q"),
    (r"test_[^/]*\.py", "", f"{PYTHON} -m unittest"),
    (r"tests?/test_[^/]*\.py", "", f"{PYTHON} -m unittest discover -s {{folder}}"),
    (r"package\.json", '"test": *"(?!echo)', "npm test"), (r"Cargo\.toml", "", "cargo test"),
    (r"go\.mod", "", "go test ./..."), ("Makefile", "\ntest:", "make test"),
]  # fmt: skip


def check_command(agent: MiniAgent) -> str:
    """Return what judges a change: a command asked for, or the tests; "" if there is none."""
    view = View(agent)
    if named := NAMED_COMMAND.search(agent.turn.asked):
        return named[1] or named[2]
    changed = agent.turn.changed()
    if changed and all(path.endswith((".md", ".txt", ".rst")) for path in changed):
        return ""
    for pattern, content, command in TESTS:
        for path in view.files:
            if re.fullmatch(pattern, path) and re.search(content, "\n" + view.text(path)):
                return command.format(folder=path.partition("/")[0])
    return ""


# ---- 3d. The gate ----
# Looking is free in the workspace. Every command is asked about: a list of harmless ones can be got
# round. "Always" means this very command, or this tool for files. A no is an error for the model.


def run_call(agent: MiniAgent, call: Call, check: bool = False) -> Event:
    """Take a call, the model's or (`check`) the program's, through the gate; return its event."""
    event: Event = {"role": "tool", "name": call.name, "args": call.args, "check": check}
    try:
        TOOLS[call.name].validate(call.args)
        done = pass_gate(agent, TOOLS[call.name], call, check)
        text, facts = done if isinstance(done, tuple) else (done, {})
        event |= {"content": text, "ok": True} | facts
    except (ToolError, OSError, ValueError, RecursionError) as error:
        event |= {"content": f"error: {error}", "ok": False}
    agent.tell("result", event)
    return event


def pass_gate(agent: MiniAgent, tool: Tool, call: Call, check: bool) -> Any:
    """Run a valid call if mode and human let it; raise ToolError otherwise."""
    if not tool.risky:
        return tool.run(agent, **call.args)
    denied = f"{DENIED} for {tool.name}: "
    if not agent.may_act():
        raise ToolError(denied + "answer in words (plan mode, subagent, --approval, nobody to ask)")
    doing = tool.run(agent, **call.args)  # first what it would do, then the doing
    preview = next(doing)
    key = f"run_shell {call.args['command']}" if tool.name == "run_shell" else tool.name
    if agent.approval_policy == "ask" and agent.ask_human and key not in agent.always:
        what = "To judge the work, run this? (a no holds for the session)" if check else tool.name
        answer = agent.ask_human(what, preview).strip()
        if answer.lower() in ("a", "always"):
            agent.always.add(key)
        elif answer.lower() not in ("y", "yes"):
            raise ToolError(denied + (answer or "the user says no"))
    agent.tell("run", call.name)
    return next(doing)


# -- 4. Context reduction --------------------------------------------------------------------------
# Results are clipped when they are made. When the prompt still outgrows the window, the transcript
# is folded: what stands before the request, and if need be all but the newest event, becomes the
# memory and one line each. The model then reads everything again, so folds are rare and deep.
WINDOW = 32_768  # tokens


def count_tokens(agent: MiniAgent, text: str) -> int:
    """Return about how many tokens a text has, by the rate of bytes that was last measured."""
    return int(len(text.encode("utf-8", "replace")) / agent.bytes_per_token) + 1


def fit_prompt(agent: MiniAgent, room: int) -> str:
    """Return the prompt, folded if it and `room` tokens of reply are too long for the window."""
    window = getattr(agent.model_client, "num_ctx", WINDOW)
    session, newest = agent.session, agent.session["history"][-1]
    text = "" if newest["role"] == "user" else AGAIN if agent.turn.has_failed() else NEXT
    plan = "Plan mode: change nothing. Look, then answer with a plan.\n" if agent.plan else ""
    tail = plan + (agent.turn.notice or text)
    tail = f"\n{tail}\n" if tail else ""
    prompt = agent.prefix + agent.history_text() + tail
    for fold in (agent.turn.first, len(session["history"]) - 1):  # the second if need be
        size = count_tokens(agent, prompt)
        if size > window - min(room, window // 4) and fold > session.get("fold", 0):
            agent.tell("fold", f"{size} tokens are too many; what is old is told in fewer words")
            session["fold"] = fold
            prompt = agent.prefix + agent.history_text() + tail
    return prompt


def folded_text(events: Sequence[Event]) -> str:
    """Return what the prompt still says of folded events: memory, a line each, the request."""
    lines = [f"{len(events)} events:", memory_text(events), *map(brief, events[-40:])]
    told = defused("\n".join(lines))
    talk = [event for event in events if event["role"] in ("user", "assistant")][-1:]
    request = "".join(event_text(event) for event in talk if event["role"] == "user")
    return f"\nWhat was done before, in brief, {told}\n{request}" if events else ""


# -- 5. Sessions, memory, undo ---------------------------------------------------------------------
# A session is one JSON file, written in one step after every event, so a crash loses nothing that
# was said. Undo is not read from the disk, as it changes files; it can't undo what commands did.


def new_session(root: Path) -> dict[str, Any]:
    """Return an empty session."""
    session_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"
    return {"id": session_id, "workspace_root": str(root), "history": []}


def brief(event: Event) -> str:
    """Return an event in one line: what was called or said, and what came of it."""
    if event["role"] != "tool":
        return f"* {event['role']}: {one_line(event['content'], 100)}"
    about = event.get("file") or next(iter(event.get("args", {}).values()), "")
    head = f"* {event['name']} {one_line(str(about), 60)}: "
    if "exit_code" in event or event["content"].startswith("error: "):
        ending = str(event["content"]).removeprefix("error: ").partition("\n")[0]
        return head + ending + (" (a check)" if event.get("check") else "")
    if "changed" in event:
        return "{}+{} -{}".format(head, *event["changed"])
    return f"{head}{event.get('lines', len(event['content'].splitlines()))} lines"


def memory_text(events: Sequence[Event]) -> str:
    """Return what is worth remembering: the task, the last files, the last answers as notes."""
    tasks = [event["content"] for event in events if event["role"] == "user"] or ["-"]
    files = [*dict.fromkeys(event["file"] for event in reversed(events) if "file" in event)][:8]
    notes = [brief(event) for event in events if event["role"] == "assistant"][-5:]
    return "\n".join([f"Task: {one_line(tasks[-1], 500)}", f"Files: {', '.join(files)}", *notes])


class SessionStore:
    """The saved sessions of a workspace."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, session_id: str) -> Path:
        """Return the file of a session; raise RuntimeError if this is no id."""
        if not re.fullmatch(r"[\w-]{1,80}", session_id):
            raise RuntimeError(f"{session_id!r:.80} is no session id.")
        return self.root / f"{session_id}.json"

    def save(self, session: dict[str, Any]) -> Path:
        """Write a session in one step, for its owner alone."""
        if self.root.is_symlink() or self.root.parent.is_symlink():
            raise RuntimeError(f"{self.root} leads elsewhere, so no session is saved there.")
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        replace_file(self.path(session["id"]), json.dumps(session).encode(), 0o600)
        return self.path(session["id"])

    def load(self, session_id: str) -> dict[str, Any]:
        """Return a session; raise RuntimeError that says what is wrong with its file."""
        path = self.path((self.latest() or "latest") if session_id == "latest" else session_id)
        if not path.exists():
            raise RuntimeError(f"No session {session_id}; there are: {', '.join(self.ids()[-5:])}.")
        try:
            session: dict[str, Any] = json.loads(read_text(path))
            history, fold = session["history"], session.get("fold", 0)
            memory_text(history) + "".join(map(event_text, history))  # raises at an odd shape
            if session["id"] != path.stem or not 0 <= fold <= len(history):
                raise ValueError("it has not the shape of a session")
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as why:
            raise RuntimeError(f"The session {path} is damaged: {why!r}. It stays as it is.")
        return session

    def ids(self) -> list[str]:
        """Return the ids of all sessions, the oldest first."""
        return [file.stem for file in sorted(self.root.glob("*.json"), key=os.path.getmtime)]

    def latest(self) -> str | None:
        """Return the id of the session that was saved last, None if there is none."""
        return self.ids()[-1] if self.ids() else None


def undo_request(agent: MiniAgent) -> str:
    """Take back the last request of this process, files and conversation; return what was done."""
    if not agent.undo:
        return "There is nothing left to undo. (What an earlier conversation changed is not kept.)"
    turn = agent.undo.pop()
    lines = [f"Took back: {one_line(turn.request, 60)}"]
    for name, (old, new) in turn.changes.items():
        path, said = agent.root / name, "was changed since, and stays as it is"
        if path.is_file() and path.read_bytes() == new:
            replace_file(path, old) if old is not None else path.unlink()
            said = "removed" if old is None else "put back"
        lines.append(f"{name} {said}")
    del agent.session["history"][turn.first :]
    agent.session["fold"] = min(agent.session.get("fold", 0), turn.first)
    agent.turn = Turn(agent)
    if agent.session_store:
        agent.session_store.save(agent.session)
    return "\n".join(lines)


# -- 6. Delegation and bounded subagents -----------------------------------------------------------
# A subagent has a transcript of its own, hands back its answer alone, and can't change anything.


@Tool()  # its form stands in the prompt of large workspaces; in a small one it does harm
def delegate(agent: MiniAgent, task: str) -> str:
    """Have a subagent look into a question; return its answer."""
    if agent.depth >= agent.max_depth:
        raise ToolError("a subagent can't delegate")
    child = replace(agent, session_store=None, session={}, read_only=True, depth=agent.depth + 1)
    return f"delegate_result:\n{child.ask(task)}"


# -- The model -------------------------------------------------------------------------------------
# A model client is any object with `complete(prompt, max_new_tokens, stop=)` that returns a text.
# The real one speaks Ollama's /api/generate (as its source, version 0.33, does), which puts the
# prompt into the model's chat template as one message; each fault becomes one sentence.

DEFAULT_HOST = "http://127.0.0.1:11434"
# A recurrent model, as the default is, is resumed NUM_BATCH tokens before its last prompt's end.
NUM_BATCH = 96
FAULTS = [  # what a fault looks like, and what the human can do about it
    ("timed out", "Ollama was silent for {timeout:g} s. Loading a model and reading a long prompt"
     " take minutes on a slow machine: raise --ollama-timeout."),
    ("refused|resolution|not known|No address", "No Ollama server answers at {host}. Start it with"
     " `ollama serve`, or name another one with --host."),
    ("^404 .*not found", "There is no model {model} at {host}. Get it with `ollama pull {model}`,"
     " or take another one (--model, /model; `ollama list` names them)."),
    ("exceed_context_size", "The prompt is longer than the server's window; try --num-ctx."),
    ("memory|to load", "Ollama can't load {model} ({fault}). Take a smaller --model or --num-ctx."),
    ("", "Ollama at {host} gave no usable answer ({fault})."),
]  # fmt: skip
TRANSIENT = re.compile(r"\(50[03] |Reset|Aborted|Incomplete|Disconnected|was done")  # one more try


class Completion(str):
    """A reply, and what the server said of it."""

    cut = False  # it reached the limit of new tokens
    tokens = (0, 0)  # read and written


class ModelError(RuntimeError):
    """A model call that failed; the text is a sentence for the human."""


class FakeModelClient:
    """A model that plays a list of replies and keeps the prompts: for tests and the demo."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self.outputs, self.prompts = list(outputs), list[str]()

    def complete(self, prompt: str, max_new_tokens: int, **options: Any) -> str:
        """Return the next reply of the list."""
        self.prompts.append(prompt)
        return self.outputs.pop(0) if self.outputs else "<final>There is no reply left.</final>"


class OllamaModelClient:
    """The model behind an Ollama server."""

    def __init__(
        self, model: str, host: str = DEFAULT_HOST, temperature: float = 0.2, top_p: float = 0.9,
        timeout: float = 300, num_ctx: int = WINDOW,
    ) -> None:  # fmt: skip
        scheme, _, address = host.strip(" \"'/").replace("0.0.0.0", "127.0.0.1").rpartition("://")
        login, _, address = address.rpartition("@")  # user:password
        name, _, port = address.partition(":")
        if not scheme:  # OLLAMA_HOST may be a name, name:port or :port
            scheme, address = "http", f"{name or '127.0.0.1'}:{port or 11434}"
        self.model, self.num_ctx, self.wanted_ctx, self.timeout = model, num_ctx, num_ctx, timeout
        self.host = self.place = f"{scheme}://{address}"
        self.sampling = {"temperature": temperature, "top_p": top_p}
        is_local = re.match(r"https?://(127\.|localhost|\[::1\])", self.host)
        self.opener = build_opener(ProxyHandler({} if is_local else None))
        if login:
            word = base64.b64encode(unquote(login).encode()).decode()
            self.opener.addheaders.append(("Authorization", f"Basic {word}"))
        proxy = getproxies().get(scheme, "").rpartition("@")[2]
        if proxy and not is_local and not proxy_bypass(name):
            self.place += f" (through the proxy {proxy})"
        self.watch: Callable[[str, str], None] = lambda phase, piece: None  # for the terminal

    def prepare(self) -> None:
        """Look for server and model, and take no larger window than the model has."""
        about = self.send("/api/show", {"model": self.model}).get("model_info") or {}
        most = about.get(f"{about.get('general.architecture')}.context_length") or self.wanted_ctx
        self.num_ctx = min(self.wanted_ctx, most)

    def complete(self, prompt: str, max_new_tokens: int, stop: Sequence[str] = ()) -> Completion:
        """Return the model's reply, streamed; a fault that may pass is met with a second try."""
        options = self.sampling | {
            "num_ctx": self.num_ctx, "num_batch": NUM_BATCH, "num_predict": max_new_tokens,
            "stop": list(stop), "presence_penalty": 0,  # newer qwens come with 1.5: bad for code
        }  # fmt: skip
        # Not truncated: too long a prompt is refused with its count, and not cut in silence.
        body = {
            "model": self.model, "prompt": prompt, "stream": True, "think": False,
            "truncate": False, "keep_alive": "30m", "options": options,
        }  # fmt: skip
        self.watch("reading", "")
        try:
            last = self.send("/api/generate", body)
        except ModelError as fault:
            if not TRANSIENT.search(str(fault)):
                raise
            last = self.send("/api/generate", body)
        done = Completion(last["text"])
        done.cut = last.get("done_reason") == "length"
        done.tokens = last.get("prompt_eval_count") or 0, last.get("eval_count") or 0
        return done

    def send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the last line of an answer, with the `text` of all lines; raise ModelError."""
        text, chunk = "", dict[str, Any]()
        try:
            sent = Request(self.host + path, json.dumps(body).encode())
            with self.opener.open(sent, timeout=self.timeout) as response:
                for line in response:
                    chunk = json.loads(line)
                    if chunk.get("error"):
                        raise self.fault(f"500 {chunk['error']}")
                    text += chunk.get("response") or ""
                    self.watch("writing", chunk.get("response") or "")
        except HTTPError as refusal:
            said = ""
            with contextlib.suppress(OSError, HTTPException):
                said = refusal.read(50_000).decode("utf-8", "replace")
            raise self.fault(f"{refusal.code} {said}")
        except (OSError, HTTPException, ValueError, AttributeError, TypeError) as problem:
            raise self.fault(f"{type(problem).__name__}: {getattr(problem, 'reason', problem)}")
        if path == "/api/generate" and not chunk.get("done"):
            raise self.fault("the reply ended before it was done")
        return chunk | {"text": text}

    def fault(self, said: str) -> ModelError:
        """Return the error for an HTTP status with its body, or for an exception's text."""
        with contextlib.suppress(ValueError, LookupError, TypeError):
            said = said[:4] + json.loads(said[4:])["error"]
        words = next(words for pattern, words in FAULTS if re.search(pattern, said))
        facts = {"host": self.place, "model": self.model, "timeout": self.timeout}
        return ModelError(visible(words.format(fault=said[:300], **facts)))


# -- The terminal ----------------------------------------------------------------------------------
# Standard output is the answer, all else goes to standard error.

EXIT_CODES = {"finished": 0, "error": 1, "limit": 3, "contradicted": 3, "interrupted": 130}
COLORS = {"+": "32", "-": "31", "@": "36", "error": "31", "dim": "2", "bold": "1"}
HARMLESS = "\u00a0\u202f\u2009\u3000\ufe0e\ufe0f\u200c\u200d"  # blanks, joiners
HELP = """\
/undo    take the last request back         /memory   the task, the last files
/plan    only look: on, off; or /plan TEXT  /context  how full the window is
/model   which one; /model NAME: another    /session  which session this is
/reset   begin a new session                /exit     leave, as /quit does
@path in a request attaches a file. Several lines can be pasted, or piped in."""


def build_welcome(agent: MiniAgent, model: str, host: str) -> str:
    """Return what a conversation begins with."""
    return f"Mini-Coding-Agent {__version__} in {agent.root}, {model} at {host}. /help helps."


class Terminal:
    """What the human sees, types and decides."""

    def __init__(self, agent: MiniAgent) -> None:
        self.agent, agent.tell = agent, self.tell
        self.is_live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.has_color = self.is_live and not os.environ.get("NO_COLOR")
        self.width = min(shutil.get_terminal_size().columns, 100)
        self.phase, self.since, self.written, self.can_undo = "", "", "", False

    def say(self, text: str, color: str = "", end: str = "\n") -> None:
        """Print lines of progress; without a colour of their own, those of a diff are coloured."""
        lines = visible(text, "\n\t").split("\n")
        if self.has_color:
            lines = [f"\x1b[{COLORS.get(color or x[:1], '0')}m{x}\x1b[0m" for x in lines]
        clear = "\r\x1b[K" if self.is_live else ""  # the live line goes
        print(clear + "\n".join(lines), file=sys.stderr, end=end, flush=True)

    def wrap(self, text: str) -> str:
        """Return a text for a terminal: long lines broken between words, not inside of `code`."""
        if not self.is_live:
            return text
        whole = re.sub(r"`[^`\n]+`", lambda code: code[0].replace(" ", "\xa0"), text).split("\n")
        lines = [textwrap.fill(line, self.width, break_on_hyphens=False) for line in whole]
        return "\n".join(lines).replace("\xa0", " ")

    def watch(self, phase: str, piece: str = "") -> None:
        """Draw the live line: reading, writing (with the reply's pieces), running a tool."""
        if phase != self.phase or phase == "reading":
            self.phase, self.since, self.written = phase, time.strftime("%X"), ""
        self.written += piece
        if self.is_live:  # a time and no seconds, as the server says nothing while it reads
            words = " ".join(self.written[-self.width :].split())[30 - self.width :]
            self.say(f"{phase} since {self.since} {words}"[: self.width - 1], "dim", end="")

    def tell(self, kind: str, what: Any) -> None:
        """Show what the loop reports."""
        if kind == "result":
            self.say(self.wrap(brief(what)), "bold" if what["ok"] else "error")
            lines = what["content"].split("\n")[1:] if "exit_code" in what or not what["ok"] else []
            for line in [line for line in lines if re.search(r"\w", line)][-6:]:
                is_bad = not what["ok"] and re.search(r"(?i)error|fail", line)
                self.say(f"    {line}", "error" if is_bad else "dim")
        elif kind == "run":
            self.watch(f"running {what}")
        else:
            self.say(self.wrap(f"[{kind}] {what}"), "dim")

    def confirm(self, what: str, preview: str, answer: str = "") -> str:
        """Show what a call would do; return the human's answer, or the one given as if theirs."""
        self.pasted()  # what was typed before the question is no answer to it
        self.say(f"\n{what}:", "bold")
        self.say(clip(preview, 20_000))
        self.say("Allow? [y]es, [a]lways, or a reason why not: ", "bold", end="")
        answer = answer or str(sys.stdin.readline())
        if not answer:  # Ctrl-D
            raise KeyboardInterrupt
        if not sys.stdin.isatty() or not answer.endswith("\n"):
            print(visible(answer.strip()), file=sys.stderr, flush=True)
        return answer.rstrip("\n") + self.pasted()

    def pasted(self) -> str:
        """Return the lines that are there already, behind one that was read: a paste."""
        lines = ""
        while os.name != "nt" and sys.stdin.isatty() and select.select([0], [], [], 0.02)[0]:
            lines += "\n" + input()
        return lines

    def summary(self) -> str:
        """Return what a turn did, from the record alone, in one line."""
        turn, calls = self.agent.turn, self.agent.turn.results()
        parts = [f"{time.monotonic() - turn.started:.0f} s"]
        for file in turn.changed():
            counts = [c["changed"] for c in calls if "changed" in c and c["file"] == file]
            steps = "+{} -{}".format(*counts[0]) if len(counts) == 1 else f"in {len(counts)} steps"
            parts.append(f"changed {file} ({steps})")
        is_checked = any("exit_code" in call for call in turn.since_effect())
        when = " before the change" if turn.changed() and not is_checked else ""
        for call in {c["args"]["command"]: c for c in calls if "exit_code" in c}.values():
            ending = call["content"].partition("\n")[0].removeprefix("error: ")
            result = ("passes" if call["ok"] else "fails") if call["check"] else ending
            parts.append(f"ran {one_line(call['args']['command'], 40)}: {result}{when}")
        parts += ["nothing changed"] if turn.is_unchanged() else ["not checked"] if when else []
        parts += ["/undo takes it back"] if turn.changed() and self.can_undo else []
        why = one_line(brief(calls[-1])[2:], 90) if turn.has_failed() else "nothing but words"
        parts += [f"NOT DONE: {why}"] if turn.outcome == "contradicted" else []
        parts += ["{} tokens in, {} out".format(*turn.tokens)] if any(turn.tokens) else []
        return " · ".join(parts)

    def work(self, request: str) -> int:
        """Work on one request, print answer and summary; return the exit code."""
        try:
            answer = self.agent.ask(request)
        except (KeyboardInterrupt, EOFError):
            self.agent.turn.outcome, answer = "interrupted", "Interrupted."
            self.agent.record({"role": "assistant", "content": answer})  # the request is over
        except (RuntimeError, OSError) as error:
            self.agent.turn.outcome, answer = "error", str(error)
        code = EXIT_CODES[self.agent.turn.outcome]
        if self.agent.turn.outcome in ("finished", "contradicted"):
            self.say("", end="")  # the live line goes
            shown = visible(answer, "\n\t" + HARMLESS)
            print(self.wrap(shown) if sys.stdout.isatty() else shown, flush=True)
        else:
            self.say(self.wrap(answer), "error")
        self.say(self.wrap(self.summary()), "bold" if code == 0 else "error")
        return code

    def run_command(self, name: str, rest: str) -> str:
        """Run a slash command; return what it says."""
        agent, client = self.agent, self.agent.model_client
        if name == "/undo":
            return undo_request(agent)
        if name == "/plan":
            agent.plan = rest != "off" if rest else not agent.plan
        if name == "/reset":
            agent.reset()
        if name == "/model" and rest:
            client.model = rest
            client.prepare()
        said = {
            "/memory": memory_text(agent.session["history"]), "/help": HELP,
            "/context": f"{count_tokens(agent, agent.prompt(''))} of {client.num_ctx} tokens",
            "/plan": f"plan mode is {'on: nothing will be changed' if agent.plan else 'off'}",
            "/session": agent.session["id"], "/reset": "A new session.", "/model": client.model,
        }  # fmt: skip
        return str(said.get(name, f"There is no {name}; /help lists the commands."))

    def converse(self) -> int:
        """Read requests and commands until the end; return the exit code of the last request."""
        agent, code, self.can_undo = self.agent, 0, True
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives `input` its editing and history
        while True:
            try:
                if ahead := self.pasted():
                    self.say(f"[notice] typed while it worked, so not read:{ahead}", "dim")
                request = (input("\nplan> " if agent.plan else "\n> ") + self.pasted()).strip()
                command = re.fullmatch(r"(?s)(/[a-z]+)(?: +(.*))?", request)
                if request in ("exit", "quit", ":q", "/exit", "/quit", "/bye"):
                    return code
                if command:
                    self.say(self.wrap(self.run_command(command[1], command[2] or "")))
                    is_plan = command[1] == "/plan" and command[2] not in ("on", "off")
                    request = command[2] if is_plan else ""
                if request:
                    code = self.work(request)
            except EOFError:
                print(file=sys.stderr)
                return code
            except (RuntimeError, OSError) as fault:
                self.say(self.wrap(str(fault)), "error")
            except KeyboardInterrupt:
                self.say("\n(Ctrl-D leaves)", "dim")


def build_arg_parser() -> argparse.ArgumentParser:
    """Return the parser for the command line."""
    parser = argparse.ArgumentParser(
        prog="mini-coding-agent", allow_abbrev=False,
        description="A coding agent for small local models. Exit codes: 0 finished, 1 error, 2"
        " usage, 3 not done (a limit, or the record contradicts the answer), 130 interrupted.",
    )  # fmt: skip
    add, host = parser.add_argument, os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
    add("prompt", nargs="*", help="a request to work on; without one, a conversation")
    add("-p", "--prompt", dest="prompt_option", metavar="TEXT", help="the same as a flag")
    add("--cwd", default=".", metavar="DIR", help="the workspace: the tools do not leave it")
    add("--model", default="qwen3.5:4b", metavar="NAME", help="the model's name in Ollama")
    add("--host", default=host, metavar="URL", help="the Ollama server; OLLAMA_HOST sets it, too")
    add("--ollama-timeout", type=float, default=300, metavar="S", help="seconds of silence")
    add("--resume", metavar="ID", help="go on with a saved session: its id, or latest")
    add("--approval", choices=("ask", "auto", "never"), default="ask", help="before risky calls")
    add("--plan", action="store_true", help="look, don't touch: the answer is a plan")
    add("--max-steps", type=int, default=6, metavar="N", help="steps for a request")
    add("--max-new-tokens", type=int, default=512, metavar="N", help="a reply without its files")
    add("--num-ctx", type=int, default=WINDOW, metavar="N", help="context window in tokens")
    add("--temperature", type=float, default=0.2, metavar="T", help="0 is the most predictable")
    add("--top-p", type=float, default=0.9, metavar="P", help="the likeliest tokens of this share")
    add("--demo", action="store_true", help="show the whole loop without a model")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def build_agent(args: argparse.Namespace) -> MiniAgent:
    """Return the agent for parsed arguments; raise RuntimeError for a bad folder or session."""
    if not Path(args.cwd).is_dir():
        raise RuntimeError(f"--cwd {visible(args.cwd)} is not a folder.")
    workspace = WorkspaceContext.build(args.cwd)
    store = SessionStore(Path(workspace.cwd) / STATE_DIR / "sessions")
    sampling = (args.temperature, args.top_p, args.ollama_timeout, args.num_ctx)
    return MiniAgent(
        OllamaModelClient(args.model, args.host, *sampling), workspace, store,
        store.load(args.resume) if args.resume else {}, approval_policy=args.approval,
        plan=args.plan, max_steps=args.max_steps, max_new_tokens=args.max_new_tokens,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    warnings.simplefilter("ignore")  # of what a model writes: code, regular expressions
    with contextlib.suppress(AttributeError, ValueError):
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        for number in (signal.SIGTERM, signal.SIGHUP):  # an orderly end: commands are killed
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    args = build_arg_parser().parse_args(argv)
    try:
        return run_demo() if args.demo else start(args)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES["error"]
    except KeyboardInterrupt:
        return EXIT_CODES["interrupted"]
    except RuntimeError as error:
        print(visible(str(error)), file=sys.stderr)
        return 2


def start(args: argparse.Namespace) -> int:
    """Do what the flags ask for and return the exit code; raise RuntimeError."""
    agent = build_agent(args)
    terminal = Terminal(agent)
    agent.model_client.watch = terminal.watch
    request = " ".join([args.prompt_option or "", *args.prompt]).strip()
    if sys.stdin.isatty() or not request:  # beside a request, what is piped in is no answer
        agent.ask_human = terminal.confirm
    try:
        agent.model_client.prepare()
    except ModelError as fault:
        terminal.say(terminal.wrap(str(fault)), "error")
        if request:
            return EXIT_CODES["error"]
    if args.approval == "auto" and not sandbox(agent.root):
        terminal.say("[notice] nothing is asked, and commands can do whatever you can", "dim")
    if args.resume:
        terminal.say(terminal.wrap(f"Resumed.\n{memory_text(agent.session['history'])}"), "dim")
    if not request:
        terminal.say(terminal.wrap(build_welcome(agent, args.model, agent.model_client.host)))
        return terminal.converse()
    if not sys.stdin.isatty() and (data := sys.stdin.read()):
        if len(data) > 20_000:
            terminal.say(f"Of the {len(data)} characters in the pipe 20000 are used.")
        request += PIPED + clip(data, 20_000)
    return terminal.work(request)


# -- Extra: a demo, which can be deleted with the two lines that call it ---------------------------

DEMO_REQUEST = f"{PYTHON} greet.py fails. Fix it."
DEMO_REPLIES = [
    "The name is misspelt.\n\ngreet.py\n```python\nname = 'Ada'\nprint('Hello, ' + name)\n```",
    "<final>greet.py greets Ada now: the name was misspelt.</final>",
]


def run_demo() -> int:
    """Play a session with a scripted model and real tools; return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="mini-coding-agent-demo-")).resolve()
    (folder / "greet.py").write_text("name = 'Ada'\nprint('Hello, ' + nmae)\n", encoding="utf-8")
    agent = build_agent(build_arg_parser().parse_args(["--cwd", str(folder)]))
    agent.model_client, terminal = FakeModelClient(DEMO_REPLIES), Terminal(agent)
    agent.ask_human = lambda what, preview: terminal.confirm(what, preview, "y")
    terminal.say(f"A demo: a script plays the model and answers y; all else is real:\n{folder}")
    terminal.say(f"\n> {DEMO_REQUEST}", "bold")
    code = terminal.work(DEMO_REQUEST)
    line = f'{PYTHON} {sys.argv[0]} --cwd {folder} --resume latest "explain greet.py"'
    terminal.say(f"\nWith Ollama, go on there:\n{line}")
    return code


if __name__ == "__main__":
    sys.exit(main())
