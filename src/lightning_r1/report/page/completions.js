// The browser of completions: a rollout, its groups, a group's completions side by side.
const MOST_GROUPS = 60;

class Browser {
  constructor(place, data, tags) {
    this.rollouts = data.rollouts;
    this.tags = tags;
    this.at = this.rollouts.length - 1;
    this.slider = element("input", { type: "range", min: 0, max: this.at, value: this.at, "aria-label": "rollout", oninput: () => this.go(Number(this.slider.value)) });
    this.where = element("output", { class: "where" });
    this.search = element("input", { type: "search", placeholder: "text of the prompt", "aria-label": "text of the prompt", oninput: () => this.show() });
    this.least = element("input", { type: "number", step: "any", placeholder: "from", "aria-label": "least reward", oninput: () => this.show() });
    this.most = element("input", { type: "number", step: "any", placeholder: "to", "aria-label": "largest reward", oninput: () => this.show() });
    this.outcome = element("select", { "aria-label": "outcome", onchange: () => this.show() },
      ...["any outcome", "ok", ...this.outcomes()].map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
    this.everywhere = element("input", { type: "checkbox", onchange: () => this.show() });
    this.open = element("input", { type: "checkbox", onchange: () => openThinking(this.list, this.open.checked) });
    this.list = element("div", { class: "groups" });
    place.append(
      element("div", { class: "bar slide" },
        element("button", { type: "button", "aria-label": "rollout before", onclick: () => this.go(this.at - 1) }, "\u2039"), this.slider,
        element("button", { type: "button", "aria-label": "next rollout", onclick: () => this.go(this.at + 1) }, "\u203a"), this.where),
      element("div", { class: "bar" }, this.search, element("span", { class: "pair" }, "reward ", this.least, this.most), this.outcome,
        element("label", {}, this.everywhere, " all rollouts"), element("label", {}, this.open, " thinking open")),
      this.list);
    addEventListener("hashchange", () => this.follow());
    if (!this.follow()) this.go(this.at);
  }

  outcomes() {
    const found = new Set();
    for (const rollout of this.rollouts) for (const group of rollout.groups) for (const one of group.c) {
      for (const outcome of Object.values(one.o)) found.add(outcome);
      if (one.f === "length") found.add("cut off");
    }
    return [...found].sort();
  }

  // #rollout=100&group=2 or #step=120: what a link says
  follow() {
    const said = new URLSearchParams(location.hash.slice(1));
    const key = said.has("rollout") ? "number" : said.has("step") ? "step" : null;
    if (key === null) return false;
    // not every rollout is on the page: the nearest one
    const distance = (rollout) => Math.abs(rollout[key] - Number(said.get(key === "number" ? "rollout" : key)));
    const place = this.rollouts.reduce((best, rollout, at) => (distance(rollout) < distance(this.rollouts[best]) ? at : best), 0);
    this.go(place, Number(said.get("group") || 0), false);
    this.list.closest("section").scrollIntoView();
    return true;
  }

  go(place, group = 0, moved = true) {
    this.at = Math.min(this.rollouts.length - 1, Math.max(0, place));
    this.slider.value = this.at;
    const rollout = this.rollouts[this.at];
    this.slider.setAttribute("aria-valuetext", `rollout ${rollout.number}`);
    const held = rollout.groups.reduce((sum, one) => sum + one.c.length, 0);
    this.where.textContent = `rollout ${count(rollout.number)} \u00b7 step ${count(rollout.step)} \u00b7 mean reward ${brief(rollout.mean)} \u00b7 `
      + `${count(held)} of ${rollout.completions === null ? "its" : count(rollout.completions)} completions`;
    if (moved && this.shown) history.replaceState(null, "", `#rollout=${rollout.number}`);
    this.shown = true;
    this.show(group);
  }

  fits(one) {
    if (this.least.value !== "" && !(one.s >= Number(this.least.value))) return false;
    if (this.most.value !== "" && !(one.s <= Number(this.most.value))) return false;
    const outcome = this.outcome.value, found = Object.values(one.o);
    if (outcome === "any outcome") return true;
    if (outcome === "ok") return !found.length && one.f !== "length";
    return outcome === "cut off" ? one.f === "length" : found.includes(outcome);
  }

  show(open = 0) {
    const text = this.search.value.toLowerCase();
    const rollouts = this.everywhere.checked ? this.rollouts : [this.rollouts[this.at]];
    const groups = rollouts.flatMap((rollout) => rollout.groups.map((group) => ({ rollout, group })))
      .filter(({ group }) => group.prompt.toLowerCase().includes(text) && group.c.some((one) => this.fits(one)));
    this.list.replaceChildren(...groups.slice(0, MOST_GROUPS).map((one, place) => this.group(one, place === open)));
    if (!groups.length) this.list.append(element("p", { class: "note" }, "No completion here fits; widen the filters, or look in all rollouts."));
    if (groups.length > MOST_GROUPS) this.list.append(element("p", { class: "note" }, `${count(groups.length - MOST_GROUPS)} more groups fit; narrow the filters to see them.`));
  }

  group({ rollout, group }, open) {
    const rewards = group.c.map((one) => one.s).filter((reward) => reward !== null);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    const best = Math.max(...rewards), worst = Math.min(...rewards);
    const body = element("div", { class: "body" });
    const build = () => {
      if (body.childElementCount) return;
      body.append(element("div", { class: "prompt" }, group.prompt),
        element("div", { class: "cards" }, ...group.c.map((one) => rewardCard(one, this.tags, !this.fits(one)))));
      openThinking(body, this.open.checked);
    };
    if (open) build();
    const strip = element("span", { class: "strip", "aria-hidden": "true" }, ...group.c.map((one) => element("i", { class: one.a > 0 ? "up" : one.a < 0 ? "down" : "" })));
    return element("details", { class: "group", open, ontoggle: build },
      element("summary", {}, element("span", { class: "title" }, group.prompt),
        this.everywhere.checked && element("span", { class: "badge" }, `step ${count(rollout.step)}`),
        group.why && element("span", { class: "badge why" }, group.why), strip,
        element("span", { class: "mean" }, rewards.length ? `${brief(mean)} (${brief(worst)} to ${brief(best)})` : "no reward")),
      body);
  }
}
