// Curves: a chart for each quantity, one cursor for all of them, values in the legend.
const MARGIN = { left: 46, right: 16, top: 8, bottom: 20 };
const HEIGHT = 170;
const drawn = new Set();
const range = { from: 0, to: 1 };

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(xs[high] - x) < Math.abs(xs[low] - x) ? high : low;
}

function between(line, x) {
  const xs = line.x, ys = line.mean || line.y;
  if (x < xs[0] || x > xs[xs.length - 1]) return 0;
  let place = nearest(xs, x);
  if (xs[place] > x) place -= 1;
  const next = Math.min(place + 1, xs.length - 1);
  const part = xs[next] === xs[place] ? 0 : (x - xs[place]) / (xs[next] - xs[place]);
  return (ys[place] || 0) * (1 - part) + (ys[next] || 0) * part;
}

function ticks(low, high, about) {
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((size) => size * power >= raw * 0.999) * power;
  const made = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) made.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return made;
}

function scale(at) {
  const value = Number(at.toPrecision(6)), size = Math.abs(value);
  return size >= 1000 ? count(value) : size >= 0.001 || !size ? String(value) : value.toExponential().replace("e-", "e\u2212");
}

function path(xs, ys, x, y) {
  let text = "", pen = "M";
  xs.forEach((value, place) => {
    if (ys[place] === null) { pen = "M"; return; }
    text += `${pen}${x(value).toFixed(1)} ${y(ys[place]).toFixed(1)}`;
    pen = "L";
  });
  return text;
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.hidden = new Set();
    this.step = element("a", { class: "step" });
    this.legend = element("div", { class: "legend" });
    this.keys = spec.lines.map((line, place) => {
      const value = element("span", { class: "value" });
      const key = element("button", {
        type: "button", class: `key c${this.colour(place) % 6}`, "aria-pressed": "true", title: `${line.name}: show or hide`,
        onclick: () => this.toggle(place),
      }, element("span", { class: "swatch" }), line.label, value);
      if (line.not_finite) key.append(element("span", { class: "bad" }, `${line.not_finite} not finite`));
      this.legend.append(key);
      return { key, value };
    });
    this.picture = shape("svg", { class: "curves", role: "img" });
    this.node = element("figure", { class: "chart", tabindex: "0", onkeydown: (event) => this.onKey(event) },
      element("figcaption", {}, element("b", {}, spec.title), " ", element("span", { class: "unit" }, spec.unit), this.step),
      this.picture, this.legend);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerdown", (event) => this.point(event));
    this.node.addEventListener("pointerleave", () => setCursor(null));
    drawn.add(this);
  }

  // a run keeps its colour, whichever charts it is in
  colour(place) {
    const said = this.spec.lines[place].colour;
    return said === undefined ? place : said;
  }

  toggle(place) {
    if (!this.hidden.delete(place)) this.hidden.add(place);
    this.keys[place].key.setAttribute("aria-pressed", String(!this.hidden.has(place)));
    this.draw();
  }

  lines() {
    return this.spec.lines.map((line, place) => ({ line, place })).filter(({ place }) => !this.hidden.has(place));
  }

  reach() {
    let low = 0, high = 0;
    if (this.spec.stacked) {
      const lines = this.lines();
      for (const { line } of lines.slice(0, 1)) for (const x of line.x) high = Math.max(high, lines.reduce((sum, other) => sum + between(other.line, x), 0));
    } else {
      for (const { line } of this.lines()) for (const values of [line.mean || line.y, line.low, line.high]) for (const value of values || []) {
        if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
      }
    }
    if (this.spec.unit.startsWith("share") && high > 0.55 && high <= 1) return [low, 1];
    return high === low ? [low, low + 1] : [low < 0 ? low - 0.06 * (high - low) : 0, high + 0.08 * (high - low)];
  }

  draw() {
    const width = Math.floor(this.node.clientWidth);
    if (!width) return;
    const [low, high] = this.reach();
    const inner = width - MARGIN.left - MARGIN.right;
    this.x = (step) => MARGIN.left + (inner * (step - range.from)) / (range.to - range.from || 1);
    this.back = (pixel) => range.from + ((pixel - MARGIN.left) / inner) * (range.to - range.from);
    const y = (value) => HEIGHT - MARGIN.bottom - ((HEIGHT - MARGIN.top - MARGIN.bottom) * (value - low)) / (high - low);
    const parts = [];
    for (const at of ticks(low, high, 4)) {
      parts.push(shape("line", { class: at === 0 ? "axis" : "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(at), y2: y(at) }));
      parts.push(shape("text", { class: "tick", x: MARGIN.left - 6, y: y(at) + 3.5, "text-anchor": "end" }, scale(at)));
    }
    for (const at of ticks(range.from, range.to, Math.max(2, Math.min(6, inner / 70)))) {
      parts.push(shape("text", { class: "tick", x: this.x(at), y: HEIGHT - 5, "text-anchor": "middle" }, count(Math.round(at))));
    }
    const clip = `clip${[...drawn].indexOf(this)}`;
    const curves = shape("g", { "clip-path": `url(#${clip})` });
    parts.push(shape("clipPath", { id: clip }, shape("rect", { x: MARGIN.left - 5, y: 0, width: inner + 10, height: HEIGHT - MARGIN.bottom + 4 })));
    if (this.spec.stacked) this.stack(curves, y);
    else for (const { line, place } of this.lines()) this.line(curves, line, place, y);
    this.mark = shape("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    this.picture.replaceChildren(...parts, curves, this.mark);
    for (const [name, value] of Object.entries({ width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-label": this.words() })) {
      this.picture.setAttribute(name, value);
    }
    this.cursor(null);
  }

  stack(curves, y) {
    const lines = this.lines();
    if (!lines.length) return;
    const xs = lines[0].line.x;
    let under = xs.map(() => 0);
    for (const { line, place } of lines) {
      const over = xs.map((x, at) => under[at] + between(line, x));
      const area = path(xs, over, this.x, y) + path([...xs].reverse(), [...under].reverse(), this.x, y).replace("M", "L") + "Z";
      curves.append(shape("path", { class: `area c${this.colour(place) % 6}`, d: area }));
      under = over;
    }
  }

  line(curves, line, place, y) {
    const colour = `c${this.colour(place) % 6}${this.colour(place) >= 6 ? " dashed" : ""}`;
    if (line.mean) {
      if (line.x.length > 1) curves.append(shape("path", { class: `raw ${colour}`, d: path(line.x, line.y, this.x, y) }));
      else curves.append(shape("circle", { class: `dot ${colour}`, cx: this.x(line.x[0]), cy: y(line.y[0] || 0), r: 3 }));
      curves.append(shape("path", { class: `bold ${colour}`, d: path(line.x, line.mean, this.x, y) }));
      return;
    }
    if (line.low && line.high) {
      const known = line.x.map((_, at) => at).filter((at) => line.low[at] !== null && line.high[at] !== null);
      const xs = known.map((at) => line.x[at]);
      const area = path(xs, known.map((at) => line.high[at]), this.x, y) +
        path([...xs].reverse(), known.map((at) => line.low[at]).reverse(), this.x, y).replace("M", "L") + "Z";
      if (known.length > 1) curves.append(shape("path", { class: `band ${colour}`, d: area }));
      for (const at of known) curves.append(shape("line", { class: `whisker ${colour}`, x1: this.x(line.x[at]), x2: this.x(line.x[at]), y1: y(line.low[at]), y2: y(line.high[at]) }));
    }
    curves.append(shape("path", { class: `bold ${colour}`, d: path(line.x, line.y, this.x, y) }));
    line.x.forEach((step, at) => {
      if (line.y[at] !== null) curves.append(shape("circle", { class: `dot ${colour}`, cx: this.x(step), cy: y(line.y[at]), r: 3 }));
    });
  }

  words() {
    const said = this.spec.lines.map((line) => {
      const values = line.mean || line.y;
      return `${line.label} from ${brief(values[0])} to ${brief(values[values.length - 1])}`;
    });
    return `${this.spec.title} by optimizer step: ${said.join("; ")}`;
  }

  point(event) {
    const box = this.picture.getBoundingClientRect();
    setCursor(Math.min(range.to, Math.max(range.from, this.back(event.clientX - box.left))));
  }

  onKey(event) {
    if (event.key === "Escape") return setCursor(null);
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return undefined;
    event.preventDefault();
    const xs = this.spec.lines[0].x;
    const place = cursorStep === null ? xs.length - 1 : nearest(xs, cursorStep) + (event.key === "ArrowLeft" ? -1 : 1);
    return setCursor(xs[Math.min(xs.length - 1, Math.max(0, place))]);
  }

  cursor(step) {
    if (!this.mark) return;
    this.mark.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step !== null) { this.mark.setAttribute("x1", this.x(step)); this.mark.setAttribute("x2", this.x(step)); }
    this.step.textContent = step === null ? "" : `step ${count(Math.round(step))}`;
    if (step !== null && document.getElementById("browser")) this.step.setAttribute("href", `#step=${Math.round(step)}`);
    this.spec.lines.forEach((line, place) => {
      const at = step === null ? line.x.length - 1 : nearest(line.x, step);
      const bounds = line.low && line.low[at] !== null ? ` [${brief(line.low[at])}, ${brief(line.high[at])}]` : "";
      this.keys[place].value.textContent = (step === null && line.mean ? brief(line.mean[at]) : brief(line.y[at])) + bounds;
    });
  }
}

let cursorStep = null;

function setCursor(step) {
  cursorStep = step;
  for (const chart of drawn) chart.cursor(step);
}

function drawCharts(sections) {
  const lines = Object.values(sections).flat().flatMap((chart) => chart.lines);
  range.from = Math.min(...lines.map((line) => line.x[0]), 0);
  range.to = Math.max(...lines.map((line) => line.x[line.x.length - 1]), range.from + 1);
  for (const place of document.querySelectorAll("[data-section]")) {
    const fillPlace = () => {
      if (place.childElementCount) return;
      const made = sections[place.dataset.section].map((spec) => new Chart(spec));
      place.append(...made.map((chart) => chart.node));
      for (const chart of made) chart.draw();
    };
    const folded = place.closest("details");
    if (folded) folded.addEventListener("toggle", fillPlace); else fillPlace();
  }
  for (const change of ["resize", "beforeprint", "afterprint"]) {
    addEventListener(change, () => { for (const chart of drawn) chart.draw(); });
  }
}
