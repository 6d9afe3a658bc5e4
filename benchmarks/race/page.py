"""The race's page: one table, and a line on each contestant."""

from pathlib import Path

import numpy as np

from benchmarks.race.measuring import TIMED, Settings
from benchmarks.race.worker import CLASSES, STEPS
from benchmarks.report import processor
from tf_pivae.figures import image_grid
from tf_pivae.files import read_json


def results(output: Path) -> dict[str, dict]:
    """What the contestants that are done came to, by name, in the order of `CLASSES`."""
    done = [name for name in CLASSES if (output / name / STEPS["score"]).exists()]
    return {
        name: {key: value for file in STEPS.values() for key, value in read_json(output / name / file).items()}
        for name in done
    }


def write(output: Path, settings: Settings) -> Path:
    """Writes `race.md` and a picture of each contestant's first 64 samples."""
    contestants = results(output)
    for name in contestants:
        image_grid(np.load(output / name / "samples.npy", mmap_mode="r")[:64]).save(output / f"{name}.png")
    path = output / "race.md"
    path.write_text(render(contestants, settings), encoding="utf-8")
    return path


def render(contestants: dict[str, dict], settings: Settings) -> str:
    """The page."""
    log_probs = f"{min(TIMED, settings.num_log_probs)} log-probs, s"
    header = "", "bits/dim", "FID", "precision", "recall", f"{TIMED} samples, s", log_probs, "weights"
    network = ", the Inception's convolutions in bfloat16" if settings.fast else ""
    cores = f"{settings.cores} core{'s' if settings.cores > 1 else ''}"
    lines = [
        f"# {settings.minutes:g} minutes each",
        "",
        f"Written by `python -m benchmarks.race`. {processor()}; one after the other, each on {cores} with as many "
        f"threads, trained on the {settings.images} Fashion-MNIST at 28x28. Bits per dimension, over 784 pixels, are "
        "upper bounds: means over test images with their standard errors. FID, precision and recall are of "
        f"{settings.num_samples:,} samples against as many test images{network}. Weights are those that sample and "
        "measure: neither a critic's nor those of which others are averages.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    lines += ["| " + " | ".join(_row(facts)) + " |" for facts in contestants.values()]
    lines.append("")
    lines += [_line(name, facts) for name, facts in contestants.items()]
    return "\n".join(lines) + "\n"


def _row(facts: dict) -> list[str]:
    several = len(facts["bits"]) > 1

    def cell(texts: dict[str, str]) -> str:
        return "; ".join(f"{text} ({name})" if several else text for name, text in texts.items()) or "-"

    return [
        facts["title"],
        cell({name: f"{mean:.3f} ± {error:.3f}" for name, (mean, error) in facts["bits"].items()}),
        f"{facts['fid']:.2f}",
        f"{facts['precision']:.3f}",
        f"{facts['recall']:.3f}",
        f"{facts['sample_seconds']:.3g}",
        cell({name: f"{seconds:.3g}" for name, seconds in facts["bits_seconds"].items()}),
        f"{facts['weights']:,}",
    ]


def _line(name: str, facts: dict) -> str:
    bounds = "; ".join(f"{bound}, {count:,} images" for bound, count in facts["num_bits"].items())
    parts = [
        facts["tuned"],
        f"{facts['steps']:,} steps in {facts['seconds'] / 60.0:.1f} minutes, {facts['images_per_second']:.0f} images/s",
        *([f"bound: {bounds}"] if bounds else []),
        facts["date"],
        *([f"Other work took {facts['others']:.2f} of a core"] if "others" in facts else []),
    ]
    return f"- {facts['title']} (`{name}.png`): {'. '.join(parts)}."
