"""The plan of the house: every import points to a floor below (or stays in its room), and no modules form a circle."""

import ast
import re
import runpy
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
    counts = {folder: (int(lines), int(code)) for lines, code, folder in map(str.split, out)}
    bijectors = [path.read_text("utf-8") for path in (ROOT / "tf_pivae/bijectors").glob("*.py")]
    assert counts["tf_pivae/bijectors/"][0] == sum(len(text.splitlines()) for text in bijectors)
    assert counts["together"][0] == sum(len(path.read_text("utf-8").splitlines()) for path in MODULES.values())
    assert all(0 < code <= lines for lines, code in counts.values())


def test_lines_of_code_are_neither_blank_nor_prose():
    text = '"""A.\n\nB."""\n\n# c\ndef f(\n    a,\n):\n    """D."""\n    b = """e\n\n    f"""  # g\n    return b\n'
    assert runpy.run_path(str(ROOT / "docs/lines.py"))["code_lines"](text) == 7


TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8"))
    for path in [*MODULES.values(), *(file for name in ("benchmarks", "tests") for file in (ROOT / name).rglob("*.py"))]
}


def joined(tree):
    """Assignments of several values, where each could have a line of its own; a function's result may be unpacked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            values = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            tuples = any(isinstance(value, ast.Tuple) for value in values)
            if len(node.targets) > 1 or (tuples and isinstance(node.targets[0], ast.Tuple)):
                yield ast.unparse(node)


def test_one_assignment_a_line():
    assert not {name: lines for name, tree in TREES.items() if (lines := [*joined(tree)])}


@pytest.mark.parametrize(
    "text",
    [
        "a, b = (1, 2)",
        "self.a, self.b = (a, b)",
        "a = b = 1",
        "a, b = (1, 2) if c else (3, 4)",
        "a, b = c if d else (3, 4)",
    ],
)
def test_two_assignments_in_a_line_are_seen(text):
    assert [*joined(ast.parse(text))] == [text]


def test_the_result_of_a_function_may_be_unpacked():
    assert not [*joined(ast.parse("a, b = c()\nd, *e = (f for f in g)\nh = 1, 2\ni, j = k if l else m"))]


EMPTY_NAMES = {"found", "shown", "kept", "known", "told", "said"}


def empty_names(tree):
    """Variables, parameters, functions and classes whose name does not say what they are."""
    for node in ast.walk(tree):
        name = None
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name) | ast.arg(name):
                pass
            case ast.Name(name, ast.Store()) | ast.Attribute(_, name, ast.Store()):
                pass
            case ast.MatchAs(_, name) | ast.MatchStar(name):
                pass
        if name and name.strip("_").lower() in EMPTY_NAMES:
            yield name


def test_names_say_what_a_thing_is():
    assert not {file: names for file, tree in TREES.items() if (names := [*empty_names(tree)])}


@pytest.mark.parametrize(
    "text",
    ["{} = 1", "_{}: int = 1", "self.{} = 1", "for {}, a in b: pass", "def _{}(): pass", "class {}: pass",
     "def a(*, {}): pass", "if ({} := 1): pass", "a = lambda {}: 1", "match a:\n    case [{}]: pass"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["found", "Shown", "KNOWN"])
def test_an_empty_name_is_seen(text, name):
    assert len([*empty_names(ast.parse(text.format(name)))]) == 1
    assert not [*empty_names(ast.parse(text.format(f"num_{name}")))]


_WITH_MESSAGES = ("UserError", "WorkerLost", "ServingError", "RequestError", "ValueError", "invalid")  # At the end.
_IN_BRACKETS = {  # Why a file cannot be read, as the one who reports it says in brackets after the file's name.
    "nested too deeply", " is not JSON", "it is not a regular file", "it is packed", "not a zip archive",
    " is not a SavedModel", " holds no graph", " is damaged",
}  # fmt: skip


def unended(tree):
    """Messages for users that end in a word: each is a sentence, however commands and servers put it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _WITH_MESSAGES:
            end = node.args[-1]
            while isinstance(end, (ast.JoinedStr, ast.BinOp)):
                end = end.values[-1] if isinstance(end, ast.JoinedStr) else end.right
            if isinstance(end, ast.Constant) and not end.value.endswith((".", "?")) and end.value not in _IN_BRACKETS:
                yield end.value


def test_messages_end_alike():
    assert not {
        name: texts for name, path in MODULES.items() if (texts := [*unended(ast.parse(path.read_text("utf-8")))])
    }
    texts = (
        "raise UserError('a.')\nraise UserError(f'{b}?')\nraise UserError(f'{c} is not')\nraise UserError('d' f'{e}')\n"
        "raise invalid(a + f'{b} is.')\nraise ValueError(f'{b} is not JSON')\nraise ValueError('not so')\n"
        "raise ServingError('CODE', url, 'a ' + f'{b} no')"
    )
    assert [*unended(ast.parse(texts))] == [" is not", "not so", " no"]


def test_lines_of_an_error_are_taken_in_one_place():
    cut = re.compile(r"\bstr\(\w*error\)(\.strip\(\))?\.(splitlines\(|(r?partition|r?split)\([\"']\\n)")
    assert {name for name, path in MODULES.items() if cut.search(path.read_text("utf-8"))} == {"tf_pivae.errors"}
