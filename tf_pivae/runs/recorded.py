"""The settings that `RUN/config.gin` records, as text: nothing is built, neither gin nor TensorFlow is imported."""

import re


def bindings(config: str) -> dict[str, str]:
    """The statements of gin text written by gin itself: name -> value, both text.

    A value that gin broke into several lines is joined into one.
    """
    values: dict[str, str] = {}
    name = None
    for line in config.splitlines():
        statement = re.match(r"([\w./]+) = ?(.*)", line)
        if statement:
            name = statement[1]
            values[name] = statement[2].rstrip("\\").strip()
        elif name and line.startswith((" ", "\t")):
            values[name] = f"{values[name]} {line.strip()}".strip()
        elif not line.strip() or line.startswith("#"):
            name = None
    return values


def setting(config: str, name: str) -> str | None:
    """The value of a binding as text, a macro's looked up; None where there is no such binding."""
    values = bindings(config)
    value = values.get(name)
    return values.get(value[1:]) if value and value.startswith("%") else value
