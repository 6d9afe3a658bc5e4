"""SavedModel export."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_pivae.export.runtimes.local_model import load

__all__ = ["load"]


def __getattr__(name: str) -> object:
    """`load`, when it is first used: the commands in this package do without its modules."""
    if name == "load":
        from tf_pivae.export.runtimes.local_model import load

        return load
    raise AttributeError(f"module 'tf_pivae.export' has no attribute {name!r}")
