"""Data and models of real sizes: what the commands take for them, killed half-way and started again.

    python -m benchmarks.growth --folder=FOLDER

Makes a folder of image files and an .npz of 64x64 images in FOLDER, prepares both, trains a small model and a large one
from the .npz, prints one table, and removes what it made. Every command is killed by SIGKILL half-way, and started
again. Each image bears its number in its first pixel: after the preparation every one has to be there once.
"""

import contextlib
import json
import re
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from tf_pivae import cli

_FOLDER = flags.DEFINE_string("folder", None, "Where the data are made, on a disk with room.", required=True)
_PARTS = flags.DEFINE_list("parts", ["files", "array", "small", "large"], "The parts to run.")
_FILES = flags.DEFINE_integer("files", 100_000, "Image files of the folder.", 10)
_IMAGES = flags.DEFINE_integer("images", 1_200_000, "Images of the .npz.", 10)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of the small model, of 64 images; the large one takes 4 of 8.", 2)
_WIDTHS = flags.DEFINE_string("widths", "(64, 128, 384, 1280, 1792)", "plain_vae.widths of the large model.")
_KEEP = flags.DEFINE_bool("keep", False, "Leave the data where they were made, for other parts of another run.")

_SIDE = 64
_FILE_SIDE = 32
_CLASSES = 100
_POLL_SECONDS = 0.02
_HEADER = "images", "wall, s", "processor, s", "images/s", "peak memory, MB", "without mapped files, MB"
_HEADER = "part", *_HEADER, "described, MB", "on disk, MB"


class Taken(NamedTuple):
    """What a command took."""

    seconds: float
    processor: float  # s, of all threads
    peak: float  # MB, the most that it held at a time
    anonymous: float  # MB, the same without pages of files, which the system takes back when it needs them
    output: str


def main() -> None:
    folder = Path(_FOLDER.value).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"files": _of_files, "array": _of_array, "small": _of_small_model, "large": _of_large_model}
    rows = []
    try:
        for part in _PARTS.value:
            rows += parts[part](folder)
    finally:
        if not _KEEP.value:
            for name in ("files", "cache", "small", "large"):
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / "array.npz").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # It was there before, with other things in it.
                folder.rmdir()
    print(f"| {' | '.join(_HEADER)} |\n|{'---|' * len(_HEADER)}")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _of_files(folder: Path) -> list[tuple]:
    settings = ["train.dataset=@image_folder", f"image_folder.path='{folder}/files'", "image_folder.class_folders=True"]
    settings += [f"image_folder.image_size={_FILE_SIDE}", f"image_folder.cache_dir='{folder}/cache'"]
    return [_made(_write_files, folder / "files", _FILES.value), *_prepared(folder, settings, "files", _FILES.value)]


def _of_array(folder: Path) -> list[tuple]:
    made = _made(_write_array, folder / "array.npz", _IMAGES.value)
    return [made, *_prepared(folder, _array_settings(folder), "array", _IMAGES.value)]


def _of_small_model(folder: Path) -> list[tuple]:
    settings = [f"train.checkpoint_every={_STEPS.value // 2}", "batch_size=64"]
    return _trained(folder, "small", ["presets/tiny.gin"], settings, _STEPS.value)


def _of_large_model(folder: Path) -> list[tuple]:
    settings = ["train.checkpoint_every=2", "batch_size=8", f"plain_vae.widths={_WIDTHS.value}"]
    return _trained(folder, "large", [], settings, 4)


def _array_settings(folder: Path) -> list[str]:
    return [
        "train.dataset=@npz_images",
        f"npz_images.path='{folder}/array.npz'",
        f"npz_images.cache_dir='{folder}/cache'",
    ]


def _prepared(folder: Path, settings: list[str], name: str, count: int) -> list[tuple]:
    """Rows of a preparation that is killed, goes on, and is there the next time."""

    def prepare(until: Callable[[], bool] = lambda: False) -> Taken:
        return _run("tf_pivae.prepare", ["demo.gin"], settings, until)

    def progress() -> int:
        for path in folder.glob(f"cache/{name}-*.partial/progress.json"):
            return sum(split["records"] for split in json.loads(path.read_text()).values())
        return 0

    killed = prepare(lambda: progress() >= count // 2)
    done = progress()
    resumed = prepare()
    num_bytes = None  # Small arrays are not prepared, but read into memory.
    for whole in folder.glob(f"cache/{name}-*[0-9a-f]"):
        _check_numbers(whole, count)
        num_bytes = _num_bytes(whole)
    return [
        _row(f"{name}: prepared, killed", done, killed),
        _row(f"{name}: prepared from there on", count - done, resumed, disk=num_bytes),
        _row(f"{name}: opened again", None, prepare()),
    ]


def _trained(folder: Path, name: str, files: list[str], settings: list[str], steps: int) -> list[tuple]:
    """Rows of a training that is killed behind its first checkpoint, and goes on."""
    run_dir = folder / name
    settings = [
        *_array_settings(folder),
        *settings,
        f"num_steps={steps}",
        "train.eval_examples=0",
        "train.sample_every=0",
        "train.log_every=1",
    ]
    files = ["paper/pivae.gin", *files]
    described = _run("tf_pivae.train", files, settings, extra=["--describe"]).output
    line = re.search(r"^weights  VAE ([\d,]+).* head ([\d,]+)", described, re.MULTILINE)
    weights = sum(int(number.replace(",", "")) for number in line.groups()) / 1e6
    memory = 1e3 * float(re.search(r"^memory +about ([\d.]+) GB", described, re.MULTILINE)[1])
    half = run_dir / f"checkpoints/{steps // 2:08d}"
    killed = _run("tf_pivae.train", files, settings, half.exists, [f"--run_dir={run_dir}"])
    resumed = _run("tf_pivae.train", files, settings, extra=[f"--run_dir={run_dir}"])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    speeds = {line["step"]: line["images_per_second"] for line in lines if "images_per_second" in line}
    assert set(speeds) == set(range(1, steps + 1)), "every step is written once"
    batch = int(re.search(r"batch_size=(\d+)", " ".join(settings))[1])
    title = f"{weights:.3g} M weights, batch {batch}: trained"
    first = range(1, steps // 2 + 1)
    second = range(steps // 2 + 1, steps + 1)
    return [
        _row(f"{title}, killed", len(first) * batch, killed, _speed(speeds, first), memory, _num_bytes(half)),
        _row(f"{title} from there on", len(second) * batch, resumed, _speed(speeds, second), memory),
    ]


def _speed(speeds: dict[int, float], steps: range) -> float | None:
    """Images a second over some steps but the first, in which TensorFlow makes its graph ready."""
    seconds = [1.0 / speeds[step] for step in steps[1:]]
    return len(seconds) / sum(seconds) if seconds else None


def _run(
    module: str,
    files: list[str],
    settings: list[str],
    until: Callable[[], bool] = lambda: False,
    extra: Sequence[str] = (),
) -> Taken:
    """Runs a command to its end, or kills it once `until` is true."""
    command = [sys.executable, "-m", module, *(f"--gin_file={file}" for file in files), *extra]
    command += [f"--gin_param={setting}" for setting in settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = 0.0
    anonymous = 0.0
    killed = False
    while process.poll() is None:
        try:
            status = dict(re.findall(r"(VmHWM|RssAnon):\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text()))
        except OSError:
            status = {}
        peak = max(peak, 1.024e-3 * int(status.get("VmHWM", 0)))
        anonymous = max(anonymous, 1.024e-3 * int(status.get("RssAnon", 0)))
        if not killed and until():
            process.kill()
            killed = True
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    output = process.communicate()[0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode and not killed:
        raise RuntimeError(f"{' '.join(command)}\n{output}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{seconds:.1f} s: {' '.join(command[2:])}\n{output}", file=sys.stderr, flush=True)
    return Taken(seconds, processor, peak, anonymous, output)


def _row(
    part: str,
    images: int | None,
    taken: Taken,
    speed: float | None = None,
    described: float | None = None,
    disk: float | None = None,
) -> tuple[str, ...]:
    if speed is None and images:
        speed = images / taken.seconds
    numbers = [
        taken.seconds,
        taken.processor,
        speed,
        taken.peak or None,
        taken.anonymous or None,
        described,
        disk and disk / 1e6,
    ]
    digits = (1, 1, 0 if (speed or 0) >= 10 else 1, 0, 0, 0, 1)
    cells = ("-" if n is None else f"{n:,.{d}f}" for n, d in zip(numbers, digits, strict=True))
    return part, "-" if images is None else f"{images:,}", *cells


def _made(write: Callable[[Path, int], None], path: Path, count: int) -> tuple:
    started = time.perf_counter()
    processor = time.process_time()
    write(path, count)
    taken = Taken(time.perf_counter() - started, time.process_time() - processor, 0.0, 0.0, "")
    return _row(f"{path.stem}: made", count, taken, disk=_num_bytes(path))


def _noise(count: int, first: int, side: int) -> np.ndarray:
    """uint8 [count, side, side, 3] of noise, the first pixel of each its number, from `first` on."""
    images = np.random.default_rng(first).integers(0, 256, (count, side, side, 3), np.uint8)
    numbers = np.arange(first, first + count)
    images[:, 0, 0] = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1)
    return images


def _write_files(folder: Path, count: int) -> None:
    from PIL import Image

    for label in range(_CLASSES):
        (folder / f"class{label:03d}").mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray(_noise(1, number, _FILE_SIDE)[0])
        image.save(folder / f"class{number % _CLASSES:03d}/{number:07d}.png", compress_level=1)


def _write_array(path: Path, count: int) -> None:
    """Without compression, a hundredth of the images for tests."""
    test = max(1, count // 100)
    with zipfile.ZipFile(path, "w") as archive:
        for split, first, last in (("train", 0, count - test), ("test", count - test, count)):
            header = {"descr": "|u1", "fortran_order": False, "shape": (last - first, _SIDE, _SIDE, 3)}
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for start in range(first, last, 1000):
                    member.write(_noise(min(1000, last - start), start, _SIDE).data)
            with archive.open(f"{split}_labels.npy", "w") as member:
                np.lib.format.write_array(member, np.arange(first, last) % _CLASSES)


def _check_numbers(prepared: Path, count: int) -> None:
    """Every image is there once, beside its label."""
    numbers = []
    for split in ("train", "test"):
        images = np.load(prepared / f"{split}_images.npy", mmap_mode="r")
        labels = np.load(prepared / f"{split}_labels.npy")
        pixels = np.array(images[:, 0, 0], np.int64)
        numbers.append(pixels @ [1 << 16, 1 << 8, 1])
        assert (numbers[-1] % _CLASSES == labels).all()
    assert (np.sort(np.concatenate(numbers)) == np.arange(count)).all()


def _num_bytes(path: Path) -> int:
    paths = [path, *path.rglob("*")]
    return sum(512 * entry.lstat().st_blocks for entry in paths if entry.is_file())


if __name__ == "__main__":
    cli.run(main)
