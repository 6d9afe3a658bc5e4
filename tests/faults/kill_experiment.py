"""Kills trainings and preparations at random moments and writes what came of it:

    python tests/faults/kill_experiment.py --output=docs/faults.md

Takes about half an hour on two cores. Exit status 1 where anything differs from an undisturbed run.
"""

import argparse
import datetime
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from killing import (
    Training,
    curves,
    folder_bytes,
    noted,
    preparing,
    random_kills,
    start_command,
    state_bytes,
    write_photos,
)

TINY = Path(__file__).resolve().parent.parent / "tiny.gin"
_NUM_STEPS = 400
_PLAIN = TINY.parent / "sweeps" / "plain.gin"  # A net that two workers on two cores start within seconds.
_LONGEST = {"start": 10.0, "preparation": 0.3, "step": 2.0, "checkpoint": 0.15, "end": 0.5}  # s, of random delays
_COUNTS = {"start": 4, "preparation": 3, "step": 6, "checkpoint": 6, "end": 1}
_LOGS = ("train.moving_average=True", "train.log_every=1", "train.checkpoint_every=5", "train.sample_every=100")


def photos_arguments(folder, num_photos=800):
    """Arguments for a data set of so many photos, written into `folder`."""
    write_photos(folder, num_photos)
    parameters = ["train.dataset=@image_folder", f"image_folder.path={folder}", "image_folder.image_size=16"]
    return [f"--gin_param={parameter}" for parameter in parameters]


def one_process(
    folder, seed=0, counts=_COUNTS, gin_file=TINY, num_steps=_NUM_STEPS, longest=_LONGEST, parameters=(), **started
):
    """Kills a training that prepares its data itself; yields (kind of line, ...), see `_write`."""
    folder = Path(folder)
    arguments = [f"--gin_file={gin_file}", *photos_arguments(folder / "photos")]
    arguments += [f"--gin_param={parameter}" for parameter in (f"num_steps={num_steps}", *_LOGS, *parameters)]
    yield from _compare(folder, arguments, random_kills(seed, longest, **counts), num_steps, **started)


def two_workers(folder, seed=1, num_steps=_NUM_STEPS, longest=_LONGEST, **started):
    """Kills one of two workers, then the other, then both."""
    parameters = (f"num_steps={num_steps}", *_LOGS)
    arguments = [f"--gin_file={_PLAIN}", *(f"--gin_param={parameter}" for parameter in parameters)]
    kills = random_kills(seed, longest, step=3, checkpoint=2)
    yield from _compare(folder, arguments, kills, num_steps, workers=2, victims=((1,), (0,), (0, 1)), **started)


def _compare(folder, arguments, kills, num_steps, workers=1, victims=((0,),), start=start_command):
    folder = Path(folder)
    undisturbed = Training(folder / "undisturbed", arguments, workers, start=start)
    statuses = undisturbed.to_the_end()
    assert statuses == [0] * workers, undisturbed.log()
    killed = Training(folder / "killed", arguments, workers, victims, start)
    for i, line in enumerate(killed.killed(kills)):
        names = " and ".join(map(str, victims[i % len(victims)])) if workers > 1 else None
        yield "kill", line, names
    one, other = (state_bytes(training.run, num_steps) for training in (undisturbed, killed))
    different = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    yield "variables", len(one), sum(map(len, one.values())), different
    yield "metrics", len(curves(killed.run)), curves(killed.run) == curves(undisturbed.run)
    if (folder / "undisturbed" / "cache").exists():
        one, other = (folder_bytes(folder / name / "cache") for name in ("undisturbed", "killed"))
        yield "data", len(one), sum(map(len, one.values())), one == other
    if workers > 1:
        yield "survivors", killed.survivors, set(killed.survivors) == {75}


def prepare_command(folder, kills=6, seed=2, longest=0.3, start=start_command):
    """Kills `prepare` at random moments until it is left alone."""
    folder = Path(folder)
    command = ["prepare", f"--gin_file={TINY}", *photos_arguments(folder / "photos")]

    def prepare(name):
        log = open(folder / f"{name}.log", "w")  # noqa: SIM115  the child's from here on
        return start(*command, env={**os.environ, "TF_PIVAE_CACHE": str(folder / name)}, stdout=log, stderr=log)

    assert prepare("undisturbed").wait() == 0, (folder / "undisturbed.log").read_text()
    generator = random.Random(seed)
    for i in range(kills):
        launched = time.time_ns()
        started = time.monotonic()
        process = prepare("killed")
        aim = ("start", "preparation")[i % 3 > 0]
        delay = generator.uniform(0.0, longest)
        while aim == "preparation" and not preparing(folder / "killed", launched):
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is not None:
            break  # It was faster.
        process.kill()
        process.wait()
        seconds = time.monotonic() - started
        doing = "preparing" if preparing(folder / "killed", launched) else "starting"
        yield "prepare", aim, delay, seconds, f"{doing}, {noted(folder / 'killed')}"
        assert not any((folder / "killed").glob("*/meta.json")), "a killed preparation counts as whole"
    assert prepare("killed").wait() == 0, (folder / "killed.log").read_text()
    one = folder_bytes(folder / "undisturbed")
    other = folder_bytes(folder / "killed")
    yield "data", len(one), sum(map(len, one.values())), one == other


_HEADER = """# Faults

What `python tests/faults/kill_experiment.py --gin_file={gin_file}` printed on {date}, on {cores} cores with a load of
{load:.0f}. Every process below was killed by SIGKILL at a moment drawn at random: so many seconds after something
began, for some of the kills something that is rare otherwise, such as the writing of a checkpoint. What it was doing is
read from what it left on the disk. Nothing was mended by hand between a kill and the next start of the same command.
"""


_KILLS_HEADER = (
    "| # | killed | delay drawn, from | s after its start | was doing | last logged step | newest checkpoint "
    "| the next start went on from |\n|---|---|---|---|---|---|---|---|\n"
)


def _write(lines, write):
    """Writes a table of kills and sentences on the rest; returns whether all is as it should be."""
    good = True
    number = 0
    for kind, *values in lines:
        if kind == "kill":
            if not number:
                write(_KILLS_HEADER)
            line, names = values
            number += 1
            write(
                f"| {number} | {f'worker {names}' if names else 'the process'} | {line.delay:.3f} s, {line.aim} | "
                f"{line.seconds:.1f} | {line.doing} | {line.step} | {line.checkpoint or 'none'} | "
                f"{'killed before' if line.continued is None else f'step {line.continued}'} |\n"
            )
            good &= line.continued is None or line.continued == line.checkpoint
        elif kind == "prepare":
            if not number:
                write("| # | delay drawn, from | s after its start | was doing, on the disk |\n|---|---|---|---|\n")
            number += 1
            write(f"| {number} | {values[1]:.3f} s, {values[0]} | {values[2]:.1f} | {values[3]} |\n")
        elif kind == "variables":
            count, size, different = values
            same = "all bitwise the same as" if not different else f"{len(different)} OF THEM DIFFERENT from"
            write(f"\nVariables at the end (weights, moving average, optimisers, moments): {count} of {size:,} bytes, "
                  f"{same} those of an undisturbed run.\n")  # fmt: skip
            good &= not different
        elif kind == "metrics":
            write(
                f"Lines of metrics.jsonl: {values[0]}, {'the same' if values[1] else 'NOT THE SAME'} but for times.\n"
            )
            good &= values[1]
        elif kind == "data":
            same = "the same bytes" if values[2] else "NOT THE SAME"
            write(f"\nPrepared data: {values[0]} files of {values[1]:,} bytes, {same}.\n")
            good &= values[2]
        else:
            write(f"Exit statuses of the workers that were not killed: {', '.join(map(str, values[0]))}.\n")
            good &= values[1]
    return good


_PARTS = {
    "training": ("A training that prepares its data and is killed 20 times", one_process),
    "prepare": ("`python -m tf_pivae.prepare`", prepare_command),
    "workers": ("A training of two workers on the loopback", two_workers),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="Markdown file to write.")
    parser.add_argument("--gin_file", default=os.path.relpath(TINY), help="What the part `training` trains.")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="All by default.")
    parser.add_argument("--append", action="store_true", help="Add the parts to what the output holds already.")
    arguments = parser.parse_args()
    text = []
    good = True

    def write(part):
        text.append(part)
        print(part, end="", flush=True)

    if arguments.append:
        text.append(Path(arguments.output).read_text())
    else:
        facts = {"date": datetime.date.today(), "cores": os.cpu_count(), "load": os.getloadavg()[2]}
        write(_HEADER.format(gin_file=arguments.gin_file, **facts))
    options = {"training": {"gin_file": Path(arguments.gin_file).absolute()}}
    for name in arguments.parts:
        title, scenario = _PARTS[name]
        write(f"\n## {title}\n\n")
        with tempfile.TemporaryDirectory() as folder:
            good &= _write(scenario(Path(folder), **options.get(name, {})), write)
        Path(arguments.output).write_text("".join(text))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
