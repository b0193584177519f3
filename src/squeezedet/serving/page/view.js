// What the page shows of a picture: the canvas, the list of boxes, the classes, the figures.

import { color, draw } from "./drawing.js";
import { Listbox } from "./listbox.js";
import { described, shown } from "./records.js";

const MOST_OF_WINDOW = 0.75; // height of the canvas

export class View {
  /**
   * @param {(id: string) => HTMLElement} find
   * @param {string[]} classes
   * @param {{score: number, hidden: Set<string>}} settings which the visitor changes
   */
  constructor(find, classes, settings) {
    this.find = find;
    this.classes = classes;
    this.settings = settings;
    this.picture = null; // {name, bitmap, record}
    this.canvas = find("canvas");
    this.found = new Listbox(find("found"), () => this.#paint());
    this.#fillClasses();
    new ResizeObserver(() => this.#paint()).observe(find("stage"));
    addEventListener("resize", () => this.#paint());
  }

  /** Show a picture {name, bitmap, record}; its record may be null while it is not there yet. */
  show(picture) {
    if (this.picture && this.picture.bitmap !== picture.bitmap) this.picture.bitmap.close();
    this.picture = picture;
    this.found.mark(-1);
    this.canvas.hidden = false;
    this.find("stage").classList.add("filled");
    this.update();
  }

  /** Show again, after a change of the settings. */
  update() {
    this.#list();
    this.#paint();
  }

  /** The detections on show. */
  boxes() {
    return this.picture?.record ? shown(this.picture.record, this.settings) : [];
  }

  /** The picture with its boxes, in its own size. */
  drawn() {
    const { bitmap } = this.picture;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    this.#draw(canvas, Math.max(1, Math.max(bitmap.width, bitmap.height) / 960), null);
    return canvas;
  }

  #draw(canvas, unit, chosen) {
    const { bitmap, record } = this.picture;
    const size = record ? [record.width, record.height] : [bitmap.width, bitmap.height];
    draw(canvas, bitmap, this.boxes(), size, { classes: this.classes, unit, chosen });
  }

  /** As many pixels as the screen has for it, so that lines and letters are sharp. */
  #paint() {
    if (!this.picture) return;
    const { bitmap } = this.picture;
    const stage = getComputedStyle(this.find("stage"));
    const room = this.find("stage").clientWidth - parseFloat(stage.paddingLeft) * 2;
    const ratio = bitmap.width / bitmap.height;
    const width = Math.max(1, Math.min(room, innerHeight * MOST_OF_WINDOW * ratio));
    const unit = devicePixelRatio;
    const pixels = [Math.round(width * unit), Math.max(1, Math.round((width / ratio) * unit))];
    if (this.canvas.width !== pixels[0] || this.canvas.height !== pixels[1]) {
      [this.canvas.width, this.canvas.height] = pixels;
      this.canvas.style.width = `${width}px`;
    }
    this.#draw(this.canvas, unit, this.boxes()[this.found.index] ?? null);
  }

  #list() {
    const boxes = this.boxes();
    this.found.fill(boxes.map((box) => this.#entry(box)));
    const { record, name } = this.picture ?? {};
    this.find("found").classList.toggle("none", Boolean(record));
    if (name !== undefined) {
      const what = record ? described(boxes, this.classes) : "not looked at yet";
      this.canvas.setAttribute("aria-label", `${name}: ${what}`);
    }
    for (const output of this.find("classes").querySelectorAll(".count")) {
      const every = record?.detections ?? [];
      const above = every.filter((box) => box.score >= this.settings.score);
      output.textContent = above.filter((box) => box.class === output.dataset.name).length;
    }
  }

  #entry(box) {
    const corners = box.xyxy.map((v) => Math.round(v)).join(", ");
    return element("li", {}, [
      this.#swatch(box.class),
      element("span", { textContent: box.class }),
      element("span", { textContent: box.score.toFixed(2) }),
      element("span", { className: "box", textContent: corners }),
    ]);
  }

  #swatch(name) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = color(this.classes, name);
    return swatch;
  }

  #fillClasses() {
    for (const name of this.classes) {
      const box = element("input", { type: "checkbox", checked: true, name });
      box.addEventListener("change", () => {
        if (box.checked) this.settings.hidden.delete(name);
        else this.settings.hidden.add(name);
        this.update();
      });
      const count = element("span", { className: "count", textContent: "0" });
      count.dataset.name = name;
      this.find("classes").append(
        element("label", {}, [box, this.#swatch(name), element("span", { textContent: name }), count]),
      );
    }
    this.find("classes").hidden = false;
  }
}

/** A new element with properties and children. */
export function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
