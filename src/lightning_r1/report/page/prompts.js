// The same held-out prompts twice, side by side: by what became of them.
const PAGE_OF_PROMPTS = 12;

class Prompts {
  constructor(place, data, tags) {
    this.data = data;
    this.tags = tags;
    this.kind = Object.keys(data.counts).find((kind) => data.counts[kind]);
    this.kinds = Object.entries(data.counts).map(([kind, number]) => element("button", {
      type: "button", class: "kind", "data-kind": kind, disabled: number === 0, onclick: () => { this.kind = kind; this.show(); },
    }, `${kind} `, element("b", {}, count(number))));
    const sets = [...new Set(data.items.map((item) => item.set))];
    this.set = element("select", { "aria-label": "set", onchange: () => this.show() },
      element("option", { value: "" }, "all sets"), ...sets.map((name) => element("option", { value: name }, name)));
    this.search = element("input", { type: "search", placeholder: "text of the prompt", "aria-label": "text of the prompt", oninput: () => this.show() });
    this.open = element("input", { type: "checkbox", onchange: () => openThinking(this.list, this.open.checked) });
    this.list = element("div", { class: "groups" });
    place.append(element("div", { class: "bar" }, ...this.kinds, sets.length > 1 && this.set, this.search, element("label", {}, this.open, " thinking open")), this.list);
    this.show();
  }

  show(most = PAGE_OF_PROMPTS) {
    for (const button of this.kinds) button.setAttribute("aria-pressed", String(button.dataset.kind === this.kind));
    const text = this.search.value.toLowerCase();
    const items = this.data.items.filter((item) => item.kind === this.kind && (!this.set.value || item.set === this.set.value) && item.prompt.toLowerCase().includes(text));
    this.list.replaceChildren(...items.slice(0, most).map((item) => element("div", { class: "twice" },
      element("div", { class: "prompt" }, item.prompt, " ", element("span", { class: "badge" }, item.set)),
      element("div", { class: "cards two" }, ...item.sides.map((side, at) => sampleCard(side, this.data.labels[at], this.tags))))));
    openThinking(this.list, this.open.checked);
    if (items.length > most) {
      this.list.append(element("button", { type: "button", onclick: () => this.show(most + 2 * PAGE_OF_PROMPTS) }, `show more of ${count(items.length)}`));
    } else if (items.length < this.data.counts[this.kind] && !text && !this.set.value) {
      this.list.append(element("p", { class: "note" }, `${count(items.length)} of ${count(this.data.counts[this.kind])} such prompts are on this page, from all over the sets.`));
    }
    if (!items.length) this.list.append(element("p", { class: "note" }, "No prompt here fits."));
  }
}
