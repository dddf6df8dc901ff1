"""The documents: what they name is there, and what is there is named."""

import os
import re

import pytest

import mini_coding_agent as mca
from conftest import write_files
from program import PROGRAM, ROOT

README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "EXAMPLE.md")}
SOURCE = PROGRAM.read_text("utf-8").splitlines()


def rows(head):
    """The cells of the table whose first row begins with these cells."""
    table = README.partition(f"\n| {head}")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]


def test_the_readme_lists_the_flags_with_the_defaults_that_there_are():
    actions = {flag: a for a in mca.build_arg_parser()._actions for flag in a.option_strings}
    told = {flag: row for row in rows("flag |") for flag in re.findall(r"`(--?[a-z-]+)", row[0])}
    assert told.keys() == actions.keys()
    wrong = [(flag, row[1]) for flag, row in told.items() if re.fullmatch("`.+`", row[1])
             and row[1].strip("`") != str(actions[flag].default)]  # fmt: skip
    assert wrong == [] and all(action.help for action in actions.values())


def test_the_readme_lists_the_commands_that_help_lists(agent):
    text = agent([], stdin="/help\n").err.rpartition("/help helps")[2]
    shown = set(re.findall(r"(?<!\S)/[a-z]+", text))
    told = {name for row in rows("command |") for name in re.findall(r"`(/[a-z]+)", row[0])}
    assert told == shown | {"/help"}


@pytest.mark.parametrize("text", [README, mca.build_arg_parser().format_help()], ids=["", "help"])
def test_each_exit_code_is_named(text):
    told = re.search(r"(?is)exit\s+codes:(.{,300})", text)
    assert told and {*mca.EXIT_CODES.values(), 2} <= {*map(int, re.findall(r"\d+", told[1]))}


def test_each_path_of_this_repository_in_the_documents_exists():
    text = "\n".join(DOCUMENTS.values())
    paths = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    paths += re.findall(r"(?<![\w/.-])((?:tests|\.ci|\.github)/[\w./-]*\w)", text)
    assert len(paths) > 5 and [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_says_on_which_line_each_chapter_begins():
    found = []
    for title, _, where in rows("part |"):
        number, line = re.fullmatch(r"\[(\d+)\]\(mini_coding_agent\.py#L(\d+)\)", where).groups()  # type: ignore[union-attr]
        assert number == line, where
        begins = rf"# -- {re.escape(title)}\b"
        assert re.match(begins, SOURCE[int(line) - 1]), (title, where, SOURCE[int(line) - 1])
        found.append(int(line))
    chapters = [number for number, line in enumerate(SOURCE, 1) if line.startswith("# -- ")]
    assert set(chapters) <= set(found) and found == sorted(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_figure_is_still_to_be_filled_in(name):
    assert re.findall(r"MEASURED\w*|TODO|FIXME|XXX", DOCUMENTS[name]) == []


def test_the_example_is_what_the_program_makes_of_the_recorded_replies(run_here, server, tmp_path):
    text = DOCUMENTS["EXAMPLE.md"]
    blocks = re.findall(r"(?ms)^~~~~ (\S+)\n(.*?)^~~~~$", text)
    folder = write_files(tmp_path / "weather", {k: v for k, v in blocks if k != "reply"})
    for file in folder.iterdir():
        os.utime(file, (10**9, 10**9))  # or Python takes the changed file for the compiled one
    server.script([text for name, text in blocks if name == "reply"])
    session = text.partition("```console\n$ ")[2].partition("```")[0]
    request = re.search(r'"(.*)"\n', session)[1]
    flags = ("--cwd", folder, "--host", server.url)
    done = run_here(*flags, stdin=f"{request}\n" + "y\n" * session.count("Allow?"))
    assert done.code == 0 and "The tests now pass." in done.out
    marks = r"[*@+-]|\w+:$|To judge|Allow"
    told = [line for line in session.splitlines()[1:] if re.match(marks, line)]
    shown, at = done.err.splitlines(), 0
    for line in told:
        at = shown.index(line, at) + 1
    assert len(told) > 12 and "ran python3 -m unittest: exit code 0" in " ".join(done.err.split())
