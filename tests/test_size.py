"""The ceilings that keep the program a text to read in one sitting."""

import ast

import pytest

from program import PROGRAM, ROOT

LINES = PROGRAM.read_text("utf-8").splitlines()


@pytest.mark.parametrize("what, limit, size", [
    ("lines of the program", 1700, len(LINES)), ("columns of a line", 100, max(map(len, LINES))),
    ("lines of a function", 40, max((node.end_lineno or 0) - node.lineno + 1 for node in ast.walk(ast.parse("\n".join(LINES))) if isinstance(node, ast.FunctionDef))),
    ("lines of the tests", 4000, sum(len(file.read_text("utf-8").splitlines()) for file in ROOT.glob("tests/*.py"))),
])  # fmt: skip
def test_nothing_outgrows_its_limit(what, limit, size):
    assert size <= limit, what
