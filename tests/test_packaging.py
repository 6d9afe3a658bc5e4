"""What is installed, and what the build files say: everything is there, under the right name."""

import ast
import email
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import tf_pivae
from tf_pivae.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
GIN_FILES = sorted(path.relative_to(ROOT / "gin").as_posix() for path in (ROOT / "gin").rglob("*.gin"))
BUNDLED = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/data/bundled").glob("*.npz"))
FOLDERS = ("benchmarks", "docs", "export", "gin", "tests", "tf_pivae")
ASSETS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/report/assets").iterdir()}
STATISTICS = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tf_pivae/metrics/packaged_statistics/*.[nj]*")}
PRETRAINED = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae/pretrained").rglob("*") if path.is_file()}


# The sdist, the wheel made of it, and an environment with that.


@pytest.fixture
def sdist(package):
    return package.sdist


@pytest.fixture
def wheel(package):
    return package.wheel


@pytest.fixture
def programs(package):
    return package.programs


def test_sdist_has_the_whole_tree(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    source = sdist.parent / "source"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    ours = {name for name in files if name.split("/")[0] in (*FOLDERS, ".ci")}
    assert {"docs/results/fashion_mnist/table_1.json", ".ci/run", "tests/tiny.gin"} <= ours
    assert not ours - names, "add their kind to MANIFEST.in"
    assert {"README.md", "LICENSE", "NOTICE", "CITATION.cff", "Makefile", "constraints.txt"} <= names


def test_wheel_has_every_source_gin_file_and_data_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_pivae").rglob("*.py")}
    kinds = ("**/*.py", "serving/*")
    exports = {f"tf_pivae/{path.relative_to(ROOT).as_posix()}" for k in kinds for path in (ROOT / "export").glob(k)}
    assert "demo.gin" in GIN_FILES
    assert BUNDLED
    assert ASSETS
    assert {"tf_pivae/export/__init__.py", "tf_pivae/export/serving/batching.config"} <= exports
    assert "tf_pivae/pretrained/fashion_mnist/model_card.md" in PRETRAINED
    assert "tf_pivae/metrics/packaged_statistics/checksums.json" in STATISTICS
    data = {*BUNDLED, *ASSETS, *STATISTICS, *PRETRAINED, "tf_pivae/py.typed"}
    expected = sources | exports | data | {f"tf_pivae/gin_files/{name}" for name in GIN_FILES}
    assert expected <= names
    rest = {name for name in names - expected if ".dist-info/" not in name}
    assert not rest, "neither code, configuration nor data"


def test_wheel_has_licence_and_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert texts["NOTICE"] == (ROOT / "NOTICE").read_text()
    metadata = email.message_from_string(texts["METADATA"])
    assert metadata["Name"] == "tf-pivae"
    assert metadata["Version"] == tf_pivae.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "normalizing flow" in metadata["Keywords"]
    assert f"Paper, {re.search('url: (.*)', (ROOT / 'CITATION.cff').read_text())[1]}" in metadata["Project-URL"]
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(metadata.get_all("Classifier")))
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert "tf-pivae = tf_pivae.__main__:main" in texts["entry_points.txt"]


def test_description_is_the_readme_without_links_into_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload(decode=True).decode()
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert all(target.startswith("https://") for target in targets)
    assert "(its model card, `tf_pivae/pretrained/fashion_mnist/model_card.md`" in text
    assert "| `docs/commands.md` |" in text
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if "](" not in line]
    assert lines == [line for line in text.splitlines() if line in lines]


def test_twine_is_content(sdist, wheel):
    command = [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("PASSED") == 2


def _output(folder, *command):
    """What a command prints that runs in `folder`, which is not the clone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # Of tests/mutations.py.
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment).stdout


def test_installed_package_finds_its_own_gin_files_and_export(programs, tmp_path):
    script = (
        "import tf_pivae.configuration, tf_pivae.export\n"
        "print(tf_pivae.export.__file__, *tf_pivae.configuration.search_paths()[1:], sep='\\n')"
    )
    (package,) = programs.parent.glob("lib/*/site-packages/tf_pivae")
    paths = _output(tmp_path, programs / "python", "-c", script).splitlines()
    assert [Path(path) for path in paths] == [package / "export/__init__.py", package / "gin_files"]
    # The folder gin/ would be a package `gin` in front of gin-config's with it.
    assert not (ROOT / "gin/__init__.py").exists()


def test_every_installed_module_can_be_imported(programs, tmp_path):
    """So nothing of them needs a file that is in the clone alone. Programs only read their flags, and are run below."""
    script = (
        "import importlib, pkgutil, tf_pivae\n"
        "for module in pkgutil.walk_packages(tf_pivae.__path__, 'tf_pivae.'):\n"
        "    print(module.name if module.name in COMMANDS else importlib.import_module(module.name).__file__)"
    )
    script = script.replace("COMMANDS", repr({_module(name) for name in COMMANDS} | {"tf_pivae.__main__"}))
    imported = _output(tmp_path, programs / "python", "-c", script).splitlines()
    assert len(imported) > 120
    assert not [path for path in imported if str(ROOT) in path]


def _module(command):
    package = importlib.util.find_spec(f"tf_pivae.{command}").submodule_search_locations
    return f"tf_pivae.{command}" + ".__main__" * (package is not None)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_installed_command_answers(programs, tmp_path, command):
    """tests/documentation/test_commands.py runs them, with this very installation."""
    by_name = _output(tmp_path, programs / "tf-pivae", command, "--help")
    assert f"\ntf-pivae {command}:\n" in by_name
    as_module = _output(tmp_path, programs / "python", "-m", f"tf_pivae.{command}", "--help")
    assert by_name.split(f"\ntf-pivae {command}:\n")[1] == as_module.split(".py:\n", 1)[1]


def test_every_requirement_is_pinned():
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    requirements = re.findall(r'"([\w-]+)(?:\[\w+\])?>=', (ROOT / "setup.py").read_text())
    assert "tensorflow" in requirements
    missing = {name for name in requirements if name not in pins}
    assert not missing


def test_makefile_has_the_targets_that_the_readme_names():
    in_readme = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(in_readme)
    assert set(in_readme) <= set(targets)


# The file BUILD.


def _globbed(node):
    """The files that a call `glob(...)` of the file BUILD gives."""
    lists = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "exclude")]
    # Bazel's "**" at the end is files, too.
    include, *exclude = (
        {path for pattern in ast.literal_eval(patterns) for path in ROOT.glob(re.sub(r"\*\*$", "**/*", pattern))}
        for patterns in lists
    )
    return {path for path in include.difference(*exclude) if path.is_file()}


def test_every_source_file_is_in_a_build_rule():
    tree = ast.parse((ROOT / "BUILD").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "glob"]
    globbed = set().union(*map(_globbed, calls))
    python = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert len(python) > 250
    assert not python - globbed
    assert {ROOT / name for name in (*BUNDLED, *ASSETS, *PRETRAINED, "gin/demo.gin", "tests/tiny.gin")} <= globbed
    mains = {keyword.value.value for keyword in ast.walk(tree) if isinstance(keyword, ast.keyword) and
             keyword.arg == "main" and keyword.value.value.startswith("tf_pivae")}  # fmt: skip
    assert mains == {"tf_pivae/__main__.py"}
