"""The Inception Score of a run, through the evaluate command."""

import json

import numpy as np
import pytest
from torch_fidelity_peer import peer_extractor

import tf_pivae
from tf_pivae.metrics.inception_weights import load_weights, save_npz


def test_an_inception_score_from_a_file_with_logits(finished_copy, inception_archive, tmp_path, evaluate):
    """The published archive with a softmax layer of random weights, as the official graph has one of its own."""
    torch = pytest.importorskip("torch")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    random = np.random.default_rng(0)
    softmax = (random.normal(0, 0.5, (2048, 1008)).astype(np.float32), np.zeros(1008, np.float32))
    weights = load_weights(inception_archive)
    save_npz(weights._replace(softmax=softmax), tmp_path / "inception.npz")
    run_dir = finished_copy
    options = ["--metrics=inception_score", "--num_samples=20", f"--inception_weights={tmp_path / 'inception.npz'}"]
    result = evaluate(f"--run_dir={run_dir}", *options)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((run_dir / "evaluation.json").read_text())["rows"]
    assert row["metric"] == "Inception Score"
    peer = peer_extractor(weights, softmax, tmp_path / "peer.pth", ["logits_unbiased"])
    samples = tf_pivae.load(run_dir).sample(20, seed=0)
    with torch.no_grad():
        (logits,) = peer(torch.from_numpy(samples.repeat(3, -1).transpose(0, 3, 1, 2).copy()))
    expected = isc.isc_features_to_metric(logits, splits=10, shuffle=False)
    assert row["value"] > 1.01
    assert row["value"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert row["spread"] == pytest.approx(expected["inception_score_std"], rel=1e-3)
    assert "20 samples" in row["protocol"]
    assert row["protocol"].count("(") == row["protocol"].count(")")
    # Beside the archive alone, which has no logits, the command says what is missing and where to get it.
    result = evaluate(f"--run_dir={run_dir}", *options[:2], f"--inception_weights={inception_archive}")
    assert result.returncode == 2
    assert result.stderr.count("error: ") == 1
    assert "inception-2015-12-05.tgz" in result.stderr
