// Counts over time: bars, one for each minute or hour, what was counted stacked.

import { element } from "../view.js";

const HEIGHT = 150;
const EDGE = { left: 34, right: 4, top: 8, bottom: 20 };
const EVERY_MS = 30_000;
const SOON_MS = 1500; // events that come together ask once

export class Chart {
  #colors = new Map();
  #history = null;
  #soon = null;

  /**
   * @param {(part: string) => HTMLElement} find parts of the card
   * @param {(span: string) => Promise<object>} load the history of an hour or a day
   */
  constructor(find, load) {
    this.find = find;
    this.load = load;
    find("span").onchange = () => this.#load();
    setInterval(() => document.hidden || !this.#colors.size || this.refresh(), EVERY_MS);
    new ResizeObserver(() => this.#paint()).observe(find("plot"));
  }

  /** What is counted, and its colors. */
  setColors(colors) {
    this.#colors = colors;
    this.find("chart").hidden = !colors.size;
  }

  /** Load it soon. */
  refresh() {
    this.#soon ??= setTimeout(() => this.#load(), SOON_MS);
  }

  async #load() {
    clearTimeout(this.#soon);
    this.#soon = null;
    this.#history = await this.load(this.find("span").value).catch(() => this.#history);
    this.#paint();
  }

  #paint() {
    const plot = this.find("plot");
    if (!this.#history || !plot.clientWidth) return;
    const { series, begin_s: begin, step_s: step } = this.#history;
    const names = Object.keys(series);
    if (!names.length) return plot.replaceChildren();
    const count = series[names[0]].length;
    const totals = Array.from({ length: count }, (_, i) => names.reduce((sum, name) => sum + series[name][i], 0));
    const most = nice(Math.max(1, ...totals));
    const [width, room] = [plot.clientWidth - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
    const drawing = svg("svg", { width: plot.clientWidth, height: HEIGHT });
    for (const value of [0, most / 2, most].filter(Number.isInteger)) {
      const y = EDGE.top + room * (1 - value / most);
      drawing.append(svg("line", { x1: EDGE.left, x2: EDGE.left + width, y1: y, y2: y, class: "grid" }));
      drawing.append(label(EDGE.left - 5, y + 4, value, "end"));
    }
    for (let i = 0; i < count; i++) {
      let y = EDGE.top + room;
      for (const name of names) {
        const height = (room * series[name][i]) / most;
        y -= height;
        const box = { x: EDGE.left + (width * i) / count, y, width: Math.max(1, width / count - 1), height };
        if (height) drawing.append(svg("rect", { ...box, fill: this.#colors.get(name) ?? "gray" }));
      }
    }
    const clock = (s) => new Date(s * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    drawing.append(label(EDGE.left, HEIGHT - 4, clock(begin), "start"));
    drawing.append(label(EDGE.left + width, HEIGHT - 4, clock(begin + count * step), "end"));
    plot.replaceChildren(drawing);
    const sums = names.map((name) => `${name} ${series[name].reduce((a, b) => a + b, 0)}`);
    plot.setAttribute("aria-label", `Counts since ${clock(begin)}: ${sums.join(", ")}`);
    this.find("legend").replaceChildren(...names.map((name, i) => this.#entry(name, sums[i])));
  }

  #entry(name, text) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = this.#colors.get(name) ?? "gray";
    return element("li", {}, [swatch, element("span", { textContent: text })]);
  }
}

/** The next number that is 1, 2, 4, 6 or 10 times a power of ten. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 10].find((step) => step * power >= value) * power;
}

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function label(x, y, text, anchor) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}
