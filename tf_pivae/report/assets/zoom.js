// Zoom of all charts together: buttons, keys, dragging; and the values under the pointer.
{
  const source = document.getElementById("curves-data");
  if (source) {
    const { runs, charts } = JSON.parse(source.textContent);
    const steps = charts.flatMap((chart) => chart.curves.flatMap((curve) => curve.steps));
    const first = steps.reduce((a, b) => Math.min(a, b), Infinity);
    const last = steps.reduce((a, b) => Math.max(a, b), -Infinity);
    const whole = { low: first, high: Math.max(last, first + 1) };
    let view = { ...whole };
    const drawn = new Map();

    const draw = (element) => {
      if (!element.clientWidth) return; // In a closed <details>: drawn when it opens.
      const chart = charts.find((candidate) => candidate.metric === element.dataset.metric);
      drawn.set(element, { chart, ...drawChart(element, chart, view) });
    };
    const elements = [...document.querySelectorAll(".chart")];
    const look = (low, high) => {
      const span = Math.min(Math.max(high - low, 1), whole.high - whole.low);
      low = Math.min(Math.max(low, whole.low), whole.high - span);
      view = { low, high: low + span };
      document.getElementById("curves-range").textContent =
        `steps ${Math.round(view.low)} to ${Math.round(view.high)}`;
      elements.forEach(draw);
    };
    const actions = {
      in: () => look(view.low + (view.high - view.low) / 4, view.high - (view.high - view.low) / 4),
      out: () => look(view.low - (view.high - view.low) / 2, view.high + (view.high - view.low) / 2),
      left: () => look(view.low - (view.high - view.low) / 4, view.high - (view.high - view.low) / 4),
      right: () => look(view.low + (view.high - view.low) / 4, view.high + (view.high - view.low) / 4),
      reset: () => look(whole.low, whole.high),
    };
    const keys = {
      "+": "in", "=": "in", "-": "out", "−": "out", ArrowLeft: "left", ArrowRight: "right", 0: "reset", Escape: "reset",
    };
    for (const button of document.querySelectorAll("button[data-zoom]")) {
      button.addEventListener("click", () => actions[button.dataset.zoom]());
    }

    // The values at the recorded step nearest to the pointer, in the chart's caption.
    const readOut = (element, x) => {
      const { chart, toStep, toX } = drawn.get(element);
      const wanted = toStep(x);
      const texts = chart.curves.map((curve) => {
        const nearest = curve.steps.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
        const value = curve.values[curve.steps.indexOf(nearest)];
        const text = `${nearest}: ${value === null ? "–" : shortNumber(value)}`;
        return { nearest, text: runs.length > 1 ? `${runs[curve.run]} ${text}` : `step ${text}` };
      });
      element.parentElement.querySelector(".readout").textContent = texts.map(({ text }) => text).join(" · ");
      const svg = element.querySelector("svg");
      svg.querySelector(".cursor")?.remove();
      const place = toX(texts[0].nearest);
      const line = { class: "cursor", x1: place, x2: place, y1: MARGIN.top, y2: element.clientHeight - MARGIN.bottom };
      svg.append(svgElement("line", line));
    };
    const forget = (element) => {
      element.parentElement.querySelector(".readout").textContent = "";
      element.querySelector(".cursor")?.remove();
    };

    for (const element of elements) {
      let start = null;
      const place = (event) => event.clientX - element.getBoundingClientRect().left;
      element.addEventListener("keydown", (event) => {
        const action = keys[event.key];
        if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        actions[action]();
      });
      element.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        start = place(event);
        element.setPointerCapture(event.pointerId);
      });
      element.addEventListener("pointermove", (event) => {
        if (!drawn.has(element)) return;
        readOut(element, place(event));
        if (start === null) return;
        const svg = element.querySelector("svg");
        svg.querySelector(".selection")?.remove();
        const [from, to] = [start, place(event)].sort((a, b) => a - b);
        svg.append(svgElement("rect", {
          class: "selection", x: from, y: MARGIN.top, width: to - from,
          height: element.clientHeight - MARGIN.top - MARGIN.bottom,
        }));
      });
      element.addEventListener("pointerup", (event) => {
        if (start === null) return;
        const [from, to] = [start, place(event)].sort((a, b) => a - b);
        start = null;
        const { toStep } = drawn.get(element);
        if (to - from > 6) look(toStep(from), toStep(to));
        else element.querySelector(".selection")?.remove();
      });
      element.addEventListener("pointercancel", () => { start = null; draw(element); });
      element.addEventListener("pointerleave", () => { if (start === null) forget(element); });
      element.addEventListener("dblclick", actions.reset);
    }

    const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => draw(target)));
    elements.forEach((element) => observer.observe(element));
    actions.reset();
  }
}
