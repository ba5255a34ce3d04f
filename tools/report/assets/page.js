// Puts the charts, lists, links and controls to work.

// What a long legend needs beyond three lines, so that it leaves the chart its room.
function legendHeight(traces, width) {
  const names = traces.filter((trace) => trace.showlegend !== false && trace.type !== "heatmap").map((trace) => trace.name || "");
  const across = Math.max(1, Math.floor(width / (60 + 7 * Math.max(0, ...names.map((name) => name.length)))));
  return Math.min(360, 19 * Math.max(0, Math.ceil(names.length / across) - 3));
}

function draw(node) {
  const found = node.closest("details:not([open])") ? undefined : charts[node.dataset.chart](node);
  if (found === undefined) { node.dataset.stale = "yes"; return; }
  delete node.dataset.stale;
  if (!found || !found[0].length) {
    if (node.data) Plotly.purge(node);
    node.style.height = "auto";
    const some = drawn.size < systems.length ? " of the systems that are drawn" : "";
    node.replaceChildren(element("p", { className: "empty", textContent: `There is nothing of this kind${some} for this data set.` }));
    return;
  }
  if (!node.data) node.replaceChildren();
  node.style.height = "";
  node.style.height = `${(found[1].height || node.clientHeight) + legendHeight(found[0], node.clientWidth)}px`;
  delete found[1].height;
  Plotly.react(node, found[0], found[1], { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
}
const nodes = [...document.querySelectorAll("[data-chart]")], seen = new Set();
const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting || seen.has(entry.target)) return;
  seen.add(entry.target);
  draw(entry.target);
}), { rootMargin: "300px" });
nodes.forEach((node) => watch.observe(node));
document.addEventListener("toggle", (event) => {
  if (event.target.open) event.target.querySelectorAll("[data-stale]").forEach(draw);
}, true);

// ---- lists ----------------------------------------------------------------------------------------------------
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const small = (number) => (number < 0.001 ? number.toExponential(1) : number.toFixed(3));
const lists = {
  confusions() {
    const own = chosen().filter((detail) => [value("one"), value("other")].includes(detail.system));
    return [element("div", { className: "pair" }, ...own.map((detail) => element("div", {}, element("h4", { textContent: detail.system }),
      element("ol", {}, ...detail.confusions.map(([label, found, count]) =>
        element("li", {}, named(label), " taken for ", named(found), `: ${fixed(count, 1)}`))))))];
  },
  templates() {
    return chosen().filter((own) => isDrawn(own) && own.templates.accuracy).map((own) => element("p", { textContent:
      `${own.system}: fusion gains ${fixed(own.templates.fused - own.templates.best)} over the best template of each run and ` +
      `${fixed(own.templates.fused - own.templates.mean)} over their mean` +
      (own.similarity === null ? "." : `; the cosine of a class's embeddings under two templates is ${fixed(own.similarity, 3)}.`) }));
  },
  images() {
    const gallery = data.galleries.find(here);
    if (!gallery) return [element("p", { className: "empty", textContent: "There are no images for this data set." })];
    const rows = gallery.rows.filter((row) => row.systems.some((title) => drawn.has(title)));
    return rows.flatMap((row) => [element("h3", { textContent: `${row.title} (seed ${row.seed})` }), element("div", { className: "gallery" }, ...row.cards.map(card))]);
  },
};
function card(own) {
  const source = data.pictures[own.source];
  const picture = source ? element("img", { src: source, alt: `test image of ${own.label}`, decoding: "async" }) : element("div", { className: "gone", textContent: "no image" });
  const verdicts = own.verdicts.map((found) => element("div", { className: found.right ? "right" : "wrong" },
    found.system ? `${found.system}: ` : "", named(found.prediction), ` ${percent(found.confidence)}`,
    "uncertainty" in found ? `, u ${small(found.uncertainty)}` : "", "conflict" in found ? `, conflict ${small(found.conflict)}` : ""));
  const opinions = (own.templates || []).map((template) => {
    const fill = element("div", { className: "fill" });
    fill.style.width = percent(template.confidence);
    return element("div", { className: "opinion" }, named(template.prediction),
      element("div", { className: "track", role: "img", "aria-label": `confidence ${percent(template.confidence)}`, title: `confidence ${percent(template.confidence)}, u ${small(template.uncertainty)}` }, fill),
      element("span", { textContent: small(template.uncertainty) }));
  });
  if (opinions.length && own.opinions_of) opinions.unshift(element("div", { className: "soft" }, "templates of ", named(own.opinions_of)));
  return element("div", { className: "card", title: own.path }, picture, element("div", {}, "label: ", named(own.label)), ...verdicts,
    element("div", { className: "opinions" }, ...opinions));
}

// ---- the page -------------------------------------------------------------------------------------------------
function update() {
  showParts();
  showSystems();
  document.querySelectorAll("[data-shows]").forEach((node) => { node.textContent = value(node.dataset.shows); });
  document.querySelectorAll("[data-list]").forEach((node) => node.replaceChildren(...lists[node.dataset.list]()));
  document.querySelectorAll("tr[data-dataset]").forEach((row) => row.classList.toggle("chosen", row.dataset.dataset === value("dataset")));
  seen.forEach(draw);
}
document.querySelectorAll("select").forEach((select) => select.addEventListener("change", update));
showList(update);
// Until the page is opened, sections out of sight are not laid out. Pictures and copies of the whole page need all of them,
// and so do places to which a link or the browser scrolls.
const opened = () => document.documentElement.classList.add("opened");
if (performance.getEntriesByType("navigation").some((entry) => entry.type !== "navigate")) opened();
window.addEventListener("load", () => setTimeout(opened, 1000));
window.addEventListener("beforeprint", opened);
// What a link or the keyboard goes to is not to lie below the bar, where that stays at the top.
function keepClear() {
  const bar = document.querySelector(".bar"), stays = getComputedStyle(bar).position === "sticky";
  document.documentElement.style.scrollPaddingTop = stays ? `${bar.offsetHeight + 8}px` : "";
}
// A turned telephone has room for other charts.
let width = window.innerWidth, waiting;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  keepClear();
  clearTimeout(waiting);
  waiting = setTimeout(() => seen.forEach(draw), 200);
});

function themed(theme) {
  document.documentElement.dataset.theme = theme;
  get("theme").textContent = theme === "dark" ? "light" : "dark";
  seen.forEach(draw);
}
const dark = window.matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => themed(dark.matches ? "dark" : "light"));
get("theme").addEventListener("click", () => themed(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
let shown = "light";
window.addEventListener("beforeprint", () => {
  shown = document.documentElement.dataset.theme;
  nodes.forEach((node) => seen.add(node));  // those that were not in sight yet, too
  themed("light");
});
window.addEventListener("afterprint", () => themed(shown));

const folds = [...document.querySelectorAll("section > details")];
get("fold").addEventListener("click", () => {
  const open = folds.some((own) => own.open);
  folds.forEach((own) => { own.open = !open; });
  get("fold").textContent = open ? "unfold all" : "fold all";
});

document.querySelectorAll("table[data-sortable]").forEach((table) => {
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, index) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "descending" || (header.getAttribute("aria-sort") === null && index === 0);
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = (row) => {
      const own = row.cells[index];
      return "value" in own.dataset ? (own.dataset.value === "" ? null : Number(own.dataset.value)) : own.textContent;
    };
    const rows = [...table.tBodies[0].rows], last = rows.filter((row) => row.classList.contains("average"));
    const sorted = rows.filter((row) => !last.includes(row)).sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = typeof x === "number" ? x - y : x.localeCompare(y);
      return down ? order : -order;
    });
    table.tBodies[0].append(...sorted, ...last);
  }));
});
document.querySelectorAll("[data-filters]").forEach((input) => input.addEventListener("input", () => {
  const wanted = input.value.toLowerCase();
  for (const row of get(input.dataset.filters).tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
}));

// #dtd/cdc: the data set is chosen, and the place of the system's runs on it is opened.
function follow() {
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch (error) { return; }
  const target = get(id), name = id.split("/")[0], dataset = Object.keys(data.links).includes(name) && data.links[name];
  if (dataset && value("dataset") !== dataset) { get("dataset").value = dataset; update(); }
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  opened();
  target.scrollIntoView();
}
window.addEventListener("hashchange", follow);
if (dark.matches) themed("dark");
update();
keepClear();
follow();
