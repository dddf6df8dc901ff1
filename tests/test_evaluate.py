"""`tests/evaluate.py`, the measure of the product: two of its tasks with a scripted model."""

import evaluate
import pytest

from program import PROGRAM

FIXED = ".env\n```\nDB_HOST=db.internal\nDB_PORT=5432\nCACHE_HOST=localhost\nDEBUG=0\n```"


@pytest.mark.parametrize("name, replies, verdict, calls", [
    ("env", [FIXED, "<final>It is changed.</final>"], "SOLVED", 2),
    ("version", ["<final>Flask 1.2.3</final>"], "claimed", 1),
    ("median", ["<final>Fixed.</final>"] * 3, "no", 3),
])  # fmt: skip
def test_a_run_is_judged_by_what_it_left_behind_and_counted(server, name, replies, verdict, calls):
    server.script(replies)
    task = evaluate.TASKS[name]
    row = evaluate.run_task(task, name, PROGRAM, server.url, "qwen3.5:4b", timeout=30)
    assert (row["verdict"], row["calls"]) == (verdict, calls), row
    assert row["prompt_tokens"] == sum(g.prompt_tokens for g in server.generations)
    assert row["output_tokens"] > 0 and row["answer"] in replies[-1]
    assert row["solved"] == (verdict == "SOLVED")
