"""`tf-pivae`, the command that runs the others."""

import subprocess
import sys

import pytest

import tf_pivae
from tf_pivae.__main__ import COMMANDS


def run(*arguments):
    command = [sys.executable, "-m", "tf_pivae", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_lists_the_commands_with_a_line_each(arguments):
    result = run(*arguments)
    assert result.returncode == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line.startswith("  ")]
    assert dict(lines) == {name: does.replace("`", "") for name, does in COMMANDS.items()}


def test_version():
    assert run("--version").stdout == f"{tf_pivae.__version__}\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "did you mean train?"),
        ("serve", "did you mean export.serve?"),
        ("--gin_file=demo.gin", "python -m tf_pivae --help lists them."),
    ],
)
def test_an_unknown_command_is_a_mistake(name, hint):
    result = run(name)
    assert result.returncode == 2
    assert result.stderr == f"error: no command {name!r}; {hint}\n"


def test_help_speaks_of_what_was_typed():
    text = run("sample", "--help").stdout
    assert text.startswith("Draws samples from a trained model: python -m tf_pivae sample --run_dir=runs/demo")
    assert "\npython -m tf_pivae sample:\n  --columns: " in text


@pytest.mark.parametrize("name", ["sample", "score", "evaluate", "export", "publish", "reconstruct", "interpolate"])
def test_help_lists_the_flags_that_commands_share(name):
    text = run(name, "--help").stdout
    for flag in ("step", "run_dir", "import"):
        assert f"\n  --{flag}: " in text


@pytest.mark.parametrize("arguments", [["--run_dirr=x"], [], ["x"]])
def test_mistakes_end_as_those_of_the_module_do(arguments):
    by_name = run("sample", *arguments)
    command = [sys.executable, "-m", "tf_pivae.sample", *arguments]
    as_module = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert by_name.returncode == as_module.returncode == 2
    assert by_name.stderr == as_module.stderr
    assert by_name.stderr.startswith("error: ")


def at_the_shell(redirection, *arguments):
    """A command without TensorFlow, whose output goes where the shell says."""
    command = ["bash", "-c", f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}', "-", sys.executable, "-m", "tf_pivae.runs"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("redirection", "arguments", "status", "error"),
    [
        ("| true", [], 141, ""),
        ("| true", ["--help"], 141, ""),
        ("2>&1 | true", ["--no_such_flag"], 2, ""),
        ("> /dev/full", [], 2, "error: cannot use the disk: No space left on device; make room, then run the same "),
        (">&-", [], 0, ""),
        ("2>&-", ["--no_such_flag"], 2, ""),
    ],
)
def test_output_that_nobody_reads_is_no_defect(redirection, arguments, status, error, tmp_path):
    result = at_the_shell(redirection, f"--root={tmp_path}", *arguments)
    assert result.returncode == status
    assert result.stderr.startswith(error)
    assert result.stderr.count("\n") == bool(error)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_list_of_commands_may_have_no_reader(argument):
    command = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", sys.executable, "-m", "tf_pivae", argument]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 141
    assert result.stderr == ""


def test_nothing_heavy_is_imported():
    program = "import sys, tf_pivae.__main__; print({'absl', 'numpy', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_without_tensorflow(name):
    command = [sys.executable, "-X", "importtime", "-m", "tf_pivae", name, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tf_pivae.cli" in imported
    assert not {"tensorflow", "keras"} & imported


def test_a_command_ends_without_a_last_search_for_garbage(tmp_path):
    """Which looks through all that TensorFlow has imported."""
    script = tmp_path / "command.py"
    script.write_text(
        "import sys\nfrom tf_pivae import cli\n\n\n"
        "class Circle:\n    def __init__(self):\n        self.me = self\n\n"
        "    def __del__(self):\n        print('taken apart', file=sys.stderr)\n\n\n"
        "circle = Circle()\nif sys.argv.pop() == 'as a command':\n    cli.run(lambda: print('done'))\n"
    )
    results = {
        how: subprocess.run([sys.executable, script, how], check=True, capture_output=True, text=True)
        for how in ("as a command", "as a program")
    }
    assert results["as a command"].stdout == "done\n"
    assert {how: result.stderr for how, result in results.items()} == {
        "as a command": "",
        "as a program": "taken apart\n",
    }
