// One camera: its picture with boxes, lines and zones, its counts and events.

import { draw } from "../drawing.js";
import { described } from "../records.js";
import { element } from "../view.js";
import { Chart } from "./chart.js";
import { Editor } from "./editor.js";
import { colorOf, drawPlaces } from "./places.js";

const MOST_EVENTS = 50;
const MOST_OF_WINDOW = 0.75; // height of the picture
const SAYS = { waiting: "waiting for the first picture", live: "live", away: "away" };

export class Card {
  /**
   * @param {string} name of the camera
   * @param {string[]} classes of the model
   * @param {boolean} editable whether lines and zones can be saved
   * @param {(path: string, body?: object) => Promise<object>} call asks the server
   */
  constructor(name, classes, editable, call) {
    this.name = name;
    this.classes = classes;
    this.root = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.find = (part) => this.root.querySelector(`.${part}`);
    this.find("name").textContent = name;
    this.canvas = this.find("screen");
    this.bitmap = this.header = null;
    const path = `cameras/${encodeURIComponent(name)}`;
    this.chart = new Chart(this.find, (span) => call(`${path}/history?span=${span}`));
    this.editor = new Editor(this, (places) => call(`${path}/places`, places));
    this.find("edit").hidden = !editable;
    this.find("edit").onclick = () => this.editor.open(this.header);
    new ResizeObserver(() => this.paint()).observe(this.root);
  }

  /** The server tells everything once more. */
  begin() {
    this.find("events").replaceChildren();
  }

  /** Show a picture (JPEG, perhaps empty) and what is said of it. */
  async show(header, jpeg) {
    const before = this.header;
    if (jpeg.size) {
      const bitmap = await createImageBitmap(jpeg);
      this.bitmap?.close();
      this.bitmap = bitmap;
    }
    this.header = header;
    this.say(header.state, header.said);
    this.find("edit").disabled = !this.bitmap;
    this.canvas.hidden = !this.bitmap;
    this.#count();
    this.#tell(header.events);
    this.chart.setColors(this.#series());
    const counted = header.events.some(({ kind }) => kind === "crossed" || kind === "entered");
    if (counted || header.version !== before?.version) this.chart.refresh();
    this.paint();
  }

  /** How the camera is, and why. */
  say(state, why) {
    this.find("state").className = `state ${state}`;
    const text = [SAYS[state], why].filter(Boolean).join(": ");
    if (this.find("state").textContent !== text) this.find("state").textContent = text;
  }

  /** Draw again, with as many pixels as the screen has. */
  paint() {
    if (!this.bitmap) return;
    const { record } = this.header;
    const ratio = record.width / record.height;
    const width = Math.max(1, Math.min(this.root.clientWidth - 2, innerHeight * MOST_OF_WINDOW * ratio));
    const pixels = [Math.round(width * devicePixelRatio), Math.round((width / ratio) * devicePixelRatio)];
    if (this.canvas.width !== pixels[0] || this.canvas.height !== pixels[1]) {
      [this.canvas.width, this.canvas.height] = pixels;
      this.canvas.style.width = `${width}px`;
    }
    const size = [record.width, record.height];
    draw(this.canvas, this.bitmap, record.detections, size, { classes: this.classes, unit: devicePixelRatio });
    drawPlaces(this.canvas, this.editor.drawn ?? this.header, size, devicePixelRatio, this.editor.shape);
    this.canvas.setAttribute("aria-label", `${this.name}: ${described(record.detections, this.classes)}`);
  }

  /** Name and color of everything that is counted. */
  #series() {
    const { lines, zones } = this.header;
    const ways = ({ name, directions }, i) => directions.map((way, k) => [`${name} ${way}`, colorOf(i, k)]);
    return new Map([...lines.flatMap(ways), ...zones.map(({ name }, i) => [`${name} entered`, colorOf(lines.length + i)])]);
  }

  #count() {
    const { lines, zones } = this.header;
    const rows = lines.flatMap((line) => Object.entries(line.counts).map(([way, n]) => [line.name, way, n]));
    for (const zone of zones) rows.push([zone.name, "inside", zone.inside], [zone.name, "entered", zone.entered]);
    const cells = rows.map((row) => element("tr", {}, row.map((text) => element("td", { textContent: text }))));
    this.find("counts").hidden = !rows.length;
    this.find("counts").tBodies[0].replaceChildren(...cells);
  }

  #tell(events) {
    const list = this.find("events");
    for (const event of events) list.prepend(element("li", { className: event.kind }, sentence(event)));
    while (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
    this.find("told").hidden = this.find("counts").hidden && !list.children.length;
  }
}

/** What happened, as children of an element. */
function sentence(event) {
  const when = event.wall_time ? new Date(event.wall_time).toLocaleTimeString() : `${event.time_s.toFixed(1)} s`;
  const who = event.class ?? "";
  const what = {
    crossed: () => `${who} crossed ${event.place}: ${event.direction}`,
    entered: () => `${who} entered ${event.place}`,
    left: () => `${who} left ${event.place} after ${event.seconds.toFixed(1)} s`,
    alarm: () => [event.event, who, event.place, event.direction, event.count].filter((part) => part ?? "").join(", "),
  }[event.kind]();
  return [element("time", { textContent: when }), element("span", { textContent: what })];
}
