"""The same Inception weights under torch-fidelity's names, so that its network can be run beside ours."""

import numpy as np

# Our block -> its block; within a block, our branch -> its branch with the number of convolutions in it.
STEM = {
    "conv": "Conv2d_1a_3x3",
    "conv_1": "Conv2d_2a_3x3",
    "conv_2": "Conv2d_2b_3x3",
    "conv_3": "Conv2d_3b_1x1",
    "conv_4": "Conv2d_4a_3x3",
}
FIRST = {
    "": ("branch1x1", 1),
    "/tower": ("branch5x5", 2),
    "/tower_1": ("branch3x3dbl", 3),
    "/tower_2": ("branch_pool", 1),
}
SECOND = {
    "": ("branch1x1", 1),
    "/tower": ("branch7x7", 3),
    "/tower_1": ("branch7x7dbl", 5),
    "/tower_2": ("branch_pool", 1),
}
BLOCKS = {
    "mixed": ("Mixed_5b", FIRST),
    "mixed_1": ("Mixed_5c", FIRST),
    "mixed_2": ("Mixed_5d", FIRST),
    "mixed_3": ("Mixed_6a", {"": ("branch3x3", 1), "/tower": ("branch3x3dbl", 3)}),
    "mixed_4": ("Mixed_6b", SECOND),
    "mixed_5": ("Mixed_6c", SECOND),
    "mixed_6": ("Mixed_6d", SECOND),
    "mixed_7": ("Mixed_6e", SECOND),
    "mixed_8": ("Mixed_7a", {"/tower": ("branch3x3", 2), "/tower_1": ("branch7x7x3", 4)}),
}
LAST = {
    "conv": "branch1x1",
    "tower/conv": "branch3x3_1",
    "tower/mixed/conv": "branch3x3_2a",
    "tower/mixed/conv_1": "branch3x3_2b",
    "tower_1/conv": "branch3x3dbl_1",
    "tower_1/conv_1": "branch3x3dbl_2",
    "tower_1/mixed/conv": "branch3x3dbl_3a",
    "tower_1/mixed/conv_1": "branch3x3dbl_3b",
    "tower_2/conv": "branch_pool",
}


def peer_names():
    """Name of a convolution in the graph -> in torch-fidelity."""
    names = dict(STEM)
    for ours, (theirs, branches) in BLOCKS.items():
        for prefix, (branch, length) in branches.items():
            for index in range(length):
                number = f"_{index + 1}" if length > 1 else ""
                names[f"{ours}{prefix}/conv{f'_{index}' if index else ''}"] = f"{theirs}.{branch}{number}"
    for ours, theirs in (("mixed_9", "Mixed_7b"), ("mixed_10", "Mixed_7c")):
        names |= {f"{ours}/{name}": f"{theirs}.{branch}" for name, branch in LAST.items()}
    return names


def peer_extractor(weights, softmax, path, layers=("2048",)):
    """torch-fidelity's extractor on `weights` (an InceptionWeights) and softmax (weights, biases), saved at `path`."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = {"fc.weight": softmax[0].T, "fc.bias": softmax[1]}
    for ours, theirs in peer_names().items():
        convolution = weights.convolutions[ours]
        state |= {
            f"{theirs}.conv.weight": convolution.kernel.transpose(3, 2, 0, 1),
            f"{theirs}.bn.weight": convolution.gamma,
            f"{theirs}.bn.bias": convolution.beta,
            f"{theirs}.bn.running_mean": convolution.mean,
            f"{theirs}.bn.running_var": convolution.variance,
        }
    torch.save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}, path)
    return FeatureExtractorInceptionV3("peer", list(layers), feature_extractor_weights_path=str(path)).eval()
