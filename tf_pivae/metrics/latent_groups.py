"""Which groups of latents a model uses: those whose posterior tells something about an image."""

from __future__ import annotations

from collections.abc import Mapping

MIN_GROUP_BITS = (
    1.0  # of an image, on average: with less, a group cannot even tell one half of the images from the other
)


def groups_in_use(kl_bits_by_group: Mapping[str, float]) -> list[str]:
    """The groups that carry at least `MIN_GROUP_BITS` bits of an image, in the order given.

    Args:
      kl_bits_by_group: a group's name -> its KL from posterior to prior, bits per image, the mean over images.

    Returns:
      list of names. A KL that is NaN counts as used: nothing shows that it is not.
    """
    return [name for name, bits in kl_bits_by_group.items() if not bits < MIN_GROUP_BITS]


def describe_groups(kl_bits_by_group: Mapping[str, float]) -> str:
    """One sentence: how many groups are in use and which, and what is true of the others."""
    used = groups_in_use(kl_bits_by_group)
    count = len(kl_bits_by_group)
    unit = f"{MIN_GROUP_BITS:g} bit of an image (its KL)"
    if not used:
        return f"None of {count} latent groups is in use: each carries less than {unit}."
    if len(used) == count:
        return f"All latent groups are in use ({', '.join(used)}): each carries at least {unit}."
    verb = "is" if len(used) == 1 else "are"
    others = "the other" if count - len(used) == 1 else "each of the others"
    return f"{len(used)} of {count} latent groups {verb} in use ({', '.join(used)}); {others} carries less than {unit}."
