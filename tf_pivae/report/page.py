"""The whole page: gathers every section, then puts them into the template."""

from __future__ import annotations

import importlib.resources
import string
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_pivae.data.arrays import ImageDataset
from tf_pivae.errors import check_output
from tf_pivae.files import write_atomically
from tf_pivae.report import (
    configuration,
    curves,
    evaluations,
    hardware,
    histograms,
    overview,
    pictures,
    views,
    waterfall,
)
from tf_pivae.report.markup import Html, breakable, folded, join, tag
from tf_pivae.report.run import Run, read_runs
from tf_pivae.system.environment import describe_environment
from tf_pivae.system.progress import progress_bar

_SCRIPTS = ("slider.js", "chart.js", "zoom.js", "scroll.js")


def write_report(
    run_dirs: Sequence[str | Path], output: str | Path, num_examples: int, seed: int, other: ImageDataset | None
) -> None:
    """Writes one HTML page about the runs, which needs nothing but itself.

    Args:
      run_dirs: folders of runs, or names of pretrained models.
      output: the file to write.
      num_examples: images of each set for the likelihoods.
      seed: of all noise but that of the samples, which are those that a training draws.
      other: `ImageDataset`, the likelihoods of whose images are shown beside those of a run's own; None is
        Fashion-MNIST where that is another one.

    Raises:
      UserError: no run in one of the folders, or the file cannot be written.
    """
    runs = read_runs(run_dirs)
    check_output(output)
    all_views = []
    with progress_bar(total=views.PARTS * len(runs), desc="report", unit="part") as bar:
        for i, run in enumerate(runs):

            def progress(text: str, run: Run = run) -> None:
                bar.set_postfix_str(f"{run.name}: {text}")
                bar.update()

            all_views.append(views.gather(run, num_examples, seed, progress, other))
            bar.n = views.PARTS * (i + 1)
            bar.refresh()
    write_atomically(output, render(runs, all_views, describe_environment()))


def render(runs: Sequence[Run], all_views: Sequence[views.Views], environment: Mapping[str, str]) -> str:
    """The page's HTML.

    Args:
      runs: list of `Run`.
      all_views: list of `Views`, one for each run.
      environment: the machine that draws the report.
    """
    sections = {
        "Overview": overview.render(runs, all_views),
        "Samples": pictures.render_samples(runs, [v.samples for v in all_views], [v.neighbours for v in all_views]),
        "Reconstructions": pictures.columns_of(runs, [view.reconstructions for view in all_views]),
        "Latents": _latents(runs, all_views),
        "Bits per dimension by term": waterfall.render(runs, [view.terms for view in all_views]),
        "Likelihoods of other images": histograms.render_sets(runs, [view.likelihoods for view in all_views]),
        "Evaluation": evaluations.render(runs),
        "Curves": curves.render(runs, [view.step for view in all_views]),
        "Time and machines": hardware.render(runs, environment),
        "Settings": configuration.render(runs),
    }
    names = {title: title.lower().replace(" ", "-") for title in sections}
    title = "Report: " + ", ".join(run.name for run in runs)
    files = importlib.resources.files(__name__.rpartition(".")[0]) / "assets"
    template = string.Template((files / "page.html").read_text("utf-8"))
    return template.substitute(
        title=join([title]),
        heading=breakable(title, everywhere=True),
        style=(files / "style.css").read_text("utf-8"),
        script=join([Html((files / name).read_text("utf-8")) for name in _SCRIPTS]),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        navigation=join([tag("a", title, href=f"#{names[title]}") for title in sections]),
        sections=join([tag("section", tag("h2", title), body, id=names[title]) for title, body in sections.items()]),
    )


def _latents(runs: Sequence[Run], all_views: Sequence[views.Views]) -> list[Html]:
    """The walks, and folded under a sentence those through groups that change nothing."""
    unused = [(run, view.unused) for run, view in zip(runs, all_views, strict=True) if view.unused is not None]
    return [
        pictures.columns_of(runs, [view.traversals for view in all_views]),
        *(folded(f"{run.name}: {sentence}", picture.render()) for run, (sentence, picture) in unused),
    ]
