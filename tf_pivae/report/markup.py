"""HTML as nested calls: whatever is not `Html` is escaped."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FLAG = re.compile(r"(?<!\S)(--?\w[\w-]*=?)")  # Browsers break lines behind hyphens.
_LONG = 30  # Characters: more fill a line of a phone.
NUM_COLOURS = 6  # of runs, in the style sheet; the seventh run begins again


class Html(str):
    """Text that is HTML already."""


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """One element.

    Args:
      name: of the element.
      *children: `Html`, or anything else, whose text is escaped; None is left out, lists are flattened.
      **attributes: a trailing underscore is dropped and others become hyphens (`class_`, `aria_label`); True gives the
        bare name, None and False leave it out.
    """
    text = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        text += f" {key}" if value is True else f' {key}="{_escaped(value)}"'
    if name in ("img", "input", "br"):
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Several pieces, one after the other: see `tag`."""
    pieces: list[str] = []
    for child in children:
        if isinstance(child, list | tuple):
            pieces.append(join(child))
        elif child is not None:
            pieces.append(child if isinstance(child, Html) else _escaped(child))
    return Html("".join(pieces))


def _escaped(value: Any) -> str:
    """Its text; what UTF-8 cannot write, such as a folder name's bytes that are not text, becomes a question mark."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def breakable(text: str, everywhere: bool = False) -> Html:
    """Text that may be broken behind the signs that names and paths are made with, so that no word is.

    Args:
      text: what is written.
      everywhere: behind underscores, too, as it is in any case in words that are too long for a line.
    """
    words = re.split(r"(\s+)", text)
    return Html("".join(_breakable_word(word, everywhere or len(word) > _LONG) for word in words))


def _breakable_word(word: str, everywhere: bool) -> str:
    pieces = re.split(r"(?<=[/_])(?=\w)|" * everywhere + r"(?<=/)(?=\w)|(?<=[.,:;=)>-])(?=[^\W\d])", word)
    return "<wbr>".join(_FLAG.sub(r'<span class="flag">\1</span>', _escaped(piece)) for piece in pieces)


def note(text: str) -> Html:
    """A line in place of something that a run does not have."""
    return tag("p", breakable(text), class_="note")


def folded(summary: Any, *children: Any) -> Html:
    """A section that is closed at first: its summary line, and what opens below it."""
    return tag("details", tag("summary", _breakable(summary)), *children)


def table(caption: Any, header: Sequence[Any] | Html, rows: Sequence[Sequence[Any]], class_: str | None = None) -> Html:
    """A table with a caption; the first cell of each row is its heading.

    Args:
      caption: what it shows.
      header: column headings, or the rows of headings as they stand.
      rows: cells, text or `Html`; one that is a `td` already stays as it is.
      class_: of the table.

    Returns:
      `Html`; it scrolls sideways, with the keyboard too, where the page is narrower.
    """
    head = header if isinstance(header, Html) else headings(header)
    body = [tag("tr", tag("th", _breakable(row[0]), scope="row"), [_cell(cell) for cell in row[1:]]) for row in rows]
    # The caption stands outside of the table's own box, which may be wider than the page.
    whole = tag(
        "table", tag("caption", tag("span", _breakable(caption))), tag("thead", head), tag("tbody", body), class_=class_
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {_text(caption)}")


def headings(cells: Sequence[Any], columns: int = 1) -> Html:
    """A row of column headings; each but the first is above so many columns."""
    span = columns if columns > 1 else None
    others = [
        tag("th", _breakable(cell), scope="col" if span is None else "colgroup", colspan=span) for cell in cells[1:]
    ]
    return tag("tr", tag("th", _breakable(cells[0]), scope="col"), others)


def _cell(cell: Any) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", cell)


def _breakable(cell: Any) -> Any:
    return breakable(cell) if type(cell) is str else cell


def _text(cell: Any) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", cell)) if isinstance(cell, Html) else str(cell)


def side_by_side(names: Sequence[str], parts: Sequence[Any]) -> Html:
    """One column for each run under its name; `parts` are `Html` or lists of it, in the order of the runs."""
    single = len(names) == 1
    columns = [
        tag("div", None if single else run_heading(i, name), tag("div", part, class_="parts"), class_="column")
        for i, (name, part) in enumerate(zip(names, parts, strict=True))
    ]
    return tag("div", columns, class_="columns")


def run_heading(index: int, name: str) -> Html:
    """A run's name with its colour."""
    return tag(
        "h3", tag("span", class_=f"swatch {run_class(index)}", aria_hidden="true"), breakable(name, everywhere=True)
    )


def run_class(index: int) -> str:
    """The class that gives an element the colour of a run."""
    return f"run{index % NUM_COLOURS}"


def data_script(identifier: str, value: Any) -> Html:
    """JSON for the page's scripts to read; nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')
