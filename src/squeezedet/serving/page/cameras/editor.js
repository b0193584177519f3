// Lines and zones are drawn with mouse, pen or finger; names and corners can be typed, too.

import { element } from "../view.js";
import { colorOf } from "./places.js";

const NEAR_PX = 14; // of the screen

const HINTS = {
  "": "Draw a line or a zone into the picture; drag a corner to move it.",
  line: "Press where the line begins, and release or press again where it ends.",
  zone: "Press at each corner; press at the first or the last one again to end.",
};

export class Editor {
  /**
   * @param {import("./card.js").Card} card whose canvas is drawn on
   * @param {(places: object) => Promise<object>} save
   */
  constructor(card, save) {
    this.card = card;
    this.drawn = null; // lines and zones while they are changed
    this.shape = null; // {kind, points} of what is being drawn
    this.dragged = null; // {place, index} of a corner
    this.save = save;
    const { find, canvas } = card;
    find("add-line").onclick = () => this.#begin("line");
    find("add-zone").onclick = () => this.#begin("zone");
    find("cancel").onclick = () => this.#close();
    find("editor").onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => (this.dragged = null));
    addEventListener("keydown", (event) => {
      if (this.shape && event.key === "Escape") this.#begin("");
    });
  }

  /** Change what a header holds. */
  open({ lines, zones, version }) {
    const copy = ({ name, points, directions }) => structuredClone({ name, points, directions });
    this.drawn = { lines: lines.map(copy), zones: zones.map(copy), handles: true };
    this.version = version;
    this.#toggle(true);
    this.#begin("");
    this.#list();
  }

  #close() {
    this.drawn = this.shape = this.dragged = null;
    this.#toggle(false);
    this.card.paint();
  }

  #toggle(on) {
    const { find, canvas } = this.card;
    find("editor").hidden = !on;
    find("edit").hidden = on;
    find("wrong").textContent = "";
    canvas.classList.toggle("drawing", on);
  }

  #begin(kind) {
    this.shape = kind ? { kind, points: [] } : null;
    this.card.find("hint").textContent = HINTS[kind];
    this.card.find("add-line").setAttribute("aria-pressed", kind === "line");
    this.card.find("add-zone").setAttribute("aria-pressed", kind === "zone");
    if (kind) this.card.canvas.scrollIntoView({ block: "nearest" });
    this.card.paint();
  }

  async #submit() {
    const { find } = this.card;
    const { lines, zones } = this.drawn;
    find("wrong").textContent = "";
    try {
      const plain = zones.map(({ name, points }) => ({ name, points }));
      await this.save({ version: this.version, lines, zones: plain });
      this.#close();
    } catch (error) {
      find("wrong").textContent = `Not saved: ${error.message}`;
    }
  }

  // ---------------------------------------------------------------- pointer

  /** Where an event is, in whole pixels of the picture. */
  #at(event) {
    const { canvas, header } = this.card;
    const part = (offset, length) => Math.min(Math.max(offset / length, 0), 1);
    return [
      Math.round(part(event.offsetX, canvas.clientWidth) * header.record.width),
      Math.round(part(event.offsetY, canvas.clientHeight) * header.record.height),
    ];
  }

  #near(a, b) {
    const unit = this.card.header.record.width / this.card.canvas.clientWidth;
    return Math.hypot(a[0] - b[0], a[1] - b[1]) < NEAR_PX * unit;
  }

  #down(event) {
    if (!this.drawn || event.button) return;
    event.preventDefault();
    this.card.canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    if (!this.shape) {
      this.dragged = this.#corner(at);
      return;
    }
    const { kind, points } = this.shape;
    const ends = [points[0], points.at(-1)];
    if (kind === "zone" && points.length > 2 && ends.some((end) => this.#near(end, at))) this.#finish();
    else if (!points.length || !this.#near(points.at(-1), at)) this.#add(at);
  }

  #move(event) {
    if (!this.dragged) return;
    this.dragged.place.points[this.dragged.index] = this.#at(event);
    this.card.paint();
  }

  #up(event) {
    if (this.dragged) this.#list();
    this.dragged = null;
    const at = this.#at(event);
    if (this.shape?.kind === "line" && this.shape.points.length && !this.#near(this.shape.points[0], at)) this.#add(at);
  }

  #corner(at) {
    for (const place of [...this.drawn.zones, ...this.drawn.lines].reverse()) {
      const index = place.points.findIndex((point) => this.#near(point, at));
      if (index >= 0) return { place, index };
    }
    return null;
  }

  #add(at) {
    this.shape.points.push(at);
    if (this.shape.kind === "line" && this.shape.points.length === 2) this.#finish();
    else this.card.paint();
  }

  #finish() {
    const { kind, points } = this.shape;
    const places = kind === "line" ? this.drawn.lines : this.drawn.zones;
    const taken = new Set(places.map(({ name }) => name));
    let number = 1;
    while (taken.has(`${kind} ${number}`)) number += 1;
    const directions = kind === "line" ? ["right", "left"] : undefined;
    places.push({ name: `${kind} ${number}`, points, directions });
    this.#begin("");
    this.#list();
  }

  // ------------------------------------------------------------------- list

  #list() {
    const { lines, zones } = this.drawn;
    const entries = [...lines.map((place) => [place, lines]), ...zones.map((place) => [place, zones])];
    this.card.find("places").replaceChildren(...entries.map(([place, all], i) => this.#entry(place, all, i)));
    this.card.paint();
  }

  #entry(place, all, index) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colorOf(index);
    const remove = element("button", { type: "button", textContent: "Remove" });
    remove.onclick = () => {
      all.splice(all.indexOf(place), 1);
      this.#list();
    };
    const name = this.#field("Name", place.name, (text) => (place.name = text));
    const fields = [name];
    if (place.directions) {
      ["To the right", "To the left"].forEach((label, i) => {
        fields.push(this.#field(label, place.directions[i], (text) => (place.directions[i] = text)));
      });
    }
    const corners = place.points.map((point) => point.join(",")).join(" ");
    fields.push(this.#field("Corners", corners, (text) => (place.points = parsed(text)), "wide"));
    return element("li", {}, [element("div", { className: "fields" }, [swatch, ...fields]), remove]);
  }

  #field(label, value, take, className = "") {
    const input = element("input", { type: "text", value, spellcheck: false, autocomplete: "off" });
    input.onchange = () => {
      take(input.value.trim());
      this.card.paint();
    };
    return element("label", { className }, [element("span", { textContent: label }), input]);
  }
}

/** "1,2 3,4" as points; what is none is for the server to refuse. */
function parsed(text) {
  return text.split(/\s+/).map((pair) => pair.split(",").map(Number));
}
