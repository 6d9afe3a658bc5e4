"""What is installed, and what the build files say: everything is there, under the right name."""

import ast
import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GIN_FILES = sorted(path.relative_to(ROOT / "gin").as_posix() for path in (ROOT / "gin").rglob("*.gin"))
BUNDLED = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/data/bundled").glob("*.npz"))
FOLDERS = ("benchmarks", "docs", "export", "gin", "tests", "tf_pivae")  # that have BUILD files
ASSETS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/reports/assets").iterdir()}
PRETRAINED = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/pretrained").rglob("*") if path.is_file()}


# The wheel.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, so that nothing of an earlier build gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in ("tf_pivae", "export", "gin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    try:
        present = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        present = False
    subprocess.run(command + ["--no-build-isolation"] * present, check=True, stdout=sys.stderr)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """The wheel's contents as pip lays them out in site-packages."""
    folder = wheel.parent / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_has_every_source_gin_file_and_data_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae").rglob("*.py")}
    kinds = ("*.py", "serving/*")
    exports = {f"tf_pivae/{path.relative_to(ROOT).as_posix()}" for k in kinds for path in (ROOT / "export").glob(k)}
    assert "demo.gin" in GIN_FILES
    assert BUNDLED
    assert ASSETS
    assert {"tf_pivae/export/__init__.py", "tf_pivae/export/serving/batching.config"} <= exports
    assert "tf_pivae/pretrained/fashion_mnist/model_card.md" in PRETRAINED
    data = set(BUNDLED) | ASSETS | PRETRAINED
    expected = sources | exports | data | {f"tf_pivae/gin_files/{name}" for name in GIN_FILES}
    assert expected <= names
    rest = {name for name in names - expected if ".dist-info/" not in name}
    assert not rest, "neither code, configuration nor data"


def test_wheel_has_licence_and_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert texts["NOTICE"] == (ROOT / "NOTICE").read_text()
    metadata = texts["METADATA"].splitlines()
    assert "Name: tf-pivae" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata
    import tf_pivae

    assert f"Version: {tf_pivae.__version__}" in metadata


def test_installed_package_finds_its_own_gin_files_and_export(installed, tmp_path):
    script = (
        "import tf_pivae.configuration, tf_pivae.export\n"
        "print(tf_pivae.export.__file__, *tf_pivae.configuration.search_paths()[1:], sep='\\n')"
    )
    environment = dict(os.environ, PYTHONPATH=str(installed))
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert [Path(line) for line in output] == [
        installed / "tf_pivae/export/__init__.py",
        installed / "tf_pivae/gin_files",
    ]
    # The folder gin/ would be a package `gin` in front of gin-config's with it.
    assert not (ROOT / "gin/__init__.py").exists()


def test_every_requirement_is_pinned():
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    requirements = re.findall(r'"([\w-]+)(?:\[\w+\])?>=', (ROOT / "setup.py").read_text())
    assert "tensorflow" in requirements
    missing = {name for name in requirements if name not in pins}
    assert not missing


def test_makefile_has_the_targets_that_the_readme_names():
    named = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    assert set(named) <= set(targets)


# BUILD files. Starlark is close enough to Python for Python to read them.


class Rules:
    """The py_library, py_binary and py_test rules of all BUILD files: label -> (kind, source files, labels of deps)."""

    def __init__(self):
        self.rules = {}
        for file in sorted(ROOT.rglob("BUILD")):
            folder = file.parent.relative_to(ROOT)
            if file.is_file() and folder.parts[:1] in [(), *((name,) for name in FOLDERS)]:
                self._read(file, folder.as_posix().removeprefix("."))

    def _read(self, file, package):
        def glob(include, exclude=(), **_):
            # Like Bazel's: not into folders that have a BUILD file of their own.
            found = []
            for pattern in include:
                for path in sorted(file.parent.glob(pattern)):
                    if not any((parent / "BUILD").is_file() for parent in path.relative_to(file.parent).parents[:-1]):
                        found.append(path.relative_to(file.parent).as_posix())
            return [name for name in found if not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)]

        def rule(kind):
            def add(name, srcs=(), deps=(), **_):
                sources = [source for source in srcs if not source.startswith("//")]
                for source in sources:
                    assert (file.parent / source).is_file(), f"{file}: no file {source}"
                files = {(file.parent / source).relative_to(ROOT).as_posix() for source in sources}
                self.rules[f"//{package}:{name}"] = kind, files, [self._label(dep, package) for dep in deps]

            return add

        kinds = ("py_library", "py_binary", "py_test", "filegroup", "genrule")
        ignored = ("package", "licenses", "exports_files")
        names = {kind: rule(kind) for kind in kinds} | dict.fromkeys(ignored, lambda *args, **named: None)
        names["glob"] = glob

        def load(label, *symbols):
            loaded = {"native": types.SimpleNamespace(**names)}
            path = ROOT / label.removeprefix("//").replace(":", "/")
            exec(compile(path.read_text(), str(path), "exec"), loaded)
            scope.update({symbol: loaded[symbol] for symbol in symbols})

        scope = names | {"load": load}
        exec(compile(file.read_text(), str(file), "exec"), scope)

    @staticmethod
    def _label(label, package):
        if label.startswith(":"):
            return f"//{package}{label}"
        return label if ":" in label else f"{label}:{label.rsplit('/', 1)[-1].removeprefix('//')}"

    def files(self, *kinds):
        return {file for kind, files, _ in self.rules.values() if kind in kinds for file in files}

    def reach(self, label):
        """All source files of a rule and of what it depends on, directly or not."""
        seen, waiting = set(), [label]
        while waiting:
            label = waiting.pop()
            if label not in seen:
                assert label in self.rules, f"no rule {label}"
                seen.add(label)
                waiting += self.rules[label][2]
        return {file for label in seen for file in self.rules[label][1]}


@pytest.fixture(scope="module")
def rules():
    return Rules()


def _python_files(*folders):
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}


def test_every_source_file_is_in_a_build_rule(rules):
    missing = _python_files("benchmarks", "tf_pivae", "export") - rules.files("py_library", "py_binary")
    assert not missing, "add them to the BUILD file of their folder"


def test_every_test_file_has_its_py_test(rules):
    files = _python_files("tests")
    tests = {file for file in files if Path(file).name.startswith("test_")}
    assert tests, "no tests found"
    assert tests == rules.files("py_test"), "each folder of tests needs a BUILD file: copy a neighbour's"
    assert files - tests <= rules.files("py_library")


def test_every_command_has_its_py_binary(rules):
    commands = {file for file in _python_files("tf_pivae", "export") if "cli.run(main)" in (ROOT / file).read_text()}
    assert {"tf_pivae/train.py", "export/__main__.py"} <= commands
    assert commands == rules.files("py_binary")


def test_every_import_is_covered_by_a_dependency(rules):
    """Imports at the top of a module; those inside a function may point against the stream."""
    missing = []
    for label, (_, files, _) in rules.rules.items():
        reach = None
        for file in files:
            if not file.startswith(("tf_pivae/", "export/")) or not file.endswith(".py"):
                continue
            reach = rules.reach(label) if reach is None else reach
            missing += [f"{label}: {file} imports {name}" for name in _imports(file) if name not in reach]
    assert not missing, "add to the deps of its BUILD file"


def _imports(file):
    """The project's files that a module imports when it is itself imported."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [(alias.name, "") for alias in node.names]
        else:
            continue
        for module, name in modules:
            if module.split(".")[0] != "tf_pivae":
                continue
            path = re.sub(r"^tf_pivae/export", "export", module.replace(".", "/"))
            candidates = [f"{path}/{name}", path] if name else [path]
            places = [f"{candidate}{ending}" for candidate in candidates for ending in (".py", "/__init__.py")]
            found = [place for place in places if (ROOT / place).is_file()]
            assert found, f"{file}: no module {module}"
            yield found[0]
