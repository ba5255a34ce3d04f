// What the page is told, and what its reader has chosen of it. All text from outside goes through textContent or plain().
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
// Plotly reads a few HTML tags in its labels.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text, most = 28) => plain([...String(text)].length > most ? [...String(text)].slice(0, most - 1).join("") + "…" : text);
const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const average = (values) => values.reduce((sum, own) => sum + own, 0) / values.length;
const deviation = (values) => Math.sqrt(values.reduce((sum, own) => sum + (own - average(values)) ** 2, 0) / (values.length - 1));
const unique = (values) => [...new Set(values)];
const style = (title) => data.styles[title] || { color: "#777777", symbol: "circle", dash: "solid", pattern: "" };

function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const named = (text) => element("bdi", { textContent: text });

function options(select, values, chosen) {
  if (!select) return;
  const before = chosen === undefined ? select.value : chosen;
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, textContent: text })));
  if (values.some(([value]) => value === before)) select.value = before;
}
const systems = unique(Object.values(data.tables).flatMap((table) => table.columns.map((column) => column.title)));
const datasets = data.datasets;
// Names of systems in so many letters, all different: without their middle or, where that is what they differ by,
// without what is the same before and after it.
const labels = {};
function label(title, most) {
  labels[most] = labels[most] || shortened(systems, most);
  return plain(labels[most].get(title) || title);
}
function shortened(titles, most) {
  const half = Math.floor((most - 1) / 2), letters = (title) => [...title];
  const middle = (own) => (own.length > most ? [...own.slice(0, most - 1 - half), "…", ...own.slice(-half)] : own).join("");
  const found = new Map(titles.map((title) => [title, middle(letters(title))]));
  for (const same of unique([...found.values()])) {
    const alike = titles.filter((title) => found.get(title) === same), all = alike.map(letters);
    if (alike.length < 2) continue;
    const agree = (at) => all.every((own) => own.at(at) === all[0].at(at)), least = Math.min(...all.map((own) => own.length));
    let before = 0, after = 0;
    while (before < least && agree(before)) before += 1;
    while (after < least - before && agree(-1 - after)) after += 1;
    const head = all[0].slice(0, Math.min(before, Math.floor(most / 4))).join(""), room = most - head.length - 2;
    all.forEach((own, index) => {
      const differs = own.slice(before, own.length - after);
      found.set(alike[index], `${head}…${differs.slice(0, room).join("")}${differs.length > room ? `… (${index + 1})` : "…"}`);
    });
  }
  return found;
}
// Of many systems some are drawn at first; the reader chooses others.
const drawn = new Set(data.first);
const isDrawn = (own) => drawn.has(own.system);
// Of few-shot runs the number of shots is a part of its own.
const shotsTitle = (shots) => (shots < 0 ? "all shots" : shots === 1 ? "1 shot" : `${shots} shots`);
const partOf = (own) => (own.shots ? `${own.part}/${own.shots}` : own.part);
const partTitle = (own) => (own.shots ? `${own.part}, ${shotsTitle(own.shots)}` : own.part);
options(get("dataset"), datasets.map((name) => [name, data.names[name] || name]));
options(get("base"), systems.map((title) => [title, title]));
const meters = unique(data.epochs.flatMap((own) => Object.keys(own.meters)));
options(get("meter"), meters.map((name) => [name, name]), meters.includes("acc") ? "acc" : undefined);
const scores = unique(data.details.flatMap((detail) => Object.keys(detail.risk)));
options(get("score"), scores.map((name) => [name, name]), "confidence");
const value = (id) => (get(id) ? get(id).value : "");

function showParts() {
  const there = [...data.details, ...data.galleries].filter((own) => own.dataset === value("dataset"));
  const parts = Object.entries(Object.fromEntries(there.map((own) => [partOf(own), partTitle(own)])));
  const names = parts.map(([name]) => name);
  get("part").parentElement.hidden = !parts.length;
  options(get("part"), parts, names.includes(value("part")) || !names.includes("new") ? undefined : "new");
}
// Only systems that were tested on the chosen classes can be chosen; a choice lasts as long as it is one of them.
function showSystems() {
  const there = chosen().map((own) => own.system), open = data.open_sets.filter((own) => own.dataset === value("dataset"));
  const titles = systems.filter((title) => there.includes(title));
  const choose = (id, names, place) => {
    const some = names.filter((title) => drawn.has(title));
    options(get(id), names.map((title) => [title, title]), names.includes(value(id)) ? undefined : (some.length ? some : names).at(place));
  };
  choose("one", titles, 0);
  choose("other", titles, -1);
  const tested = systems.filter((title) => there.includes(title) || open.some((own) => own.system === title));
  choose("system", tested, -1);
}
const here = (own) => own.dataset === value("dataset") && partOf(own) === value("part");
const chosen = () => {
  const found = data.details.filter(here);
  const key = found.length ? found[0].key : "";
  return found.filter((detail) => detail.key === key);
};
const trainings = () => {
  const found = data.epochs.filter((own) => own.dataset === value("dataset") && value("meter") in own.meters);
  return found.filter((own) => own.protocol === found[0].protocol && own.shots === found[0].shots);
};

// The list in which systems are ticked, on a page with more than are drawn at first.
function showList(change) {
  const list = get("drawn-list"), rows = [];
  if (!list) return;
  const tell = () => { get("drawn-number").textContent = `${drawn.size} of ${systems.length}`; };
  for (const title of systems) {
    const box = element("input", { type: "checkbox", checked: drawn.has(title) }), swatch = element("span", { className: "swatch" });
    swatch.style.background = style(title).color;
    box.addEventListener("change", () => set(box.checked, [row]));
    const row = { title, box, node: element("li", {}, element("label", {}, box, swatch, named(title), element("span", { className: "soft", textContent: ` ${data.runs[title]}` }))) };
    rows.push(row);
  }
  function set(value, some) {
    for (const { title, box } of some) {
      box.checked = value;
      if (value) drawn.add(title);
      else drawn.delete(title);
    }
    tell();
    change();
  }
  const matching = () => rows.filter((row) => !row.node.hidden);
  get("drawn-filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) row.node.hidden = !row.title.toLowerCase().includes(wanted);
  });
  get("drawn-all").addEventListener("click", () => set(true, matching()));
  get("drawn-none").addEventListener("click", () => set(false, matching()));
  list.replaceChildren(...rows.map((row) => row.node));
  tell();
}
