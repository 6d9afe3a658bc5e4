"""Which variables of a training hold NaN or infinity."""

import keras
import numpy as np


def describe_non_finite(groups: dict[str, list]) -> str | None:
    """Names the variables that hold NaN or infinity.

    Args:
      groups: dict of a group's name ("pivae", "critic_optimizer", ...) -> list of Keras variables.

    Returns:
      The first such variable of each group, "critic_optimizer/..._momentum holds NaN (3 of 64 values are not finite)",
      joined by commas; or None if every value is finite.
    """
    firsts = [_first(group, variables) for group, variables in groups.items()]
    return ", ".join(text for text in firsts if text) or None


def _first(group, variables):
    for variable in variables:
        if keras.ops.all(keras.ops.isfinite(variable)):
            continue  # Nothing was copied.
        value = keras.ops.convert_to_numpy(variable)
        bad = value[~np.isfinite(value)]
        if bad.size:
            path = variable.path if variable.path.startswith(f"{group}/") else f"{group}/{variable.path}"
            kind = "NaN" if np.isnan(bad.flat[0]) else "infinity"
            return f"{path} holds {kind} ({bad.size} of {value.size} values are not finite)"
    return None
