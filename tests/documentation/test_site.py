"""The site that `make docs` builds: complete, without dead links, and of one piece."""

import ast
import html
import importlib.util
import re

import pages
import pytest

pytest.importorskip("zensical", reason="the extra `docs` needs Python 3.11")
SPECIFICATION = importlib.util.spec_from_file_location("build_site", pages.ROOT / "docs/build_site.py")
build_site = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(build_site)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: whatever the generator warns of would end this."""
    folder = tmp_path_factory.mktemp("built") / "site"
    build_site.build(folder)
    return folder


def _text(page):
    """What a page says, without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", page.read_text("utf-8")))


def _defined(path):
    """Public functions and classes of a module that have a docstring."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, kinds)]
    return {node.name for node in nodes if ast.get_docstring(node) and not node.name.startswith("_")}


def test_every_public_module_function_and_class_has_its_place(site):
    index = (site / "reference/index.html").read_text("utf-8")
    modules = build_site.modules()
    assert {
        "tf_pivae",
        "tf_pivae.models.pivae",
        "tf_pivae.export.write.saved_model",
        "tf_pivae.__main__",
    } & modules.keys() == {
        "tf_pivae",
        "tf_pivae.models.pivae",
        "tf_pivae.export.write.saved_model",
    }
    for module, path in modules.items():
        page = build_site.page_of(module, path).replace(".md", ".html")
        assert f'href="{page.removeprefix("reference/")}"' in index, module
        anchors = set(re.findall(r' id="?([\w.]+)', (site / page).read_text("utf-8")))
        assert {f"{module}.{name}" for name in _defined(path)} <= anchors, module


def test_every_page_can_be_reached_from_the_first(site):
    reached = set()
    waiting = [site / "index.html"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            targets = re.findall(r'href="?([^" >#]+\.html)', page.read_text("utf-8"))
            waiting += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert reached == {page.resolve() for page in site.rglob("*.html")} - {site / "404.html"}


def test_every_picture_and_program_is_there(site):
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:src|href)="?([^" >#?]+)', page.read_text("utf-8")):
            assert "://" in target or page.name == "404.html" or (page.parent / target).exists(), f"{page}: {target}"


def test_nothing_is_loaded_from_a_network(site):
    loads = r"""<(?!a\b)[^>]*\b(?:src|href|srcset|action|data)=["']?(?:https?:)?//[^>]*>"""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(loads, text), page
        # What the theme's program would fetch a library for.
        assert not re.search(r'class="?[^">]*\b(mermaid|glightbox|pyodide)\b', text), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", sheet.read_text("utf-8")), sheet


def test_formulas_and_fields_keep_their_lines(site):
    coupling = _text(site / "reference/bijectors/coupling.html")
    assert "\nforward    y = exp(s) x + t             log-det    sum s\ninverse" in f"\n{coupling}"
    assert "reconstruction: tf.Tensor  # [B], log p(y|z)\nkl: " in _text(site / "reference/models/pivae.html")


def test_the_tour_and_files_from_elsewhere_are_pages(site):
    assert "tf_pivae.pretrained()" in _text(site / "tour.html")
    assert 'href="model_card.html"' in (site / "index.html").read_text("utf-8")
    assert 'href="../commands.html"' in (site / "guides/own_images.html").read_text("utf-8")
    assert "mixing.py" in re.search(r'class="?filename[^>]*>([^<]*)', (site / "guides/extending.html").read_text())[1]


@pytest.mark.parametrize("link", ["[a](nowhere.md)", "[a](memory.md#nowhere)", "[a][tf_pivae.nowhere]"])
def test_a_dead_link_ends_the_build(monkeypatch, tmp_path, link):
    names = {name: "# A page\n" for name in build_site._pages() if not name.startswith("reference/")}
    monkeypatch.setattr(build_site, "_pages", lambda: names | {"reference/index.md": f"# A page\n\n{link}\n"})
    monkeypatch.setattr(build_site, "_reference", list)
    with pytest.raises(SystemExit, match=r"reference/index\.md:3") as caught:
        build_site.build(tmp_path / "site")
    assert caught.value.code != 0
    assert not (tmp_path / "site").exists()


def test_a_page_without_a_place_in_the_navigation_ends_the_build(monkeypatch, tmp_path):
    pages_of_the_site = build_site._pages()
    monkeypatch.setattr(build_site, "_pages", lambda: pages_of_the_site | {"guides/lost.md": "# Lost\n"})
    with pytest.raises(SystemExit, match=r"lacks guides/lost\.md"):
        build_site.build(tmp_path / "site")
