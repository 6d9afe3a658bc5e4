"""The report as Markdown, and the machine it was written on."""

import os
import platform
import time
from importlib import metadata
from typing import NamedTuple

from benchmarks.process import ratio


class Target(NamedTuple):
    """What we want, and the worst that was measured of it."""

    wanted: str
    worst: str
    met: bool


def worst_of(wanted, limit, measured, at_least=True, unit=""):
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
    value, where = (min if at_least else max)(measured)
    met = value >= limit if at_least else value <= limit
    return [Target(wanted, f"{value:.3g}{unit} ({where})", met)]


class Section(NamedTuple):
    """A part of the report."""

    title: str
    text: str  # What was done, and how to read the table.
    header: list  # of str
    rows: list  # of lists of str
    notes: tuple = ()  # of str, below the table
    targets: tuple = ()  # of `Target`


def against(results, reference, peers):
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


def failures(results):
    """The messages of those that failed."""
    return [f"`{name}` failed: {result}" for name, result in results.items() if not _is_timing(result)]


def _is_timing(result):
    return not isinstance(result, str)


def milliseconds(seconds):
    """A duration with three digits."""
    return f"{1000.0 * seconds:.3g} ms"


def render(sections, options, load_before):
    """The whole report.

    Args:
      sections: list of `Section`.
      options: `benchmarks.run.Options`.
      load_before: load average before the first measurement, None where the system does not tell.
    """
    lines = [
        "# Performance",
        "",
        f"Written by `python -m benchmarks.run {options.arguments}` on {time.strftime('%Y-%m-%d')}; do not edit.",
        "",
        f"{_processor()}; every system on the same {options.threads} core{'s' if options.threads > 1 else ''} with "
        f"{options.threads} thread{'s' if options.threads > 1 else ''}. "
        + ", ".join(f"{name} {_version(name)}" for name in ("tensorflow", "keras", "torch", "normflows", "nflows"))
        + ".",
        "",
        "Every system runs in a process of its own; the processes take turns, A B A B, and sleep in between. A ratio "
        "is the median over rounds of the times of one round, in parentheses the quartiles; above 1 the other "
        "system is the slower one.",
        "",
    ]
    if load_before is not None and load_before > 0.3 * (os.cpu_count() or 1):
        lines += [f"**The machine was busy before the start (load {load_before:.1f}): distrust these numbers.**", ""]
    if options.quick:
        lines += ["**With --quick the program is tested, and nothing is measured: these numbers mean nothing.**", ""]
    targets = [target for section in sections for target in section.targets]
    if targets:
        lines += ["## Targets", "", "| target | worst case | met |", "|---|---|---|"]
        lines += [f"| {target.wanted} | {target.worst} | {'yes' if target.met else 'no'} |" for target in targets]
        lines.append("")
    for section in sections:
        lines += [f"## {section.title}", "", section.text, ""]
        if section.rows:
            lines += ["| " + " | ".join(section.header) + " |", "|" + "---|" * len(section.header)]
            lines += ["| " + " | ".join(row) + " |" for row in section.rows]
            lines.append("")
        for note in section.notes:
            lines += [note, ""]
    return "\n".join(lines).rstrip() + "\n"


def load_average():
    """The load of the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
