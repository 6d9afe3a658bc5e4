"""HTML as nested calls: whatever is not `Html` is escaped."""

import html
import json


class Html(str):
    """Text that is HTML already."""


def tag(name, *children, **attributes):
    """One element.

    Args:
      name: of the element.
      *children: `Html`, or anything else, whose text is escaped; None is left out, lists are flattened.
      **attributes: a trailing underscore is dropped and others become hyphens (`class_`, `aria_label`); True gives the
        bare name, None and False leave it out.

    Returns:
      `Html`.
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if name in ("img", "input", "br"):
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children):
    """Several pieces, one after the other: see `tag`."""
    pieces = []
    for child in children:
        if isinstance(child, list | tuple):
            pieces.append(join(child))
        elif child is not None:
            pieces.append(child if isinstance(child, Html) else html.escape(str(child)))
    return Html("".join(pieces))


def note(text):
    """A line in place of something that a run does not have."""
    return tag("p", text, class_="note")


def table(caption, header, rows, class_=None):
    """A table with a caption; the first cell of each row is its heading.

    Args:
      caption: what it shows.
      header: list of column headings.
      rows: list of lists of cells, text or `Html`.
      class_: of the table.

    Returns:
      `Html`; it scrolls sideways, with the keyboard too, where the page is narrower.
    """
    head = tag("tr", [tag("th", cell, scope="col") for cell in header])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {caption}")


def side_by_side(runs, parts):
    """One column for each run under its name; `parts` are `Html` or lists of it, in the order of the runs."""
    single = len(runs) == 1
    columns = [
        tag("div", None if single else run_heading(i, run.name), part, class_="column")
        for i, (run, part) in enumerate(zip(runs, parts, strict=True))
    ]
    return tag("div", columns, class_="columns")


def run_heading(index, name):
    """A run's name with its colour."""
    return tag("h3", tag("span", class_=f"swatch run{index % 6}", aria_hidden="true"), name)


def data_script(identifier, value):
    """JSON for the page's scripts to read; nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')
