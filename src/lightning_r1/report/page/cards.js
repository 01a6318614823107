// A completion as a card: thinking folded, rewards by name.
function writing(text, tags) {
  const end = text.lastIndexOf(tags.close);
  const thinks = end >= 0 || text.includes(tags.open);
  const thinking = !thinks ? "" : end < 0 ? text : text.slice(0, end + tags.close.length);
  const answer = text.slice(thinking.length);
  const parts = [];
  if (thinking) {
    const inside = thinking.replace(tags.open, "").replace(tags.close, "").trim();
    const how = end < 0 ? "thinking, never closed" : "thinking";
    parts.push(element("details", { class: "thinking" },
      element("summary", {}, element("span", { class: "how" }, how), " ", element("span", { class: "peek" }, inside.slice(0, 120))),
      element("div", { class: "text" }, thinking)));
  }
  parts.push(element("div", { class: "text answer" }, answer.trim() || (thinks ? "(nothing after the thinking)" : "(empty)")));
  return parts;
}

function badges(completion) {
  return [
    completion.f === "length" && element("span", { class: "badge bad" }, "cut off"),
    completion.f && !["length", "stop"].includes(completion.f) && element("span", { class: "badge" }, completion.f),
    completion.n !== null && completion.n !== undefined && element("span", { class: "badge" }, `${count(completion.n)} tokens`),
  ];
}

function rewardCard(completion, tags, dimmed) {
  const advantage = completion.a || 0;
  const side = advantage > 0 ? " up" : advantage < 0 ? " down" : "";
  const rewards = Object.entries(completion.r).map(([name, value]) => element("span", { class: `reward${completion.o[name] ? " bad" : ""}` },
    `${name} `, element("b", {}, value === null ? "none" : brief(value)), completion.o[name] ? ` ${completion.o[name].replaceAll("_", " ")}` : ""));
  return element("article", { class: `card${side}${dimmed ? " dimmed" : ""}` },
    element("div", { class: "head" },
      element("span", { class: "sum", title: "reward" }, completion.s === null ? "no reward" : brief(completion.s)),
      completion.a !== null && element("span", { class: "advantage", title: "advantage" }, `advantage ${signed(completion.a)}`),
      ...badges(completion)),
    element("div", { class: "rewards" }, ...rewards),
    ...writing(completion.t, tags));
}

function sampleCard(sample, label, tags) {
  return element("article", { class: `card ${sample.ok ? "up" : "down"}` },
    element("div", { class: "head" }, element("b", {}, label),
      element("span", { class: "badge" }, sample.of > 1 ? `${sample.right} of ${sample.of} right` : sample.ok ? "right" : "wrong"),
      ...badges(sample)),
    ...writing(sample.t, tags));
}

function openThinking(place, open) {
  for (const details of place.querySelectorAll("details.thinking")) details.open = open;
}
