"""What the documentation asks its reader to type."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PROGRAMS = r"tf-pivae|python3?|make|pip|kubectl|sbatch|docker|apt-get|tensorboard|curl|cp"


class Block(NamedTuple):
    """A fenced block."""

    page: str  # relative to the root
    info: str  # such as "sh" or "python file=mixing.py"
    text: str


def name(page):
    """The page's path from the root."""
    return page.relative_to(ROOT).as_posix()


def blocks():
    """Every fenced block, in the order of pages and text."""
    results = []
    for page in PAGES:
        for info, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            results.append(Block(name(page), info, text))
    return results


def files():
    """Name -> text of the files that the pages tell the reader to write."""
    matches = [(re.fullmatch(r"\w+ file=(\S+)", block.info), block.text) for block in blocks()]
    return {match[1]: text for match, text in matches if match}


def python_blocks():
    """ "PAGE, python block I" -> program, of the blocks that are not files."""
    results = {}
    counts = {}
    for block in blocks():
        if block.info == "python":
            counts[block.page] = counts.get(block.page, -1) + 1
            number = counts[block.page]
            results[f"{block.page}, python block {number}"] = block.text
    return results


def block_commands():
    """(page, command) of the blocks of shell."""
    return [(block.page, command) for block in blocks() if block.info == "sh" for command in split(block.text)]


def prose(page):
    """The page's text without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_commands():
    """(page, command) of `commands within a text`."""
    results = []
    for page in PAGES:
        for command in re.findall(rf"(?<!`)`((?:[A-Z_]+=\S+\s)?(?:{_PROGRAMS})\s[^`]+)`", prose(page)):
            results.append((name(page), plain(command)))
    return results


def split(text):
    """The commands of a block, one a line, without comments and line ends."""
    lines = text.replace("\\\n", " ").splitlines()
    return [plain(line) for line in lines if plain(line)]


def plain(line):
    """A command without its comment and superfluous spaces."""
    return " ".join(re.sub(r"(^|\s)#.*$", "", line).split())
