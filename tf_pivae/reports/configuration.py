"""The configurations, and what differs between them."""

import re

from tf_pivae.reports.markup import note, table, tag


def bindings(config):
    """The statements of gin text written by gin itself: dict of name -> value, both text.

    A value that gin broke into several lines is joined into one.
    """
    found, name = {}, None
    for line in config.splitlines():
        statement = re.match(r"([\w./]+) = ?(.*)", line)
        if statement:
            name = statement[1]
            found[name] = statement[2].rstrip("\\").strip()
        elif name and line.startswith((" ", "\t")):
            found[name] = f"{found[name]} {line.strip()}".strip()
        elif not line.strip() or line.startswith("#"):
            name = None
    return found


def setting(config, name):
    """The value of a binding as text, a macro's looked up; None where there is no such binding."""
    found = bindings(config)
    value = found.get(name)
    return found.get(value[1:]) if value and value.startswith("%") else value


def differences(configs):
    """The bindings that are not the same in all configurations.

    Args:
      configs: list of dicts, see `bindings`.

    Returns:
      dict of name -> list of values, one for each configuration; None where it has no such binding.
    """
    names = sorted({name for config in configs for name in config}, key=_order)
    rows = {name: [config.get(name) for config in configs] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _order(name):
    """Macros, which a user turns first, before the rest."""
    return "." in name, name.lower()


def render(runs):
    """The section: what differs, then everything."""
    configs = [bindings(run.config) for run in runs]
    parts = []
    if len(runs) > 1:
        rows = [[tag("code", name), *map(_value, values)] for name, values in differences(configs).items()]
        header = ["Setting", *(run.name for run in runs)]
        parts.append(table("Settings that differ", header, rows) if rows else note("The configurations are the same."))
    for run, config in zip(runs, configs, strict=True):
        rows = [[tag("code", name), _value(config[name])] for name in sorted(config, key=_order)]
        caption = f"Settings of {run.name}: {len(rows)}, as its config.gin has them"
        summary = tag("summary", f"Everything that {run.name} was built from")
        parts.append(tag("details", summary, table(caption, ["Setting", "Value"], rows)))
    return parts


def _value(value):
    return tag("span", "not set", class_="missing") if value is None else tag("code", value)
