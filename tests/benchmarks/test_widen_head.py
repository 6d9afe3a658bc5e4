"""A wider head that computes the same."""

import numpy as np
import pytest

import tf_pivae
from benchmarks.widen_head import widen
from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.runs import changes


@pytest.mark.slow
def test_a_wider_head_computes_the_same(finished, tmp_path):
    narrow = finished[0]
    wide = tmp_path / "wide"
    assert widen(narrow, wide, (12,)) == 12
    assert changes.history(wide) == [{"from_step": 12, "settings": {"RealNVP.width": ["8", "12"]}}]
    images = loading.load_dataset(narrow).test.images[:16]
    before, after = tf_pivae.load(narrow), tf_pivae.load(wide)
    densities = [model.log_prob(images, num_importance_samples=2) for model in (before, after)]
    np.testing.assert_allclose(densities[1], densities[0], rtol=1e-5)
    assert [v.shape for v in before.inference_variables] == [v.shape for v in after.inference_variables]
    kernels = [conditioner.output_conv.v.numpy() for conditioner in after.flow.scales[0][0].conditioners]
    assert all(kernel.shape[2] == 12 and not kernel[:, :, 8:].any() for kernel in kernels)


def test_a_head_is_not_made_narrower(finished, tmp_path):
    with pytest.raises(UserError, match=r"is not narrower than 8: choose a larger --width\.$"):
        widen(finished[0], tmp_path / "wide", (8,))
    with pytest.raises(UserError, match=r"^--width has 2 numbers for 1 scales: give one, or one for each\.$"):
        widen(finished[0], tmp_path / "wide", (8, 9))
    assert not (tmp_path / "wide").exists()
