"""The whole page: gathers every section, then puts them into the template."""

import importlib.resources
import string
import time

from tf_pivae.errors import check_output
from tf_pivae.progress import progress_bar
from tf_pivae.reports import configuration, curves, evaluations, hardware, histograms, pictures, views
from tf_pivae.reports.markup import Html, join, note, side_by_side, table, tag
from tf_pivae.reports.run import read_runs
from tf_pivae.training.environment import describe_environment
from tf_pivae.training.runs import write_atomically

_PARTS = 5  # What `views.gather` announces for each run.


def write_report(run_dirs, output, num_examples=200, seed=0, other=None):
    """Writes one HTML page about the runs, which needs nothing but itself.

    Args:
      run_dirs: list of folders.
      output: the file to write.
      num_examples: images of each set for the likelihoods.
      seed: int, of all noise.
      other: `ImageDataset`, the likelihoods of whose images are shown beside those of a run's own; None is
        Fashion-MNIST where that is another one.

    Raises:
      UserError: no run in one of the folders, or the file cannot be written.
    """
    runs = read_runs(run_dirs)
    check_output(output)
    found = []
    with progress_bar(total=_PARTS * len(runs), desc="report", unit="part") as bar:
        for i, run in enumerate(runs):

            def progress(what, run=run):
                bar.set_postfix_str(f"{run.name}: {what}")
                bar.update()

            found.append(views.gather(run, num_examples, seed, progress, other))
            bar.n = _PARTS * (i + 1)
            bar.refresh()
    write_atomically(output, render(runs, found, describe_environment()))


def render(runs, found, here):
    """The page's HTML.

    Args:
      runs: list of `Run`.
      found: list of `Views`, one for each run.
      here: dict, the machine that draws the report.
    """
    sections = {
        "Overview": _overview(runs, found),
        "Configuration": configuration.render(runs),
        "Curves": curves.render(runs),
        "Samples over time": pictures.render_samples(runs),
        "Reconstructions": _columns(runs, [view.reconstructions for view in found]),
        "Latent traversals": _columns(runs, [view.traversals for view in found]),
        "Interpolations": _columns(runs, [view.interpolations for view in found]),
        "Bits per dimension by term": histograms.render_terms(runs, [view.likelihoods for view in found]),
        "Likelihoods of other images": histograms.render_sets(runs, [view.likelihoods for view in found]),
        "Evaluation": evaluations.render(runs),
        "Hardware and time": hardware.render(runs, here),
    }
    names = {title: title.lower().replace(" ", "-") for title in sections}
    title = "Report: " + ", ".join(run.name for run in runs)
    files = importlib.resources.files(__name__.rpartition(".")[0]) / "assets"
    template = string.Template((files / "page.html").read_text("utf-8"))
    return template.substitute(
        title=join([title]),
        style=(files / "style.css").read_text("utf-8"),
        script=join([Html((files / name).read_text("utf-8")) for name in ("slider.js", "chart.js", "zoom.js")]),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        navigation=join([tag("a", title, href=f"#{names[title]}") for title in sections]),
        sections=join([tag("section", tag("h2", title), body, id=names[title]) for title, body in sections.items()]),
    )


def _overview(runs, found):
    rows = [
        ["Data", *(_data(run.facts) for run in runs)],
        ["Trained by", *map(_training, runs)],
        ["Weights of the model", *("–" if view.num_weights is None else f"{view.num_weights:,}" for view in found)],
        ["Steps", *(f"{run.step} of {run.num_steps}{'' if run.finished else ', unfinished'}" for run in runs)],
        ["Checkpoint shown", *("none" if view.step is None else f"step {view.step}" for view in found)],
        ["Held-out bits per dimension", *map(_bits_per_dim, runs)],
    ]
    return table("The runs", ["", *(run.name for run in runs)], rows)


def _data(facts):
    height, width, channels = facts["image_shape"]
    classes = f", {facts['num_classes']} classes" if facts["num_classes"] else ""
    levels = f", {facts['num_bins']} levels" if facts["num_bins"] != 256 else ""
    return f"{facts['name']}, {height}×{width}×{channels}{levels}{classes}"


def _training(run):
    if run.facts["inference_only"]:
        return "likelihood, around a frozen generator"
    losses = ["likelihood"] * run.facts["likelihood"]
    critic = configuration.setting(run.config, "train.critic") not in (None, "None")
    weight = configuration.setting(run.config, "Trainer.adversarial_weight")
    losses += ["adversary"] * (critic and weight not in ("0", "0.0"))
    average = "; moving average of the weights" if run.facts["moving_average"] else ""
    return (" and ".join(losses) or "–") + average


def _bits_per_dim(run):
    """What followed the training, or else what the evaluate command found."""
    recorded = [_held_out(line) for line in run.metrics]
    values = next(filter(None, reversed(recorded)), evaluations.held_out_bits_per_dim(run))
    if not values:
        return "–"
    text = ", ".join(f"{value:.3f} ({k})" for k, value in values.items() if value is not None)
    return f"[{text}]" if run.facts["inference_only"] else text


def _held_out(line):
    """{"K=1": bits per dimension, ...} of a line of metrics; empty but for that of an evaluation."""
    prefix = "held_out_bits_per_dim/"
    return {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}


def _columns(runs, found):
    """Pictures side by side, or why there are none."""
    return side_by_side(
        runs,
        [
            [
                note(f"{run.name}: {picture}") if isinstance(picture, str) else picture.render()
                for picture in ([shown] if isinstance(shown, str) else shown)
            ]
            for run, shown in zip(runs, found, strict=True)
        ],
    )
