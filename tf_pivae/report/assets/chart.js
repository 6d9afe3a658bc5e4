// Draws one chart of curves over the steps as SVG, at the size that its element has.

const MARGIN = { left: 52, right: 8, top: 8, bottom: 22 };

function svgElement(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Round numbers between low and high, about `wanted` of them.
function roundNumbers(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= raw * 0.999);
  const numbers = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step); i++) numbers.push(i * step);
  return numbers;
}

function shortNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

// Points of the curve between the steps of the view, and one more to either side, so that lines go on to the edge.
function visiblePoints(curve, view) {
  const points = curve.steps.map((step, i) => ({ step, value: curve.values[i] }));
  let first = points.findIndex((point) => point.step >= view.low);
  if (first < 0) first = points.length;
  let end = points.findIndex((point) => point.step > view.high);
  if (end < 0) end = points.length;
  return points.slice(Math.max(0, first - 1), end + 1);
}

// The values' range in the view, with a little air; points beyond the edges do not count unless there are no others.
function valueRange(curves, view) {
  const shown = curves.flatMap((curve) => visiblePoints(curve, view)).filter((point) => point.value !== null);
  const inside = shown.filter((point) => point.step >= view.low && point.step <= view.high);
  const values = (inside.length ? inside : shown).map((point) => point.value);
  if (!values.length) return { low: 0, high: 1 };
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const air = 0.06 * (high - low) || 0.1 * Math.abs(high) || 0.5;
  return { low: low - air, high: high + air };
}

// element: .chart; chart: {title, curves: [{run, steps, values}]}; view: {low, high}, steps.
// Returns {toStep, toX}: where a place of the element lies on the scale of the steps, and the other way round.
function drawChart(element, chart, view) {
  const width = element.clientWidth, height = element.clientHeight;
  const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
  const range = valueRange(chart.curves, view);
  const toX = (step) => MARGIN.left + ((step - view.low) / (view.high - view.low)) * (right - MARGIN.left);
  const toY = (value) => bottom - ((value - range.low) / (range.high - range.low)) * (bottom - MARGIN.top);
  const toStep = (x) => view.low + ((x - MARGIN.left) / (right - MARGIN.left)) * (view.high - view.low);

  const svg = svgElement("svg", { "aria-hidden": "true", viewBox: `0 0 ${width} ${height}` });
  for (const value of roundNumbers(range.low, range.high, 6)) {
    svg.append(svgElement("line", { class: "grid", x1: MARGIN.left, x2: right, y1: toY(value), y2: toY(value) }));
    svg.append(svgElement("text", { x: MARGIN.left - 6, y: toY(value) + 4, "text-anchor": "end" }, shortNumber(value)));
  }
  for (const step of roundNumbers(view.low, view.high, 5)) {
    const anchor = toX(step) > right - 16 ? "end" : "middle";
    svg.append(svgElement("text", { x: toX(step), y: height - 6, "text-anchor": anchor }, shortNumber(step)));
  }
  // A nested drawing cuts off what lies outside the axes.
  const size = { x: MARGIN.left, y: 0, width: Math.max(1, right - MARGIN.left), height: bottom };
  const plot = svgElement("svg", { ...size, viewBox: `${MARGIN.left} 0 ${size.width} ${bottom}` });
  for (const curve of chart.curves) {
    const color = `run${curve.run % 6}`;
    let path = "", pen = "M";
    const points = visiblePoints(curve, view);
    for (const { step, value } of points) {
      if (value === null) { pen = "M"; continue; }
      path += `${pen}${toX(step).toFixed(1)},${toY(value).toFixed(1)}`;
      pen = "L";
    }
    plot.append(svgElement("path", { class: `curve ${color}`, d: path || "M0,0" }));
    if (points.length < 12) {
      for (const { step, value } of points) {
        if (value === null) continue;
        plot.append(svgElement("circle", { class: `point ${color}`, cx: toX(step), cy: toY(value), r: 2.5 }));
      }
    }
  }
  svg.append(plot);
  element.replaceChildren(svg);
  return { toStep, toX };
}
