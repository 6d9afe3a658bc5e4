"""The weights of a `tf_pivae` model, by name, as those of its twin."""

import re
from typing import Any

import numpy as np
import torch

# Names of Keras variables, written with dots, to those of the twin's parameters and buffers.
_NAMES = [
    (r"^vae\.", ""),
    (r"^dequantization\.(tail_)?", ""),
    (r"^tails\.conv_(\d+)\.", r"tails.convs.\1."),
    (r"\b(bottom_up|top_down)_(\d+)\.", r"\1.\2."),
    (r"\bposterior\.network\.", "iaf."),
    (r"\bcoupling_(\d+)\.", r"couplings.\1."),
    (r"\bblock_(\d+)_(conv|norm)_(\d)\.", r"blocks.\1.\2_\3."),
    (r"^norm_(\d+)\.", r"norms.\1."),
    (r"\bmoments\.", ""),
    (r"^critic\.(trunk\.)?", ""),
    (r"^block_(\d+)_0\.", r"blocks.\1."),
    (r"\.kernel$", ".weight"),
]


def named_variables(pivae: Any, critic: Any = None) -> dict[str, Any]:
    """A dict of the twin's name ("vae.", "flow." or "critic." in front) -> Keras variable."""
    parts = {"dequantization": pivae.dequantization, "vae": pivae.vae, "flow": pivae.flow, "critic": critic}
    return {
        f"{part}.{_twin_name(variable.path)}": variable
        for part, layer in parts.items()
        if layer is not None
        for variable in layer.variables
    }


def _twin_name(path):
    name = path.replace("/", ".")
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    # Table 1's critic numbers its convolutions by resolution, two each.
    plain = re.match(r"^(conv|down)_(\d+)\.(weight|bias)$", name)
    return f"convs.{2 * int(plain[2]) + (plain[1] == 'down')}.{plain[3]}" if plain else name


def named_tensors(model: Any, critic: Any = None) -> dict[str, torch.Tensor]:
    """A dict of the names above -> the twin's parameters and running moments."""
    parts = {"dequantization": model.dequantization, "vae": model.vae, "flow": model.flow, "critic": critic}
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        if module is not None
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if not name.endswith("mask")
    }


def converted(name: str, array: np.ndarray, model: Any, critic: Any = None) -> np.ndarray:
    """An array of ours (a weight, or its gradient) in the twin's layout.

    Convolutions [k, k, I, O] become [O, I, k, k], deconvolutions [k, k, O, I] become [I, O, k, k], dense layers
    [I, O] become [O, I]; where a dense layer meets a map, its elements go from the order H, W, C to C, H, W.
    """
    array = np.asarray(array)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    part, _, name = name.partition(".")
    shape = getattr({"vae": model.vae, "critic": critic}.get(part), "map_shape", None)
    if shape is not None:
        order = np.arange(np.prod(shape)).reshape(*shape[1:], shape[0]).transpose(2, 0, 1).ravel()
        if name.startswith("decoder."):
            array = array[..., order]
        elif name in ("posterior.v", "head.weight"):
            array = array[order]
    return array.T


def load(arrays: dict[str, np.ndarray], model: Any, critic: Any = None) -> None:
    """Copies arrays of ours, by the names of `named_variables`, into the twin.

    Raises:
      ValueError: a name without a counterpart, or an array of another shape.
    """
    targets = named_tensors(model, critic)
    if set(targets) != set(arrays):
        raise ValueError(f"no counterpart for {sorted(set(targets) ^ set(arrays))}.")
    with torch.no_grad():
        for name, target in targets.items():
            array = converted(name, arrays[name], model, critic)
            if array.shape != tuple(target.shape):
                raise ValueError(f"{name} is {list(array.shape)} here and {list(target.shape)} in the twin.")
            target.copy_(torch.from_numpy(array.copy()))
