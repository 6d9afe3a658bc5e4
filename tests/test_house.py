"""The plan of the house: every import points to a floor below (or stays in its room), and no modules form a circle."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DRAWING = re.search(r"```text\n(.*?)```", (ROOT / "docs/design.md").read_text("utf-8"), re.DOTALL)[1]
# Room -> floor; 0 is the uppermost.
FLOORS = {room: i for i, line in enumerate(DRAWING.splitlines()) for room in re.split(r" {2,}", line)[0].split()}
# Modules that stand in no folder, or in another room than their folder's.
ROOMS = {
    **{f"tf_pivae{name}": "commands" for name in ("", ".export", ".export.ray_serve")},
    **{f"tf_pivae.{name}": name for name in ("cli", "loading", "noise")},
}


def _modules():
    """Name -> file of every module."""
    results = {}
    for folder, package in (("tf_pivae", "tf_pivae"), ("export", "tf_pivae.export")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            results[".".join([package, *parts]).removesuffix(".__init__")] = path
    return results


MODULES = _modules()


def room(module):
    """Where a module stands."""
    if module in ROOMS:
        return ROOMS[module]
    if re.search(r"^if __name__ == ", MODULES[module].read_text("utf-8"), re.MULTILINE):
        return "commands"
    parts = module.split(".")[1:]
    if MODULES[module].name != "__init__.py":
        parts.pop()
    if parts[:1] == ["export"]:
        return ".".join(parts[:2])
    return parts[0] if parts else "ground"


def imports(tree):
    """The modules of the package that a syntax tree imports: at its top, in functions, and for the checker of types."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in within]
        yield from (name for name in names if name in MODULES)


ARROWS = {name: sorted({*imports(ast.parse(path.read_text("utf-8")))} - {name}) for name, path in MODULES.items()}


def upward(arrows):
    """The arrows that do not lead to a floor below, from one room to another."""
    pairs = [(above, below) for above, imported in arrows.items() for below in imported if room(above) != room(below)]
    return [f"{above} -> {below}" for above, below in pairs if FLOORS[room(above)] >= FLOORS[room(below)]]


def circles(arrows):
    """The modules that are left when those that import nothing that is left are taken away again and again."""
    left = set(arrows)
    while free := {name for name in left if not left & set(arrows[name])}:
        left -= free
    return left


def test_every_module_has_a_room():
    assert {room(name) for name in MODULES} == set(FLOORS)


def test_arrows_point_downwards():
    assert sum(map(len, ARROWS.values())) > 400
    assert not upward(ARROWS)


def test_no_circles():
    assert not circles(ARROWS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tf_pivae.models.pivae", "from tf_pivae.training import losses"),
        ("tf_pivae.data.arrays", "def f():\n    from tf_pivae.models.pivae import PiVAE"),
        ("tf_pivae.report.page", "import tf_pivae.train.__main__"),
        ("tf_pivae.evaluate.measuring", "from tf_pivae.publish import folder"),
    ],
)
def test_an_arrow_upwards_is_seen(name, text):
    assert upward({name: [*imports(ast.parse(text))]})


def test_a_circle_is_seen():
    back = ARROWS | {"tf_pivae.runs.directory": ["tf_pivae.runs.records"], "tf_pivae.runs.records": ["tf_pivae.runs.directory"]}  # fmt: skip # noqa: E501
    assert {"tf_pivae.runs.directory", "tf_pivae.runs.records"} <= circles(back)


def test_lines_are_counted_folder_by_folder():
    command = [sys.executable, str(ROOT / "docs/lines.py")]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    counts = dict(reversed(line.split(maxsplit=1)) for line in out)
    bijectors = [path.read_text("utf-8") for path in (ROOT / "tf_pivae/bijectors").glob("*.py")]
    assert int(counts.pop("tf_pivae/bijectors/")) == sum(len(text.splitlines()) for text in bijectors)
    together = int(counts.pop("together"))
    assert together == sum(len(path.read_text("utf-8").splitlines()) for path in MODULES.values())


def joined(tree):
    """Assignments that put one tuple of values into one of names, where each could have a line of its own."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Tuple)
            and isinstance(node.targets[0], ast.Tuple)
        ):
            yield ast.unparse(node)


def test_one_assignment_a_line():
    assert not {
        name: lines for name, path in MODULES.items() if (lines := [*joined(ast.parse(path.read_text("utf-8")))])
    }
    assert [*joined(ast.parse("a, b = 1, 2\nc, d = e\nself.f, self.g = f, g"))] == [
        "a, b = (1, 2)",
        "self.f, self.g = (f, g)",
    ]


def unended(tree):
    """Messages of a `UserError` that end in a word: each is a sentence, however commands put it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError":
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args
            if isinstance(parts[-1], ast.Constant) and not parts[-1].value.endswith((".", "?")):
                yield parts[-1].value


def test_messages_end_alike():
    assert not {
        name: texts for name, path in MODULES.items() if (texts := [*unended(ast.parse(path.read_text("utf-8")))])
    }
    texts = (
        "raise UserError('a.')\nraise UserError(f'{b}?')\nraise UserError(f'{c} is not')\nraise UserError('d' f'{e}')"
    )
    assert [*unended(ast.parse(texts))] == [" is not"]
