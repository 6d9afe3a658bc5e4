"""docs/commands.md: every command is there, and its exit statuses are those of the program."""

import re
import signal
import subprocess
import sys

import pages
import pytest

from tf_pivae.__main__ import COMMANDS
from tf_pivae.errors import UserError, WorkerLost

PAGE = (pages.ROOT / "docs/commands.md").read_text("utf-8")
STATUSES = {int(status) for status in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}

# What a command's `main` does -> how it ends.
ENDINGS = {
    "pass": 0,
    "raise RuntimeError('a defect')": 1,
    "raise UserError('a mistake')": 2,
    "sys.exit(3)": 3,  # A sweep's, `sweeps.command.SOME_FAILED`.
    "raise WorkerLost('gone')": 75,
    "raise KeyboardInterrupt": 130,
    "raise BrokenPipeError": 141,  # As printing does where nobody reads.
    "os.kill(os.getpid(), signal.SIGHUP)": -signal.SIGHUP,  # 128 + 1 to a shell, as train's own.
    "os.kill(os.getpid(), signal.SIGTERM)": -signal.SIGTERM,  # What a shell calls 128 + 15.
}


def ends(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_every_command_is_in_the_table():
    programs = [*(pages.ROOT / "tf_pivae").rglob("*.py"), *(pages.ROOT / "export").rglob("*.py")]
    results = {path.relative_to(pages.ROOT) for path in programs if "cli.run(main)" in path.read_text("utf-8")}
    names = {path.with_suffix("").as_posix().removeprefix("tf_pivae/").replace("/", ".") for path in results}
    assert {name.removesuffix(".__main__") for name in names} == COMMANDS.keys()
    table = PAGE.split("## Exit status")[0]
    assert re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", table, re.MULTILINE) == list(COMMANDS.items())


def test_every_variable_is_in_the_table():
    programs = [path for folder in ("tf_pivae", "export") for path in (pages.ROOT / folder).rglob("*.py")]
    results = {name for path in programs for name in re.findall(r"\bTF_PIVAE_[A-Z]+\b", path.read_text("utf-8"))}
    table = set(re.findall(r"^\| `(TF_PIVAE_\w+)` \|", PAGE, re.MULTILINE))
    assert results - {"TF_PIVAE_PARENT"} == table  # A command's message to those that it starts, no setting.


def test_the_table_has_every_status():
    assert {status if status >= 0 else 128 - status for status in ENDINGS.values()} == STATUSES
    assert {UserError.exit_status, WorkerLost.exit_status} <= STATUSES


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("what", ENDINGS)
def test_how_a_command_ends(what):
    program = (
        "import os, signal, sys\nfrom tf_pivae import cli\nfrom tf_pivae.errors import UserError, WorkerLost\n"
        f"def main():\n    {what}\ncli.run(main)\n"
    )
    result = ends("-c", program)
    assert result.returncode == ENDINGS[what]
    assert ("Traceback" in result.stderr) == (ENDINGS[what] == 1)
    if ENDINGS[what] in (2, 75):
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr)


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "--helpfull"])
def test_help_is_no_failure(flag):
    result = ends("-m", "tf_pivae.sample", flag)
    assert result.returncode == 0
    assert "--run_dir" in result.stdout


def test_a_misspelt_flag_is_a_mistake():
    result = ends("-m", "tf_pivae.sample", "--run_dirr=x")
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sample"], "give --run_dir: Folder of the run, or a pretrained model's name."),
        (["report"], "give --run_dir: Folder of a run, or a pretrained model; repeat for others."),
        (["sample", "--run_dir=x", "--columns=0"], "flag --columns=0: 0 is not a positive integer."),
        (["sample", "--run_dir=x", "--temperature=nan"], "flag --temperature=nan: expected a finite number."),
        (["sample", "--run_dir=x", "--temperature=3.5e38"], "flag --temperature=3.5e+38: expected a finite number."),
        (["export", "--run_dir=x", "--export_dir="], "flag --export_dir=: expected a value."),
    ],
)
def test_what_is_wrong_with_a_flag(arguments, line):
    command, *rest = arguments
    result = ends("-m", f"tf_pivae.{command}", *rest)
    assert result.returncode == 2
    assert result.stderr == f"error: {line} See --help.\n"


def test_links_lead_somewhere():
    for page in pages.PAGES:
        text = re.sub(r"`[^`]*`", "", pages.prose(page))  # Code, such as a test's name, has no links.
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
