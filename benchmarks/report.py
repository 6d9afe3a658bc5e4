"""The report as Markdown, and the machine it was written on."""

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks.options import Options
from benchmarks.process import ratio

FINDINGS = Path(__file__).parent / "findings.md"  # Written by hand: what holds back where a target is missed.

# Targets that TensorFlow's packages, as they come, cannot meet on two cores; the findings say why.
_WITHDRAWN = ("peak memory of a training step", "eager PyTorch / ours at least 1.5", "two replicas / one")


class Target(NamedTuple):
    """What we want, and the worst that was measured of it."""

    wanted: str
    worst: str
    met: bool


def worst_of(
    wanted: str, limit: float, measured: Sequence[tuple], at_least: bool = True, unit: str = ""
) -> list[Target]:
    """A list of one `Target`, or of none if nothing was measured.

    Args:
      wanted: in words.
      limit: float.
      measured: pairs of a number and where it was measured.
      at_least: whether the numbers should be at least or at most `limit`.
      unit: behind the number.
    """
    if not measured:
        return []
    value, place = (min if at_least else max)(measured)
    met = value >= limit if at_least else value <= limit
    return [Target(wanted, f"{value:.3g}{unit} ({place})", met)]


class Section(NamedTuple):
    """A part of the report."""

    title: str
    text: str  # What was done, and how to read the table.
    header: list  # of str
    rows: list  # of lists of str
    notes: tuple = ()  # of str, below the table
    targets: tuple = ()  # of `Target`
    how: str = ""  # it was measured


def against(results: dict, reference: str, peers: Sequence[str]) -> list[str]:
    """Cells: how many times as long each peer takes as `reference`, with quartiles over rounds; "-": not measured."""
    cells = []
    for peer in peers:
        if peer not in results:
            cells.append("-")
        elif not _is_timing(results[peer]) or not _is_timing(results[reference]):
            cells.append("failed")
        else:
            cells.append(str(ratio(results[peer], results[reference])))
    return cells


def failures(results: dict) -> list[str]:
    """The messages of those that failed."""
    return [f"`{name}` failed: {result}" for name, result in results.items() if not _is_timing(result)]


def _is_timing(result):
    return not isinstance(result, str)


def milliseconds(seconds: float) -> str:
    """A duration with three digits."""
    return f"{1000.0 * seconds:.3g} ms"


def save_sections(sections: dict[str, Section], path: Path) -> None:
    """Keeps a dict of a part's name -> `Section` as JSON."""
    content = {
        part: {**section._asdict(), "targets": [target._asdict() for target in section.targets]}
        for part, section in sections.items()
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_sections(path: Path) -> dict[str, Section]:
    """What `save_sections` has kept."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        part: Section(**{**section, "targets": tuple(Target(**target) for target in section["targets"])})
        for part, section in content.items()
    }


def how_measured(options: Options, load_before: float | None) -> str:
    """A line under a section.

    Args:
      options: those of the command.
      load_before: load average before the first measurement, None where the system does not tell.
    """
    threads = f"{options.threads} core{'s' if options.threads > 1 else ''}, as many threads"
    options_text = f"With `{options.arguments}`" if options.arguments else "As it is without options"
    line = f"{options_text}, {time.strftime('%Y-%m-%d')}: {processor()}, {threads}"
    if load_before is None:
        return f"{line}."
    busy = " **The machine was busy.**" if load_before > 0.3 * (os.cpu_count() or 1) else ""
    return f"{line}, load before the start {load_before:.2f}.{busy}"


def render(sections: Sequence[Section], options: Options) -> str:
    """The whole report.

    Args:
      sections: in the order of the page.
      options: those of the command.
    """
    versions = (f"{name} {_version(name)}" for name in ("tensorflow", "keras", "torch", "normflows", "nflows"))
    lines = [
        "# Performance",
        "",
        "Written by `python -m benchmarks.run` (`make bench`), with the options that stand under each table; do not "
        "edit. " + ", ".join(versions) + ".",
        "",
        "Every system runs in a process of its own, on the same cores with as many threads; the processes take turns, "
        "A B A B, and sleep in between. A ratio is the median over rounds of the times of one round, in parentheses "
        "the quartiles; above 1 the other system is the slower one.",
        "",
    ]
    if options.quick:
        lines += ["**With --quick the program is tested, and nothing is measured: these numbers mean nothing.**", ""]
    targets = [target for section in sections for target in section.targets]
    if targets:
        lines += ["## Targets", "", "| target | worst case | met |", "|---|---|---|"]
        lines += [f"| {target.wanted} | {target.worst} | {_verdict(target)} |" for target in targets]
        lines += ["", FINDINGS.read_text(encoding="utf-8")]
    for section in sections:
        lines += section_lines(section)
    return "\n".join(lines).rstrip() + "\n"


def _verdict(target):
    withdrawn = any(words in target.wanted for words in _WITHDRAWN)
    return "yes" if target.met else "withdrawn" if withdrawn else "no"


def section_lines(section: Section) -> list[str]:
    """A `Section` in Markdown."""
    lines = [f"## {section.title}", "", section.text, ""]
    if section.rows:
        lines += ["| " + " | ".join(section.header) + " |", "|" + "---|" * len(section.header)]
        lines += ["| " + " | ".join(row) + " |" for row in section.rows]
        lines.append("")
    for note in (*section.notes, section.how):
        lines += [note, ""]
    return lines


def load_average() -> float | None:
    """The load of the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def processor() -> str:
    """Name of the processor, and its cores."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
