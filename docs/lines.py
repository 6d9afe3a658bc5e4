"""Prints the lines of Python, folder by folder: python docs/lines.py, or python docs/lines.py REVISION of git.

Two numbers: all lines, and those that are neither blank nor of a comment or docstring.
"""

import ast
import collections
import io
import posixpath
import subprocess
import sys
import tokenize
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


_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(text: str) -> int:
    """The number of lines of a source that are neither blank nor of a comment or docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {i for t in tokens if t.type not in _NO_CODE for i in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # A docstring.
            lines -= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(lines)


def main() -> None:
    """The command."""
    lines: collections.Counter[str] = collections.Counter()
    code: collections.Counter[str] = collections.Counter()
    for file, text in sources(*sys.argv[1:2] or [None]).items():
        lines[posixpath.dirname(file)] += text.count("\n")
        code[posixpath.dirname(file)] += code_lines(text)
    for folder, count in sorted(lines.items()):
        print(f"{count:6} {code[folder]:6}  {folder}/")
    print(f"{lines.total():6} {code.total():6}  together")


if __name__ == "__main__":
    main()
