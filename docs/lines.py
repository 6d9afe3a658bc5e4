"""Prints the lines of Python, folder by folder: python docs/lines.py, or python docs/lines.py REVISION of git."""

import collections
import posixpath
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tf_pivae", "export")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def sources(revision: str | None) -> dict[str, str]:
    """File -> text of every Python file of the package, of a revision or as it lies here."""
    if revision is None:
        files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
        return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in files}
    names = _git("ls-tree", "-r", "--name-only", revision, *FOLDERS).splitlines()
    return {name: _git("show", f"{revision}:{name}") for name in names if name.endswith(".py")}


def main() -> None:
    """The command."""
    lines: collections.Counter[str] = collections.Counter()
    for file, text in sources(*sys.argv[1:2] or [None]).items():
        lines[posixpath.dirname(file)] += text.count("\n")
    for folder, count in sorted(lines.items()):
        print(f"{count:6}  {folder}/")
    print(f"{sum(lines.values()):6}  together")


if __name__ == "__main__":
    main()
