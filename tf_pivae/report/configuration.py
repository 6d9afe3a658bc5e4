"""The configurations, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence

from tf_pivae.report.markup import Html, breakable, folded, note, table, tag
from tf_pivae.report.run import Run
from tf_pivae.runs.recorded import bindings


def differences(configs: Sequence[dict[str, str]]) -> dict[str, list[str | None]]:
    """The bindings that are not the same in all configurations.

    Args:
      configs: see `recorded.bindings`.

    Returns:
      name -> its values, one for each configuration; None where it has no such binding.
    """
    names = sorted({name for config in configs for name in config}, key=_order)
    rows = {name: [config.get(name) for config in configs] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _order(name: str) -> tuple[bool, str]:
    """Sorts macros, which users change first, before the rest."""
    return "." in name, name.lower()


def render(runs: Sequence[Run]) -> list[Html]:
    """The section, folded: what differs, then everything."""
    configs = [bindings(run.config) for run in runs]
    parts = []
    if len(runs) > 1:
        rows = [[_name(name), *map(_value, values)] for name, values in differences(configs).items()]
        differing = table("Settings that differ", ["Setting", *(run.name for run in runs)], rows)
        parts.append(
            folded(f"Settings that differ: {len(rows)}", differing)
            if rows
            else note("The configurations are the same.")
        )
    for run in runs:
        rows = [
            [f"{entry['from_step']:,}", _name(name), *map(_value, pair)]
            for entry in run.changes
            for name, pair in entry["settings"].items()
        ]
        if rows:
            caption = f"Settings of {run.name} that changed on the way"
            parts.append(folded(f"{caption}: {len(rows)}", table(caption, ["From step", "Setting", "Was", "Is"], rows)))
    for run, config in zip(runs, configs, strict=True):
        rows = [[_name(name), _value(config[name])] for name in sorted(config, key=_order)]
        caption = f"Settings of {run.name}: {len(rows)}, as its config.gin has them"
        parts.append(folded(f"Everything that {run.name} was built from", table(caption, ["Setting", "Value"], rows)))
    return parts


def _name(name: str) -> Html:
    return tag("code", breakable(name))


def _value(value: str | None) -> Html:
    return tag("span", "not set", class_="missing") if value is None else tag("code", breakable(value))
