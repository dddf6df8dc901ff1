"""A small VT100 emulation: what a person sees of the output of a program."""

from __future__ import annotations

import re
import unicodedata

TOKEN = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\].*?(?:\x07|\x1b\\)|\x1b[()#].|\x1b(?P<escape>[^\[\]()#])"
    r"|(?P<text>[^\x1b\x00-\x1f\x7f]+)|(?P<control>\r\n|[\x00-\x1a\x1c-\x1f\x7f])",
    re.DOTALL,
)


class Screen:
    """What a VT100 shows of the text fed to it, and that text without its escape sequences."""

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols, self.row, self.col = rows, cols, 0, 0
        self.lines: list[list[str]] = [[]]  # cells; a wide character is followed by an empty one
        self.history: list[list[str]] = []  # what has scrolled off
        self.modes: set[str] = set()  # private modes that are on, e.g. "2004"
        self.plain, self._rest, self._saved = "", "", (0, 0)

    def feed(self, text: str) -> None:
        text, self._rest, at = self._rest + text, "", 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None or (found["control"] == "\r" and found.end() == len(text)):
                self._rest = text[at:]  # the rest of an escape or of \r\n is still to come
                return
            self._token(found)
            at = found.end()

    def _token(self, found: re.Match[str]) -> None:
        if found["text"]:
            self.plain += found["text"]
            for char in found["text"]:
                self._put(char)
        elif found["control"]:
            self.plain += "\n" if found["control"] == "\r\n" else found["control"]
            for control in found["control"]:
                self._control(control)
        elif found["final"]:
            self._sequence(found["final"], found["args"])
        elif found["escape"] == "7":
            self._saved = (self.row, self.col)
        elif found["escape"] == "8":
            self.row, self.col = self._saved

    def _put(self, char: str) -> None:
        if unicodedata.category(char) in ("Mn", "Me", "Cf"):
            return
        width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if self.col + width > self.cols:
            self._control("\r")
            self._control("\n")
        line = self.lines[self.row]
        line.extend(" " * (self.col + width - len(line)))
        line[self.col : self.col + width] = [char, ""][:width]
        self.col += width

    def _control(self, control: str) -> None:
        if control == "\r":
            self.col = 0
        elif control == "\b":
            self.col = max(0, min(self.col, self.cols - 1) - 1)
        elif control == "\t":
            self.col = min(self.cols - 1, self.col // 8 * 8 + 8)
        elif control == "\n":
            self.row += 1
            self._fit()

    def _fit(self) -> None:
        """Scroll until the cursor's row is on the screen; add the rows that it needs."""
        while self.row >= self.rows:
            self.history.append(self.lines.pop(0))
            self.row -= 1
        self.lines.extend([] for _ in range(self.row + 1 - len(self.lines)))

    def _sequence(self, final: str, args: str) -> None:
        if final in "hl" and args.startswith("?"):
            (self.modes.update if final == "h" else self.modes.difference_update)(
                args[1:].split(";")
            )
            return
        numbers = [int(part) if part.isdigit() else 0 for part in args.split(";")]
        first = numbers[0]
        count, line = first or 1, self.lines[self.row]
        if final in "ABCDEFGHfd":
            self._move(final, count, (numbers[1] if len(numbers) > 1 else 0) or 1)
        elif final == "K":
            self._erase(line, first)
        elif final == "J":
            whole = self.lines[self.row + 1 :] if first == 0 else self.lines[: self.row]
            for other in self.lines if first >= 2 else whole:
                other.clear()
            self._erase(line, min(first, 2))
        elif final == "P":
            del line[self.col : self.col + count]
        elif final == "@":
            line[self.col : self.col] = " " * count
        elif final == "X":
            line[self.col : self.col + count] = " " * min(count, max(0, len(line) - self.col))

    def _move(self, final: str, count: int, column: int) -> None:
        step = -count if final in "ADF" else count
        if final in "ABEF":
            self.row += step
        elif final in "CD":
            self.col = min(self.col, self.cols - 1) + step
        elif final in "Hfd":
            self.row = count - 1
        if final in "EFGHf":
            self.col = {"G": count, "H": column, "f": column}.get(final, 1) - 1
        self.col = max(0, min(self.col, self.cols - 1))
        self.row = max(0, min(self.row, self.rows - 1))
        self._fit()

    def _erase(self, line: list[str], part: int) -> None:
        """Part 0 is from the cursor on, 1 up to it, 2 the whole line."""
        if part == 1:
            line[: self.col + 1] = " " * min(self.col + 1, len(line))
        else:
            del line[0 if part == 2 else self.col :]

    def resize(self, rows: int, cols: int) -> None:
        self.rows, self.cols, self.col = rows, cols, min(self.col, cols)
        self._fit()

    def text(self, history: bool = False) -> str:
        lines = [*(self.history if history else []), *self.lines]
        return "\n".join("".join(line[: self.cols]).rstrip() for line in lines).rstrip("\n")
