"""Builds the site into site/: python docs/build_site.py

Gathers its pages in a temporary folder: those of docs/, Markdown from elsewhere, the tour, and one for each module,
which mkdocstrings fills from the docstrings. docs/mkdocs.yml says where each stands. A dead link is exit status 1.
"""

import ast
import json
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tf_pivae.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "site"
# File of the repository -> page, where they are not those of docs/.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "tf_pivae/pretrained/fashion_mnist/model_card.md": "model_card.md",
    "tf_pivae/pretrained/people/model_card.md": "people_card.md",
    "docs/tour.ipynb": "tour.md",
}
_START = """# Reference

A page for each module, from its docstrings. `tf_pivae.load`, `tf_pivae.pretrained`, `tf_pivae.PiVAE`,
`tf_pivae.UserError` and `tf_pivae.metrics` are the names at the top. Arrays are described as dtype and shape, such as
uint8 [B, H, W, C]; log-probabilities are in nats, bits per dimension in bits.

| module | what |
|---|---|
"""


def build(output: Path) -> None:
    """Writes the site into `output`, a new folder.

    Raises:
      SystemExit: a page that stands nowhere in the navigation, or what the generator found.
    """
    pages = _pages()
    with tempfile.TemporaryDirectory() as folder:
        configuration = _configuration()
        missing = pages.keys() - set(re.findall(r"[\w/]+\.md\b", json.dumps(configuration["nav"])))
        if missing:
            sys.exit(f"error: the navigation in docs/mkdocs.yml lacks {', '.join(sorted(missing))}.")
        for name, text in pages.items():
            page = Path(folder, "docs", name)
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, "utf-8")
        for pattern in ("*.png", "*.css"):
            for path in (ROOT / "docs").rglob(pattern):
                copy = Path(folder, "docs", path.relative_to(ROOT / "docs"))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        Path(folder, "mkdocs.yml").write_text(yaml.safe_dump(configuration, sort_keys=False), "utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", f"{folder}/mkdocs.yml"]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode != 0:
            sys.exit(result.stdout)
        shutil.copytree(Path(folder, "site"), output)


def _configuration() -> dict[str, Any]:
    configuration = yaml.safe_load((ROOT / "docs/mkdocs.yml").read_text("utf-8"))
    (mkdocstrings,) = (plugin["mkdocstrings"] for plugin in configuration["plugins"] if "mkdocstrings" in plugin)
    python = mkdocstrings["handlers"]["python"]
    python["paths"] = [str(ROOT)]
    python["options"]["extensions"] = [str(ROOT / "docs/docstrings.py")]
    for section in configuration["nav"]:
        if "Reference" in section:
            section["Reference"] += _reference()
    return configuration


def _pages() -> dict[str, str]:
    """Page -> Markdown."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    files = {name for name in files if not name.startswith("docs/results/")}  # Those are in docs/results.md.
    targets = ELSEWHERE | {name: name.removeprefix("docs/") for name in files}
    pages = {}
    for name, target in targets.items():
        text = (ROOT / name).read_text("utf-8")
        text = (
            _notebook(text) if name.endswith(".ipynb") else re.sub(r"(?m)^(```\w+) file=(\S+)$", r'\1 title="\2"', text)
        )
        pages[target] = _with_links_to_pages(text, name, targets)
    pages |= {page_of(module, path): f"::: {module}\n" for module, path in modules().items()}
    pages["reference/index.md"] = _START + "".join(_row(module, path) for module, path in modules().items())
    return pages


def _with_links_to_pages(text: str, name: str, targets: dict[str, str]) -> str:
    """Leads links between files of the repository to their pages; of one to another file, its text stays."""

    def led(match: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[2]))
        if file in targets:
            target = posixpath.relpath(targets[file], posixpath.dirname(targets[name]) or ".")
            return f"[{match[1]}]({target}{match[3] or ''})"
        if file.startswith("docs/") or not (ROOT / file).exists():
            return match[0]
        return match[1]

    return re.sub(r"(?<!!)\[([^]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)", led, text.replace("](docs/pictures/", "](pictures/"))


def _notebook(text: str) -> str:
    """A notebook as Markdown: its code in blocks."""
    cells = json.loads(text)["cells"]
    parts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    return "\n\n".join(f"```python\n{source}\n```" if code else source for source, code in parts) + "\n"


def modules() -> dict[str, Path]:
    """The public modules, a package before what is in it. In a clone, tf_pivae.export is the folder export/."""
    files = {}
    for path in [*(ROOT / "tf_pivae").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        name = re.sub(r"^export\b", "tf_pivae.export", ".".join(path.relative_to(ROOT).with_suffix("").parts))
        name = name.removesuffix(".__init__")
        if not re.search(r"\._", name):
            files[name] = path
    return dict(sorted(files.items()))


def page_of(module: str, path: Path) -> str:
    """Where a module's page lies; a package's is the index of its folder."""
    name = "index" if path.stem == "__init__" else path.stem
    return "/".join(["reference", *module.split(".")[1 : None if name == "index" else -1], f"{name}.md"])


def _reference() -> list[dict[str, list[Any]]]:
    """The navigation of the Reference: a section for each package, one for what lies beside them, one of commands."""
    sections: dict[str, list[Any]] = {"tf_pivae": []}
    commands = []
    for module, path in modules().items():
        _, *names = module.split(".")
        page = page_of(module, path)
        if path.stem == "__init__" and len(names) < 2:
            sections.setdefault(module if not names else names[0], []).insert(0, page)
        elif ".".join(names) in COMMANDS:
            commands.append({".".join(names): page})
        else:
            sections.setdefault(names[0] if names[1:] else "tf_pivae", []).append({".".join(names[1:] or names): page})
    return [*({name: pages} for name, pages in sections.items()), {"commands": commands}]


def _row(module: str, path: Path) -> str:
    """A module in the table of all: the first sentence of its docstring."""
    about = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.) ", about)[0]
    target = page_of(module, path).removeprefix("reference/")
    return f"| [{module}]({target}) | {sentence} |\n"


def main() -> None:
    """The command."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    build(OUTPUT)
    print(f"{OUTPUT.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
