"""Text as rows, each value with its place, so that an error can say FILE:LINE:COLUMN. Pure.

CSV (or with ";" or tabs) with a header, JSON lines, or JSON arrays of objects. Errors: WorkloadError.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lifecycle.simulation.spec import WorkloadError

IsValue = Callable[[str], bool]

DELIMITERS = ",;\t"
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Row:
    """line: its number, from 1. text: that line, or of JSON what the object was read from. column: where that begins."""

    values: Mapping[str, Any]
    line: int
    text: str
    column: int = 1
    delimiter: str = ""

    def place(self, name: str) -> int:
        """Column of a value, from 1; of the row itself where it has no such value."""
        if self.delimiter:
            starts = _starts(self.text, self.delimiter)
            return dict(zip(self.values, starts, strict=False)).get(name, 1)
        found = re.search(rf'"{re.escape(name)}"\s*:\s*', self.text)
        return self.column + (found.end() if found else 0)


@dataclass(frozen=True, slots=True)
class Table:
    """file: its name, for errors. columns: as the header says; of JSON, those that its first row has."""

    file: str
    columns: Sequence[str]
    rows: Sequence[Row]

    def error(self, row: Row, name: str, what: str) -> WorkloadError:
        return WorkloadError(f"{self.file}:{row.line}:{row.place(name)}: {what}")


def table(file: str, text: str, alone: str = "", is_value: IsValue = lambda _: False) -> Table:
    """A file's rows; empty lines and those that begin with # are none. alone, is_value: a file without a header whose
    first cell is a value has this one column. Raises WorkloadError."""
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise WorkloadError(f"{file}:1:1: there is nothing in it; it needs a header and rows")
    if text.lstrip()[0] in "{[":
        found = list(objects(file, text))
        return Table(file, list(found[0].values) if found else [], found)
    return _csv(file, text, alone, is_value)


def objects(file: str, text: str) -> Iterator[Row]:
    """The objects of JSON lines, or of arrays. Raises WorkloadError."""
    text = text.removeprefix("\ufeff")
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at = line = counted = 0
    inside = False
    while (at := _after_space(text, at)) < len(text):
        if (
            text[at] == "[]"[inside]
        ):  # arrays may stand behind each other: several answers in one file
            inside, at = not inside, at + 1
            continue
        line, counted = line + text.count("\n", counted, at), at
        row, at = _object(decoder, file, text, at, line + 1)
        yield row
    if inside:
        last = text.count("\n") + 1
        raise WorkloadError(f"{file}:{last}:1: the array has no end; was all of it written?")


def _object(decoder: json.JSONDecoder, file: str, text: str, at: int, line: int) -> tuple[Row, int]:
    """The object that begins there, and where it ends."""
    column = at - text.rfind("\n", 0, at)
    try:
        value, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise WorkloadError(
            f"{file}:{error.lineno}:{error.colno}: it is no JSON ({error.msg.lower()});"
            " correct it or take the row out"
        ) from None
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{file}:{line}:{column}: {error}; take the row out") from None
    if not isinstance(value, dict):
        raise WorkloadError(
            f"{file}:{line}:{column}: a row must be an object, as in"
            ' {"at": "2026-11-23T09:00:00Z", "seconds": 1800}'
        )
    return Row(value, line, text[at:end], column), end


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _csv(file: str, text: str, alone: str, is_value: IsValue) -> Table:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise WorkloadError(
            f"{file}:1:1: there are only comments in it; it needs a header and rows"
        )
    first, header = lines[0]
    delimiter = max(DELIMITERS, key=header.count)
    names = [name.strip().lower() for name in _cells(file, first, header, delimiter)]
    if alone and len(names) == 1 and is_value(names[0]):
        names = [alone]
    else:
        lines = lines[1:]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise WorkloadError(f"{file}:{first}:1: two columns are named {twice[0]}; rename one")
    rows = [_row(file, number, line, names, delimiter) for number, line in lines]
    return Table(file, names, rows)


def _row(file: str, number: int, line: str, names: list[str], delimiter: str) -> Row:
    cells = _cells(file, number, line, delimiter)
    if len(cells) != len(names):
        raise WorkloadError(
            f"{file}:{number}:{len(line) + 1}: {len(cells)} values, but {len(names)} columns;"
            " complete the row or take it out"
        )
    values = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    return Row(values, number, line, 1, delimiter)


def _cells(file: str, number: int, line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    starts = [*_starts(line, delimiter), len(line) + 2]
    cells = [line[a - 1 : b - 2] for a, b in itertools.pairwise(starts)]
    for cell, start in zip(cells, starts, strict=False):
        if cell.lstrip().startswith('"') and not re.fullmatch(r'\s*"(?:[^"]|"")*"\s*', cell):
            raise WorkloadError(
                f"{file}:{number}:{start}: a quotation mark is not closed; close it"
            )
    return [
        cell.strip()[1:-1].replace('""', '"') if cell.lstrip().startswith('"') else cell
        for cell in cells
    ]


def _starts(line: str, delimiter: str) -> list[int]:
    """Columns at which cells begin; a delimiter between quotation marks is none."""
    starts, quoted = [1], False
    for place, letter in enumerate(line, 1):
        quoted ^= letter == '"'
        if letter == delimiter and not quoted:
            starts.append(place + 1)
    return starts
