// A list of which one entry is chosen, by pointer or keyboard: one stop of the Tab key, in which
// the arrows move and Escape chooses none (the listbox pattern of the ARIA Authoring Practices).

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

export class Listbox {
  /**
   * @param {HTMLElement} element with role="listbox" and tabindex="0"
   * @param {(index: number) => void} onChoose told of the visitor's choice; -1 for none
   */
  constructor(element, onChoose) {
    this.element = element;
    this.onChoose = onChoose;
    this.index = -1;
    element.addEventListener("click", (event) => {
      const entry = event.target.closest("li");
      const index = [...element.children].indexOf(entry);
      if (entry) this.#take(index);
    });
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show these entries (li elements); the chosen one stays, if there is still one at its place. */
  fill(entries) {
    for (const [index, entry] of entries.entries()) {
      entry.setAttribute("role", "option");
      entry.id = `${this.element.id}-${index}`;
    }
    this.element.replaceChildren(...entries);
    this.mark(this.index < entries.length ? this.index : -1);
  }

  /** Choose without telling. */
  mark(index) {
    this.index = index;
    [...this.element.children].forEach((entry, i) => {
      entry.setAttribute("aria-selected", String(i === index));
    });
    if (index < 0) this.element.removeAttribute("aria-activedescendant");
    else this.element.setAttribute("aria-activedescendant", `${this.element.id}-${index}`);
  }

  #take(index) {
    this.mark(index);
    this.element.children[index]?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.onChoose(index);
  }

  #key(event) {
    const last = this.element.children.length - 1;
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    let index;
    if (event.key in STEPS) index = Math.min(Math.max(this.index + STEPS[event.key], 0), last);
    else if (event.key === "Home") index = 0;
    else if (event.key === "End") index = last;
    else if (event.key === "Escape") index = -1;
    else return;
    event.preventDefault();
    this.#take(index);
  }
}
