"""Every command and program of the documentation is run, or is listed in `commands` with the reason why not."""

import importlib.util
import os
import re
import shlex
import subprocess
from pathlib import Path

import commands
import forking
import numpy as np
import pages
import pytest
from PIL import Image

BLOCKS = pages.block_commands()
# A bare `python -m MODULE` or `tf-pivae NAME` speaks of a program; it is no command to type.
MENTIONS = [(page, c) for page, c in pages.inline_commands() if re.fullmatch(r"(python -m|tf-pivae) [\w.]+", c)]
COMMANDS = [*BLOCKS, *(pair for pair in pages.inline_commands() if pair not in MENTIONS)]
PROGRAMS = {
    key: text for key, text in pages.python_blocks().items() if key.split(",")[0] not in commands.PAGES_ELSEWHERE
}

_PYTEST = Path(pytest.__file__).with_name("__main__.py")  # What `python -m pytest` runs.


class Workspace:
    """A folder in which a reader works who has installed the wheel, and what was run in it already."""

    def __init__(self, folder, programs):
        self.folder = folder
        self._results = {}
        self._programs = programs
        (folder / "benchmarks").symlink_to(pages.ROOT / "benchmarks")  # Not installed.
        for name, text in pages.files().items():
            (folder / name).write_text(text)
        (folder / "photos").mkdir()
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 256, [40, 48, 3], np.uint8)
            Image.fromarray(pixels).save(folder / f"photos/{i}.png")
        self._environment = {
            **os.environ,
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "TF_PIVAE_CACHE": str(folder / "cache"),
        }

    def run(self, command):
        """Runs a command once, after those that it needs; returns its output."""
        if command not in self._results:
            if command in PROGRAMS:
                script = self.folder / "program.py"
                script.write_text(PROGRAMS[command])
                arguments = [self._programs / "python", script]
            else:
                entry = commands.RUN[command]
                for need in entry.needs:
                    self.run(need)
                arguments = ["sh", "-e", "-c", f"{command} {entry.appended}"]
            program = re.match(r"python -m (?:tf_pivae\.|(?=benchmarks\.))([\w.]+) ", command)
            # The README's first command and its program go the whole way; the others need not import TensorFlow again.
            if command in PROGRAMS and not command.startswith("README.md"):
                result = forking.run(script, cwd=self.folder, env=self._environment)
            elif command.startswith("python -m pytest "):
                words = shlex.split(arguments[-1])[3:]
                result = forking.run(_PYTEST, *words, cwd=self.folder, env=self._environment)
            elif program is None or command == commands.TRAIN:
                options = dict(capture_output=True, text=True, timeout=900, check=False)
                result = subprocess.run(arguments, cwd=self.folder, env=self._environment, **options)
            else:
                words = shlex.split(arguments[-1])[3:]
                result = forking.run(program[1], *words, cwd=self.folder, env=self._environment)
            self._results[command] = result
        result = self._results[command]
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        return result.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, package):
    return Workspace(tmp_path_factory.mktemp("reader"), package.programs)


def test_every_command_is_run_or_listed_with_a_reason():
    listed = {*commands.RUN, *commands.ELSEWHERE, *commands.NOT_RUN}
    new = [f"{page}: {c}" for page, c in COMMANDS if c not in listed and page not in commands.PAGES_ELSEWHERE]
    assert not new, "say in tests/documentation/commands.py how they are run"
    gone = listed - {command for _, command in COMMANDS}
    assert not gone, "no page has these any more"
    assert len(listed) == len(commands.RUN) + len(commands.ELSEWHERE) + len(commands.NOT_RUN)
    assert len(BLOCKS) > 20


def test_every_block_says_what_it_is():
    infos = {block.info.split(" file=")[0] for block in pages.blocks() if block.page not in commands.PAGES_ELSEWHERE}
    assert infos == {"sh", "python", "gin", "text"}


def test_tests_that_stand_for_commands_exist():
    for test in [*commands.ELSEWHERE.values(), *commands.PAGES_ELSEWHERE.values()]:
        file, function = test.split("::")
        assert f"def {function}(" in (pages.ROOT / file).read_text(), test
    # What is not in a block must not hide behind the test of the blocks.
    pairs = set(pages.inline_commands()) - set(MENTIONS)
    inline = {command for page, command in pairs if page in commands.PAGES_ELSEWHERE}
    assert inline <= {*commands.RUN, *commands.ELSEWHERE, *commands.NOT_RUN}


def test_modules_that_are_spoken_of_exist():
    assert MENTIONS
    for page, command in MENTIONS:
        module = command.split()[-1] if command.startswith("python") else f"tf_pivae.{command.split()[-1]}"
        assert importlib.util.find_spec(module), f"{page}: {command}"


def _cases(slow):
    return [command for command, entry in commands.RUN.items() if entry.slow == slow]


@pytest.mark.parametrize("command", _cases(slow=False))
def test_command(workspace, command):
    workspace.run(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", _cases(slow=True))
def test_command_that_takes_long(workspace, command):
    workspace.run(command)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(workspace, program):
    workspace.run(program)


def test_outputs_are_where_the_pages_say(workspace):
    workspace.run("python -m tf_pivae.sample --run_dir=runs/demo --num_samples=64 --seed=0 --output=grid.png")
    # 8x8 tiles of 16x16 images, four times as large, two pixels apart.
    assert Image.open(workspace.folder / "grid.png").size == (8 * 66 - 2, 8 * 66 - 2)
    workspace.run("python -m tf_pivae.publish --run_dir=runs/demo --output=published/demo")
    assert "# demo" in (workspace.folder / "published/demo/model_card.md").read_text()
    assert "8 training, 2 test" in workspace.run("python -m tf_pivae.prepare --gin_file=photos.gin")
