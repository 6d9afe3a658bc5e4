"""The page in Chromium at three widths and in both colour schemes, by mouse and by keyboard; nothing is fetched."""

import itertools

import pytest
from browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt-get install chromium")

# Contrast of every text with what lies behind it (WCAG 2.1, relative luminance): the pairs below 4.5.
_CONTRAST = """
(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = luminance(parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color));
    const ground = luminance(behind(element));
    const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    seen += 1;
    if (contrast < 4.5) poor.add(`${element.tagName} ${element.className} ${contrast.toFixed(2)}`);
  }
  return [seen, [...poor]];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(find_chromium(), tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, made_up_page):
    """The browser with the page freshly opened."""
    browser.open(made_up_page)
    yield browser
    assert browser.errors == []


# Words that stand in two lines. Between two words there is a space, or a sign that names and paths are made with.
_BROKEN_WORDS = """
(() => {
  const broken = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  let seen = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (["SCRIPT", "NOSCRIPT", "OUTPUT"].includes(node.parentElement.tagName)) continue;
    for (const word of node.data.matchAll(/[^\\s\\/.,:;=)>-]+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const tops = new Set([...range.getClientRects()].filter((r) => r.width > 0).map((r) => Math.round(r.top)));
      seen += tops.size > 0;
      if (tops.size > 1) broken.push(word[0]);
    }
  }
  return [seen, broken];
})()
"""
_OPEN_ALL = "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
_SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_HEIGHTS = {390: 844, 768: 1024, 1280: 900}  # A phone, a tablet, a laptop.


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", _HEIGHTS)
@pytest.mark.parametrize("which", ["made_up_page", "bare_page"])
def test_renders_everywhere_and_fetches_nothing(browser, request, which, width, dark):
    path = request.getfixturevalue(which)
    browser.open(path, width=width, height=_HEIGHTS[width], dark=dark)
    first = browser.evaluate("document.querySelector('.frames, #samples .note').getBoundingClientRect().top")
    assert first < _HEIGHTS[width] - 100, "pictures come first, on the first screen"
    browser.evaluate(_OPEN_ALL)
    browser.evaluate(_SETTLED)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") == width, "scrolls sideways"
    count, words = browser.evaluate(_BROKEN_WORDS)
    assert count > 150
    assert words == []
    broken = "[...document.images].filter((image) => !image.hidden && !image.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 27)") == dark
    count, poor = browser.evaluate(_CONTRAST)
    assert count > 50
    assert poor == []


def test_a_hostile_name_stays_a_name(page, made_up):
    runs, _ = made_up
    assert page.evaluate("document.title") == f"Report: a, {runs[1].name}"


def test_console_errors_and_requests_are_noticed(browser, tmp_path):
    """The two checks above can fail."""
    path = tmp_path / "bad.html"
    path.write_text('<p>x</p><img src="other.png"><script>console.error("spoken"); undefined.thrown</script>')
    browser.open(path)
    assert any("spoken" in error for error in browser.errors)
    assert any("TypeError" in error for error in browser.errors)
    assert (tmp_path / "other.png").resolve().as_uri() in browser.requests


def _steps_on_page(page):
    """The step of each run's visible picture."""
    visible = "[...document.querySelectorAll('.frames img')].filter((image) => image.offsetWidth)"
    return page.evaluate(f"{visible}.map((image) => image.dataset.step)")


def test_slider_with_the_keyboard(page):
    """Steps 20, 60, 100 of one run and 40, 80 of the other, whose model draws that of step 100: each its newest."""
    assert _steps_on_page(page) == ["100", "100"]
    page.evaluate("document.getElementById('samples-step').focus()")
    expected = {"Home": ["20", "40"], "ArrowRight": ["20", "40"], "End": ["100", "100"], "ArrowLeft": ["60", "80"]}
    labels = {"Home": "step 20", "ArrowRight": "step 40", "End": "step 100", "ArrowLeft": "step 80"}
    for key, steps in expected.items():
        page.press(key)
        assert _steps_on_page(page) == steps, key
        assert page.evaluate("document.getElementById('samples-shown').textContent") == labels[key]
        assert page.evaluate("document.getElementById('samples-step').ariaValueText") == labels[key]
        captions = page.evaluate("[...document.querySelectorAll('.at')].map((at) => at.textContent)")
        assert captions == [f"step {step}" for step in steps]


def test_slider_with_the_mouse(page):
    page.drag("#samples-step", 0.99, 0.26)
    assert page.evaluate("document.getElementById('samples-shown').textContent") == "step 40"
    assert _steps_on_page(page) == ["20", "40"]


CHART = ".chart[data-metric=bits_per_dim]"
ELEMENT = f"document.querySelector('{CHART}')"


def _range(page):
    return page.evaluate("document.getElementById('curves-range').textContent")


def test_curves_lie_where_their_numbers_say(page):
    """Points of the drawn path, put back on the scales that the axes' labels give, are the recorded values."""
    points, xs, ys = page.evaluate(
        f"""(() => {{
          const chart = {ELEMENT};
          const path = chart.querySelector(".curve.run0").getAttribute("d");
          const texts = [...chart.querySelectorAll("text")].map((t) =>
            [Number(t.textContent), Number(t.getAttribute("x")), Number(t.getAttribute("y")) - 4]);
          const left = Math.min(...texts.map((t) => t[1]));
          return [path.slice(1).split("L").map((p) => p.split(",").map(Number)),
                  texts.filter((t) => t[1] > left), texts.filter((t) => t[1] === left)];
        }})()"""
    )
    (x0, at0), (x1, at1) = [(value, x) for value, x, _ in xs][:2]
    (y0, down0), (y1, down1) = [(value, y) for value, _, y in ys][:2]
    per_x = (x1 - x0) / (at1 - at0)
    per_y = (y1 - y0) / (down1 - down0)
    for (x, y), step in zip(points, range(10, 101, 10), strict=True):
        # Drawn to a tenth of a unit: off by half of that at most.
        assert x0 + (x - at0) * per_x == pytest.approx(step, abs=0.051 * abs(per_x))
        assert y0 + (y - down0) * per_y == pytest.approx(4 + 30 / step, abs=0.051 * abs(per_y))


def test_a_value_that_is_not_finite_breaks_the_curve(page):
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    path = page.evaluate("document.querySelector('.chart[data-metric=gradient_norm] .curve').getAttribute('d')")
    assert path.count("M") == 2
    assert path.count("L") == 7


def test_zoom_by_buttons(page):
    assert _range(page) == "steps 10 to 100"
    expected = [("in", "steps 33 to 78"), ("left", "steps 21 to 66"), ("right", "steps 33 to 78"),
                ("out", "steps 10 to 100"), ("in", "steps 33 to 78"), ("reset", "steps 10 to 100")]  # fmt: skip
    for action, steps in expected:
        page.evaluate(f"document.querySelector('[data-zoom={action}]').click()")
        assert _range(page) == steps, action


def test_zoom_by_keys_on_a_chart(page):
    page.evaluate(f"{ELEMENT}.focus()")
    for key, steps in [("+", "steps 33 to 78"), ("ArrowRight", "steps 44 to 89"), ("-", "steps 10 to 100"),
                       ("+", "steps 33 to 78"), ("0", "steps 10 to 100")]:  # fmt: skip
        page.press(key)
        assert _range(page) == steps, key


def test_zoom_by_dragging_redraws_every_chart(page):
    last = "[...document.querySelectorAll('.chart')].map((c) => c.querySelector('.curve')?.getAttribute('d'))"
    before = page.evaluate(last)
    page.drag(CHART, 0.3, 0.7)
    low, high = (int(number) for number in _range(page).replace("steps ", "").split(" to "))
    assert 15 < low < 40 < 60 < high < 85
    after = page.evaluate(last)
    assert all(a is None or a != b for a, b in zip(before, after, strict=True))
    assert page.evaluate(f"{ELEMENT}.closest('figure').querySelector('.readout').textContent")


def _oklab_distance(a, b):
    """How different two colours "rgb(r, g, b)" look (Ottosson 2020); black and white are 1 apart."""

    def oklab(colour):
        r, g, b = (float(value) / 255 for value in colour.strip("rgb()").split(","))
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b))
        long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
        middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
        short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
        return (
            0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
            1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
            0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
        )

    return sum((x - y) ** 2 for x, y in zip(oklab(a), oklab(b), strict=True)) ** 0.5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_waterfall_has_colours_of_its_own(browser, made_up_page, dark):
    browser.open(made_up_page, dark=dark)
    read = """
      (classes) => classes.map((name) => {
        const probe = document.body.appendChild(document.createElement("span"));
        probe.className = name;
        const color = getComputedStyle(probe).backgroundColor;
        probe.remove();
        return color;
      })
    """
    names = [f"swatch run{i}" for i in range(6)], ["bar whole", "bar saves"]
    runs, bars = (browser.evaluate(f"({read})({list(classes)})") for classes in names)
    page = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len({*runs, *bars, page}) == 9
    assert min(_oklab_distance(a, b) for a, b in itertools.product(bars, [*runs, page])) > 0.1
    assert _oklab_distance(*bars) > 0.2
    drawn = "getComputedStyle(document.querySelector('.bar.saves')).backgroundColor"
    assert browser.evaluate(drawn) == bars[1]


def test_each_bar_of_the_waterfall_begins_below_the_end_of_the_one_above(page):
    """In pixels on the screen, the thin lines between them included."""
    boxes = page.evaluate(
        """[...document.querySelectorAll(".waterfall tbody tr")].map((row) => {
          const box = (name) => {
            const found = row.querySelector(".bars " + name)?.getBoundingClientRect();
            return found && [found.left, found.right, found.top, found.bottom];
          };
          return [box(".bar"), box(".from"), box(".to")];
        })"""
    )
    assert len(boxes) == 6
    for (bar, _, to), (below, from_, _) in itertools.pairwise(boxes):
        assert to[0] == pytest.approx(from_[0], abs=1.1)
        assert to[3] == pytest.approx(from_[2], abs=1.1), "a gap between the rows"
        assert min(abs(to[0] - end) for end in bar[:2]) < 2.1
        assert min(abs(from_[0] - end) for end in below[:2]) < 2.1


def test_a_wide_table_scrolls_inside_itself_with_the_keyboard(browser, made_up_page):
    """On a phone; where tables fit they are no stops of the tab key."""
    browser.open(made_up_page)
    stops = "[...document.querySelectorAll('.scroll[tabindex]')].length"
    wide = browser.evaluate(stops)
    browser.open(made_up_page, width=390, height=844)
    assert browser.evaluate(stops) > wide
    table = "document.querySelector('#bits-per-dimension-by-term .scroll')"
    browser.evaluate(f"{table}.focus()")
    for _ in range(3):
        browser.press("ArrowRight")
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")  # It glides there.
    scrolled, heading, page = browser.evaluate(
        f"""[{table}.scrollLeft, {table}.querySelector("tbody th").getBoundingClientRect().left,
             document.documentElement.scrollLeft]"""
    )
    assert scrolled > 50
    assert page == 0
    assert 0 <= heading < 40, "the rows' names stay in sight"


def test_sections_open_and_are_reached_without_a_mouse(page):
    """The first stop leads past the navigation; Enter opens what is folded; what has the focus is not covered."""
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.press("Enter")
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "samples-step"
    page.evaluate("document.querySelector('#settings summary').focus()")
    page.press("Enter")
    assert page.evaluate("document.querySelector('#settings details').open")
    covered = """(() => {
      const box = document.activeElement.getBoundingClientRect();
      return document.activeElement.contains(document.elementFromPoint(box.left + 12, box.top + box.height / 2));
    })()"""
    assert page.evaluate(covered)
    page.press("Enter")
    assert not page.evaluate("document.querySelector('#settings details').open")


def test_every_control_is_reached_with_the_tab_key(page):
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    reached = []
    for _ in range(60):
        page.press("Tab")
        name = "((e) => e.id || e.dataset.zoom || e.className || e.tagName)(document.activeElement)"
        reached.append(page.evaluate(name))
    assert {"in", "out", "left", "right", "reset", "chart", "samples-step", "SUMMARY"} <= set(reached)
    page.evaluate(f"{ELEMENT}.focus()")
    assert page.evaluate(f"getComputedStyle({ELEMENT}).outlineStyle") == "solid"
