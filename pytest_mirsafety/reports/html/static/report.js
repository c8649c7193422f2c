// The browser of instances. Whatever a model, a judge or a dataset wrote becomes text, never markup.
"use strict";

const PAGE = 25;
const LONG = 20000;
const SLICE = 25; // milliseconds that a search may take before the page gets its turn

const byId = (id) => document.getElementById(id);
const read = (id) => {
  const element = byId(id);
  return element === null ? null : JSON.parse(element.textContent);
};

const index = read("index");
const blocks = new Map();
const pictures = new Map();

const load = (cache, name, number) => {
  if (!cache.has(number)) {
    cache.set(number, read(`${name}-${number}`));
  }
  return cache.get(number);
};

const detailOf = (row) => load(blocks, "texts", Math.floor(row / index.block))[row % index.block];

const make = (tag, { kind = "", text = null, ...attributes } = {}, ...children) => {
  const element = document.createElement(tag);
  if (kind !== "") {
    element.className = kind;
  }
  if (text !== null) {
    element.textContent = visible(text);
  }
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
};

// A visible sign for what could hide, or turn around, a part of a text.
const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const sign = (character) => {
  const code = character.charCodeAt(0);
  return code < 32
    ? String.fromCharCode(0x2400 + code)
    : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
};
const visible = (text) => String(text).replaceAll("\r\n", "\n").replace(hidden, sign);

// What is chosen

const fields = {
  outcome: byId("outcome"),
  arm: byId("arm"),
  relation: byId("relation"),
  category: byId("category"),
  text: byId("text"),
};
let shown = [];
let place = 0;
let search = 0;
let waiting = 0; // for somebody to stop typing

// Of twins and edits the words are others, and the colours the same.
const colours = { answered: "safe", held: "safe", "not answered": "unsafe", flipped: "unsafe" };
const badge = (status) => `badge ${colours[status] || status}`;

const option = (value, text) => make("option", { text, value });

const fill = (select, names, everything) => {
  select.append(option("", everything));
  for (const name of names) {
    select.append(option(name, name));
  }
};

const arms = index.arms || [["multi", "safety"]];
const matches = ([, relation, category, status, reason, arm = 0]) => {
  const wanted = fields.outcome.value;
  return (
    (wanted === "" || wanted === status || wanted === `${status}: ${reason}`) &&
    (fields.arm.value === "" || fields.arm.value === arms[arm][0]) &&
    (fields.relation.value === "" || fields.relation.value === index.relations[relation]) &&
    (fields.category.value === "" || fields.category.value === index.categories[category])
  );
};

const wordsOf = function* (detail) {
  for (const name of ["question", "prompt", "answer", "reasoning", "detail"]) {
    if (detail[name] !== undefined) {
      yield detail[name];
    }
  }
  const verdicts = detail.verdict === undefined ? [] : [detail.verdict];
  for (const verdict of verdicts) {
    yield verdict.evidence || "";
    verdicts.push(...(verdict.members || []));
  }
};

const contains = (row, wanted) => {
  if (index.rows[row][0].toLowerCase().includes(wanted)) {
    return true;
  }
  for (const text of wordsOf(detailOf(row))) {
    if (text.toLowerCase().includes(wanted)) {
      return true;
    }
  }
  return false;
};

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

const filter = async () => {
  search += 1;
  const mine = search;
  const wanted = fields.text.value.trim().toLowerCase();
  const rows = index.rows.map((_, row) => row).filter((row) => matches(index.rows[row]));
  let found = rows;
  if (wanted !== "") {
    found = [];
    let until = performance.now() + SLICE;
    for (const [number, row] of rows.entries()) {
      if (performance.now() > until) {
        byId("found").textContent = `Searching, ${number} of ${rows.length}`;
        await turn();
        if (mine !== search) {
          return;
        }
        until = performance.now() + SLICE;
      }
      if (contains(row, wanted)) {
        found.push(row);
      }
    }
  }
  shown = found;
  place = 0;
  const all = index.rows.length.toLocaleString("en");
  byId("found").textContent = `${found.length.toLocaleString("en")} of ${all} instances`;
  list();
  detail();
  byId("browser").dataset.ready = String(mine);
};

// The list, a page at a time; on a narrow screen what is chosen is below it

const stacked = matchMedia("(max-width: 48rem)");

const list = () => {
  const first = Math.floor(place / PAGE) * PAGE;
  const items = shown.slice(first, first + PAGE).map((row, number) => {
    const [id, , , status, reason] = index.rows[row];
    const button = make(
      "button",
      { type: "button", "aria-current": String(first + number === place) },
      make("span", { kind: "name", text: id }),
      make("span", { kind: badge(status), text: reason || status }),
    );
    button.addEventListener("click", () => {
      go(first + number);
      if (stacked.matches) {
        byId("detail").focus({ preventScroll: true });
        byId("detail").scrollIntoView();
      }
    });
    return make("li", {}, button);
  });
  byId("list").replaceChildren(...items);
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  const page = Math.floor(place / PAGE) + 1;
  byId("page").textContent = `Page ${page} of ${pages}`;
  byId("before").disabled = page === 1;
  byId("after").disabled = page === pages;
};

const go = (to, focus = false) => {
  if (to < 0 || to >= shown.length) {
    return;
  }
  place = to;
  const inList = focus || byId("list").contains(document.activeElement);
  list();
  detail();
  const current = byId("list").querySelector('[aria-current="true"]');
  if (inList) {
    current.focus({ preventScroll: true });
  }
  current.scrollIntoView({ block: "nearest" });
};

// One instance

const long = (text, kind) => {
  const body = make("p", { kind: `text ${kind}`, dir: "auto" });
  body.textContent = visible(text.slice(0, LONG));
  if (text.length <= LONG) {
    return [body];
  }
  const more = make("button", {
    type: "button",
    text: `Show all ${text.length.toLocaleString("en")} characters`,
  });
  more.addEventListener("click", () => {
    body.textContent = visible(text);
    more.remove();
  });
  return [body, more];
};

const passage = (title, text, kind = "") =>
  text === undefined ? [] : [make("h4", { text: title }), ...long(text, kind)];

const facts = (pairs) => {
  const rows = pairs
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
  return rows.length === 0 ? null : make("dl", { kind: "facts" }, ...rows);
};

const verdict = (given, title, level) => {
  const parts = [
    make("p", {}, make("span", { kind: `badge ${given.kind}`, text: given.kind })),
    facts([
      ["Evidence", given.evidence],
      ["Mode", given.mode],
      ["Judge", given.judge],
      ["Flags", (given.flags || []).join("; ")],
      ...(given.scores || []),
    ]),
    ...(given.members || []).map((one, number) => verdict(one, `Member ${number + 1}`, level + 1)),
  ];
  return make("div", { kind: level > 4 ? "member" : "" }, make(`h${Math.min(level, 6)}`, { text: title }), ...parts);
};

const picture = (one, number, of) => {
  const name = `Picture ${number + 1} of ${of}`;
  const [sha256, block, link] = one;
  if (block !== null) {
    const [kind, content] = load(pictures, "pictures", block)[sha256];
    const image = make("img", { alt: name });
    image.src = `data:image/${kind === "jpeg" ? "jpeg" : "webp"};base64,${content}`;
    const veil = make("span", { kind: "veil", text: "Click to show", "aria-hidden": "true" });
    const button = make("button", { type: "button", kind: "picture", "aria-pressed": "false" }, image, veil);
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    });
    return make("li", {}, button);
  }
  const digest = make("span", { kind: "digest", text: `sha256:${sha256}` });
  if (link !== null) {
    return make("li", {}, make("a", { href: `./${link}`, text: name, rel: "noreferrer" }), " ", digest);
  }
  return make("li", {}, `${name} `, digest);
};

// The same instance as it was asked in other arms: what became of it, and the answer

const partOf = (id) => {
  const [, origin, draw = ""] = /^([^@#]*)(?:@[^#]*)?(#.*)?$/.exec(id);
  return origin + draw;
};
const family = new Map();
if (arms.length > 1) {
  for (const [row, [id, , , , , arm]] of index.rows.entries()) {
    const twin = arms[arm][1] === "twin";
    const name = `${twin ? "twin " : ""}${partOf(id)}`;
    family.set(name, [...(family.get(name) || []), row]);
    family.set(row, name);
  }
  for (const rows of family.values()) {
    if (Array.isArray(rows)) {
      rows.sort((a, b) => index.rows[a][5] - index.rows[b][5]);
    }
  }
}

const elsewhere = (row) => {
  const others = (family.get(family.get(row)) || []).filter((other) => other !== row);
  if (others.length === 0) {
    return [];
  }
  const cells = others.map((other) => {
    const [, , , status, reason, arm] = index.rows[other];
    const link = make("button", { type: "button", text: arms[arm][0] });
    link.addEventListener("click", () => open(other));
    return make(
      "div",
      { kind: "other" },
      make("p", { kind: "tags" }, link, make("span", { kind: badge(status), text: reason || status })),
      ...long(detailOf(other).answer || "", "answer"),
    );
  });
  return [make("h4", { text: "In other arms" }), make("div", { kind: "others" }, ...cells)];
};

// What the filters leave out is shown all the same: they are cleared first.
const open = async (row) => {
  if (!shown.includes(row)) {
    for (const field of Object.values(fields)) {
      field.value = "";
    }
    await filter();
  }
  go(shown.indexOf(row));
  byId("detail").focus({ preventScroll: true });
};

const detail = () => {
  const row = shown[place];
  if (row === undefined) {
    byId("detail").replaceChildren();
    return;
  }
  const [id, relation, category, status, reason, arm = 0] = index.rows[row];
  const given = detailOf(row);
  const images = given.images || [];
  const tokens = (given.tokens || []).map((n) => (n === null ? "?" : n.toLocaleString("en")));
  byId("detail").replaceChildren(
    make("h3", { text: id }),
    make(
      "p",
      { kind: "tags" },
      make("span", { kind: badge(status), text: reason ? `${status}: ${reason}` : status }),
      arms.length === 1 ? null : make("span", { kind: "tag", text: arms[arm][0] }),
      make("span", { kind: "tag", text: index.relations[relation] }),
      make("span", { kind: "tag", text: index.categories[category] }),
      given.mode === undefined ? null : make("span", { kind: "tag", text: given.mode }),
    ),
    ...(images.length === 0
      ? []
      : [
          make("h4", { text: given.of_data ? "Pictures, as the data has them" : "Pictures" }),
          make("ul", { kind: "pictures" }, ...images.map((one, n) => picture(one, n, images.length))),
        ]),
    ...passage("Prompt", given.prompt),
    ...passage("Seed question, which the judge sees", given.question),
    ...passage("Answer", given.answer, "answer"),
    ...passage("Reasoning", given.reasoning),
    ...passage(given.verdict === undefined ? "Why it has no verdict" : "What counts", given.detail),
    ...(given.verdict === undefined ? [] : [verdict(given.verdict, "Verdict", 4)]),
    ...elsewhere(row),
    make("h4", { text: "Of the request" }),
    facts([
      ["Left out", given.left_out],
      ["A defence answered", given.blocked],
      ["Finish reason", given.finish_reason],
      ["Tokens", tokens.length === 0 ? "" : `${tokens[0]} in, ${tokens[1]} out`],
      ["Latency", given.latency === undefined ? "" : `${given.latency.toFixed(2)} s`],
      ["Answered", given.created],
      ["Request", given.request_key],
      ["Prompt", given.prompt_sha256 === undefined ? "" : `sha256:${given.prompt_sha256}`],
      ["Answer", given.answer_sha256 === undefined ? "" : `sha256:${given.answer_sha256}`],
      ["Seed question", given.seed],
      ["Composed picture", given.composed === undefined ? "" : `sha256:${given.composed}`],
    ]),
  );
};

// Keys

const typing = (target) => target.closest("input, select, textarea") !== null;

const flip = () => {
  const buttons = [...byId("detail").querySelectorAll(".picture")];
  const show = buttons.some((button) => button.getAttribute("aria-pressed") !== "true");
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(show));
  }
};

const clear = () => {
  clearTimeout(waiting);
  for (const field of Object.values(fields)) {
    field.value = "";
  }
  document.activeElement.blur();
  filter();
};

const keys = {
  j: () => go(place + 1),
  k: () => go(place - 1),
  b: flip,
  "/": () => fields.text.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.key === "Escape") {
    clear();
    return;
  }
  const inList = byId("list").contains(event.target);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (inList && step !== undefined) {
    event.preventDefault();
    go(place + step, true);
  } else if (!typing(event.target) && keys[event.key] !== undefined) {
    event.preventDefault();
    keys[event.key]();
  }
});

fill(fields.arm, arms.map(([name]) => name), "all");
byId("of-arm").hidden = arms.length === 1;
fill(fields.relation, index.relations, "all");
fill(fields.category, index.categories, "all");
fields.outcome.append(option("", "all"));
for (const [value, count] of index.outcomes) {
  fields.outcome.append(option(value, `${value} (${count.toLocaleString("en")})`));
}
for (const field of [fields.outcome, fields.arm, fields.relation, fields.category]) {
  field.addEventListener("change", filter);
}
fields.text.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(filter, 120);
});
byId("before").addEventListener("click", () => go((Math.floor(place / PAGE) - 1) * PAGE));
byId("after").addEventListener("click", () => go((Math.floor(place / PAGE) + 1) * PAGE));
byId("browser").hidden = false;
filter();
