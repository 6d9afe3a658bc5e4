"""Runs and views made up for the page: no training, no model."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tf_pivae.evaluate.results import Evaluation, Row, as_json
from tf_pivae.report import page, pictures
from tf_pivae.report.likelihoods import Likelihoods
from tf_pivae.report.run import Run
from tf_pivae.report.views import Views, unloadable
from tf_pivae.report.waterfall import measured_terms

HOSTILE = "b</script><script>document.title='taken over'</script>"
MACHINE = {"processor": "a processor, 2 cores", "memory": "4 GiB"}


def _run(folder, name, steps, offset, **changes):
    (folder / "samples").mkdir(parents=True)
    for step in steps:
        encoded = io.BytesIO()
        Image.new("RGB", (60, 60), (step % 256, 80, 80)).save(encoded, format="PNG")
        (folder / "samples" / f"{step:06d}.png").write_bytes(encoded.getvalue())
    metrics = [
        {"step": step, "bits_per_dim": 4 + offset + 30 / step, "kl/top": 1.0, "kl/top_down_0": offset + 0.5,
         "gradient_norm": None if step == 30 else 2.0 * step, "images_per_second": 64.0}
        for step in range(10, 101, 10)
    ]  # fmt: skip
    rows = [Row("bits/dim, K=1", 4.25, 0.0125, "9 test images, <seed> 0"), Row("  kl/top", 0.5, None, "part")]
    rows += [Row("precision", 0.75, 0.01, "50 samples"), Row("recall", 0.5 + offset / 10, None, "50 samples")]
    evaluation = json.loads(as_json(Evaluation(100, None, rows, ["fid: no weights"])))
    evaluation["rows"][2]["histogram"] = {"edges": [0.0, 1.0, 3.0], "counts": [8, 4]}
    facts = {"name": "made_up", "image_shape": [8, 8, 1], "num_classes": 0, "num_bins": 256, "moving_average": False,
             "likelihood": True, "inference_only": False}  # fmt: skip
    fields = dict(
        name=name,
        path=folder,
        facts=facts,
        config=f"num_steps = 100\nRealNVP.width = {int(8 + offset)}\ntrain.num_steps = %num_steps\n",
        num_steps=100,
        batch_size=16,
        adversary=False,
        metrics=metrics,
        evaluation=evaluation,
        evaluations=[],
        environments=[{"from_step": 0, "started": "yesterday", **MACHINE}],
    )
    return Run(**{**fields, **changes})


def _views(run, seed):
    rng = np.random.default_rng(seed)
    picture = pictures.grid(rng.integers(0, 256, [4, 8, 8, 1], np.uint8), 4, "Four images.", "Four <images>.")
    terms = {
        "reconstruction": rng.normal(-0.5, 0.1, 50),
        "kl/top": rng.normal(0.5, 0.1, 50),
        "kl/top_down_0": rng.normal(1e-4, 1e-5, 50),  # Of 64 dimensions: less than a hundredth of a bit.
        "kl/top_down_1": np.full(50, 1e-5),
        "flow log-det": np.full(50, -3.0),
        "discretisation": np.full(50, 8.0),
    }
    sets = {"held-out images": sum(terms.values()), "uniform noise": rng.normal(9, 0.1, 50)}
    bits = Likelihoods(terms, sets, False)
    group_pictures = ("a group of its own", picture)
    return Views(100, 1234, (100, picture.png), [picture], [picture], [picture, "no data"], group_pictures, bits,
                 measured_terms(run, bits))  # fmt: skip


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """Two runs, one with a hostile name and fewer pictures, and their views: (list of `Run`, list of `Views`)."""
    folder = tmp_path_factory.mktemp("made_up")
    runs = [_run(folder / "a", "a", [20, 60, 100], 0.0), _run(folder / "b", HOSTILE, [40, 80], 1.0)]
    return runs, [_views(run, seed) for seed, run in enumerate(runs)]


@pytest.fixture(scope="session")
def made_up_page(made_up, tmp_path_factory):
    """Path of the page about them."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(*made_up, MACHINE), "utf-8")
    return path


@pytest.fixture(scope="session")
def bare_page(made_up, tmp_path_factory):
    """Path of the page about a run that has only been started: no metrics, pictures, checkpoint, evaluation."""
    folder = tmp_path_factory.mktemp("bare")
    run = _run(folder / "run", "fresh", [], 0.0, metrics=[], evaluation=None, environments=[])
    path = folder / "report.html"
    path.write_text(page.render([run], [unloadable(run, "no checkpoint yet")], MACHINE), "utf-8")
    return path
