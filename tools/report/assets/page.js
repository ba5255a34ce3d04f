"use strict";
// Draws the page's charts from the data embedded in it. All text from outside goes through textContent or plain().
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  // Plotly reads a few HTML tags in its labels.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, most = 28) => plain([...String(text)].length > most ? [...String(text)].slice(0, most - 1).join("") + "…" : text);
  const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
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

  // ---- what is chosen -------------------------------------------------------------------------------------------
  function options(select, values, chosen) {
    if (!select) return;
    const before = chosen === undefined ? select.value : chosen;
    select.replaceChildren(...values.map(([value, text]) => element("option", { value, textContent: text })));
    if (values.some(([value]) => value === before)) select.value = before;
  }
  const systems = unique(Object.values(data.tables).flatMap((table) => table.columns.map((column) => column.title)));
  const datasets = data.datasets;
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
    options(get("part"), parts, names.includes(value("part")) || !names.includes("new") ? undefined : "new");
  }
  // Only systems that were tested on the chosen classes can be chosen; a choice lasts as long as it is one of them.
  function showSystems() {
    const there = chosen().map((own) => own.system), open = data.open_sets.filter((own) => own.dataset === value("dataset"));
    const titles = systems.filter((title) => there.includes(title));
    const choose = (id, names, first) =>
      options(get(id), names.map((title) => [title, title]), names.includes(value(id)) ? undefined : first);
    choose("one", titles, titles[0]);
    choose("other", titles, titles[titles.length - 1]);
    const drawn = systems.filter((title) => there.includes(title) || open.some((own) => own.system === title));
    choose("system", drawn, drawn[drawn.length - 1]);
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

  // ---- charts ---------------------------------------------------------------------------------------------------
  function layout(more = {}) {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    const axis = (own = {}) => ({ gridcolor: color("--line"), zerolinecolor: color("--soft"), automargin: true, ...own });
    return {
      paper_bgcolor: color("--ground"), plot_bgcolor: color("--ground"), font: { color: color("--ink"), size: 13 },
      margin: { l: 60, r: 15, t: 40, b: 50 }, hovermode: "closest",
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, ...more,
      xaxis: axis(more.xaxis), yaxis: axis(more.yaxis),
    };
  }
  const marker = (title, more = {}) => ({ color: style(title).color, symbol: style(title).symbol, size: 9, ...more });
  const line = (title) => ({ color: style(title).color, dash: style(title).dash, width: 2 });
  const cell = (column, row, metric) =>
    row === "average" ? column.averages[metric] : (column.cells[row] || {})[metric];

  const charts = {
    scatter() {
      const table = data.tables.base2new, row = table.datasets.includes(value("dataset")) ? value("dataset") : "average";
      const rows = table.averaged.length ? ["average", row] : [row];
      const traces = [];
      unique(rows).forEach((name, index) => table.columns.forEach((column) => {
        const base = cell(column, name, "Base"), fresh = cell(column, name, "New"), hm = cell(column, name, "HM");
        if (!base || !fresh) return;
        const axes = index ? { xaxis: "x2", yaxis: "y2" } : {};
        traces.push({
          x: [base.mean], y: [fresh.mean], error_x: { array: [base.std || 0] }, error_y: { array: [fresh.std || 0] },
          mode: "markers", marker: marker(column.title, { size: 12 }), name: plain(column.title), legendgroup: column.title,
          showlegend: index === 0, ...axes,
          hovertemplate: `${plain(column.title)}<br>base ${fixed(base.mean)}, new ${fixed(fresh.mean)}, HM ${hm ? fixed(hm.mean) : "–"}<extra></extra>`,
        });
      }));
      const places = unique(rows), two = places.length > 1;
      const own = layout({
        xaxis: { title: { text: "base classes (%)" }, domain: two ? [0, 0.46] : [0, 1] },
        yaxis: { title: { text: "new classes (%)" } },
      });
      if (two) {
        own.xaxis2 = { ...own.xaxis, domain: [0.54, 1], anchor: "y2" };
        own.yaxis2 = { ...own.yaxis, anchor: "x2", title: undefined };
      }
      own.annotations = places.map((name, index) => ({
        text: name === "average" ? `average of ${table.averaged.length}` : plain(data.names[name] || name),
        x: two ? (index ? 0.77 : 0.23) : 0.5, y: 1.08, xref: "paper", yref: "paper", showarrow: false,
      }));
      places.forEach((name, index) => {
        const shown = traces.filter((trace) => (trace.xaxis === "x2") === Boolean(index));
        if (!shown.length) return;
        const xs = shown.map((trace) => trace.x[0]), ys = shown.map((trace) => trace.y[0]);
        const [left, right] = [Math.min(...xs) - 2, Math.max(...xs) + 2], [low, high] = [Math.min(...ys) - 2, Math.max(...ys) + 2];
        own[index ? "xaxis2" : "xaxis"].range = [left, right];
        own[index ? "yaxis2" : "yaxis"].range = [low, high];
        const hms = shown.map((trace) => (2 * trace.x[0] * trace.y[0]) / (trace.x[0] + trace.y[0]));
        for (const hm of [Math.floor(Math.min(...hms)), Math.round((Math.min(...hms) + Math.max(...hms)) / 2), Math.ceil(Math.max(...hms))]) {
          const x = Array.from({ length: 30 }, (_, at) => left + (at * (right - left)) / 29).filter((at) => 2 * at - hm > 0);
          traces.push({
            x, y: x.map((at) => (hm * at) / (2 * at - hm)), mode: "lines", line: { color: "#888888", width: 1, dash: "dot" },
            showlegend: false, hovertemplate: `HM ${hm}<extra></extra>`, ...(index ? { xaxis: "x2", yaxis: "y2" } : {}),
          });
        }
      });
      return [traces, own];
    },

    gain(node) {
      const table = data.tables[node.dataset.protocol], base = table.columns.find((column) => column.title === value("base"));
      if (!base) return null;
      const metric = table.columns[0].metrics.includes("New") ? ["Base", "New"] : ["Accuracy"];
      const rows = [...table.datasets.filter((name) => name !== table.source), ...(table.averaged.length ? ["average"] : [])];
      const title = (row) => plain(row === "average" ? "average" : data.names[row] || row);
      const traces = [];
      for (const column of table.columns) {
        if (column === base) continue;
        for (const [index, name] of metric.entries()) {
          const ys = [], deviations = [], xs = [];
          for (const row of rows) {
            const own = cell(column, row, name), theirs = cell(base, row, name);
            if (!own || !theirs) continue;
            // What trains nothing is the same under every seed.
            const seeds = Object.keys((column.constant ? theirs : own).seeds).filter((seed) => column.constant || base.constant || seed in theirs.seeds);
            const at = (one, found, seed) => (one.constant ? found.mean : found.seeds[seed]);
            const gains = seeds.map((seed) => at(column, own, seed) - at(base, theirs, seed));
            const average = gains.length ? gains.reduce((a, b) => a + b) / gains.length : own.mean - theirs.mean;
            const variance = gains.reduce((sum, gain) => sum + (gain - average) ** 2, 0) / Math.max(1, gains.length - 1);
            xs.push(title(row));
            ys.push(average);
            deviations.push(gains.length > 1 ? Math.sqrt(variance) : 0);
          }
          traces.push({
            type: "bar", x: xs, y: ys, error_y: { array: deviations, thickness: 1 }, name: plain(column.title + (metric.length > 1 ? `, ${name.toLowerCase()}` : "")),
            marker: { color: style(column.title).color, opacity: index || metric.length === 1 ? 1 : 0.45, pattern: { shape: style(column.title).pattern } },
            hovertemplate: "%{x}: %{y:+.2f}<extra>%{fullData.name}</extra>",
          });
        }
      }
      // In the order of the table, though the first system lacks a row.
      const order = rows.map(title).filter((name) => traces.some((trace) => trace.x.includes(name)));
      const xaxis = { type: "category", categoryorder: "array", categoryarray: order };
      return [traces, layout({ barmode: "group", xaxis, yaxis: { title: { text: "points" } } })];
    },

    shots() {
      const table = data.tables.fewshot, row = table.datasets.includes(value("dataset")) ? value("dataset") : table.datasets[0];
      const traces = table.columns.map((column) => {
        const points = column.metrics.map((metric) => [column.shots[metric], cell(column, row, metric)]).filter(([shots, own]) => own && shots >= 0);
        return {
          x: points.map(([shots]) => shots), y: points.map(([, own]) => own.mean), error_y: { array: points.map(([, own]) => own.std || 0) },
          mode: "lines+markers", name: plain(column.title), marker: marker(column.title), line: line(column.title),
        };
      });
      return [traces, layout({ title: { text: plain(data.names[row] || row) }, xaxis: { title: { text: "training images per class" } }, yaxis: { title: { text: "accuracy (%)" } } })];
    },

    epochs() {
      const found = trainings();
      if (!found.length) return null;
      const traces = found.map((own) => ({
        x: own.meters[value("meter")][0], y: own.meters[value("meter")][1], mode: "lines+markers", name: plain(own.system),
        marker: marker(own.system, { size: 6 }), line: line(own.system),
      }));
      const shots = found[0].shots ? `, ${shotsTitle(found[0].shots)}` : "";
      const title = { text: plain(`${data.titles[found[0].protocol]}${shots}`) };
      return [traces, layout({ title, xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: plain(value("meter")) } } })];
    },

    classes() {
      const found = chosen(), one = found.find((own) => own.system === value("one")), other = found.find((own) => own.system === value("other"));
      if (!one || !other) return null;
      const names = data.classes[one.key];
      const rows = names.map((name, index) => [name, one.classes[index], other.classes[index]]).filter(([, a, b]) => a !== null && b !== null);
      rows.sort((a, b) => Math.abs(b[2] - b[1]) - Math.abs(a[2] - a[1]));
      const top = rows.slice(0, 20).reverse();
      const places = top.map((_, index) => index);
      const trace = (own, at) => ({
        x: top.map((row) => row[at]), y: places, mode: "markers", name: plain(own.system), marker: marker(own.system),
        text: top.map((row) => plain(row[0])), hovertemplate: "%{text}: %{x:.1f}%<extra></extra>",
      });
      const joined = { x: [], y: [], mode: "lines", line: { color: "#888888", width: 1 }, showlegend: false, hoverinfo: "skip" };
      top.forEach((row, index) => { joined.x.push(row[1], row[2], null); joined.y.push(index, index, null); });
      return [[joined, trace(one, 1), trace(other, 2)], layout({
        height: 120 + 24 * top.length, xaxis: { title: { text: "accuracy (%)" } },
        yaxis: { tickvals: places, ticktext: top.map((row) => short(row[0])) },
      })];
    },

    reliability() {
      const traces = chosen().map((own) => {
        const bins = own.reliability.filter(([number]) => number > 0), most = Math.max(...bins.map(([number]) => number));
        return {
          x: bins.map(([, mean]) => mean), y: bins.map(([, , accuracy]) => accuracy), mode: "lines+markers", name: plain(own.system), line: line(own.system),
          marker: marker(own.system, { size: bins.map(([number]) => 4 + 12 * Math.sqrt(number / most)) }), text: bins.map(([number]) => number),
          hovertemplate: "%{text} images: confidence %{x:.1f}%, accuracy %{y:.1f}%<extra>%{fullData.name}</extra>",
        };
      });
      if (!traces.length) return null;
      traces.unshift({ x: [0, 100], y: [0, 100], mode: "lines", line: { color: "#888888", dash: "dot" }, showlegend: false, hoverinfo: "skip" });
      return [traces, layout({ xaxis: { title: { text: "confidence (%)" }, range: [0, 102] }, yaxis: { title: { text: "accuracy (%)" }, range: [0, 102] } })];
    },

    risk() {
      const traces = chosen().filter((own) => value("score") in own.risk).map((own) => {
        const risk = own.risk[value("score")];
        return { x: risk.map((_, index) => (100 * (index + 1)) / risk.length), y: risk, mode: "lines", name: plain(own.system), line: line(own.system) };
      });
      if (!traces.length) return null;
      return [traces, layout({ xaxis: { title: { text: "coverage (%): the most certain images" } }, yaxis: { title: { text: "error (%)" }, rangemode: "tozero" } })];
    },

    "hist-confidence": () => histogram("confidence", "confidence", (at, bars) => at / bars),
    "hist-uncertainty": () => histogram("uncertainty", "uncertainty, log10", (at, bars) => data.lowest * (1 - at / bars)),

    templates() {
      const found = chosen().filter((own) => own.templates.accuracy);
      if (!found.length) return null;
      const traces = found.map((own) => {
        const m = own.templates.accuracy.length;
        return {
          type: "bar", x: [...own.templates.accuracy.map((_, index) => `template ${index + 1}`), "mean", "best", "fused"],
          y: [...own.templates.accuracy, own.templates.mean, own.templates.best, own.templates.fused], name: plain(own.system),
          marker: { color: style(own.system).color, opacity: [...Array(m).fill(0.6), 0.8, 0.8, 1], pattern: { shape: style(own.system).pattern } },
          hovertemplate: "%{x}: %{y:.2f}%<extra>%{fullData.name}</extra>",
        };
      });
      const ys = traces.flatMap((trace) => trace.y);
      return [traces, layout({ barmode: "group", yaxis: { title: { text: "accuracy (%)" }, range: [Math.max(0, Math.min(...ys) - 3), Math.min(100, Math.max(...ys) + 1)] } })];
    },

    agreement() {
      const found = chosen().filter((own) => own.templates.agreement), own = found[found.length - 1];
      if (!own) return null;
      const names = own.templates.agreement.map((_, index) => `template ${index + 1}`);
      return [[{
        type: "heatmap", z: own.templates.agreement, x: names, y: names, colorscale: "Cividis", texttemplate: "%{z:.1f}",
        hovertemplate: "%{x} and %{y}: the same class on %{z:.1f}% of the images<extra></extra>",
      }], layout({ title: { text: `agreement (%), ${short(own.system, 24)}`, font: { size: 13 } }, yaxis: { autorange: "reversed" } })];
    },
  };

  function histogram(name, title, place) {
    const detail = chosen().find((other) => other.system === value("system"));
    const open = data.open_sets.find((other) => other.dataset === value("dataset") && other.system === value("system"));
    // On an open set the known classes are the base classes.
    const own = open && (!detail || value("part") === "base") ? open : detail;
    if (!own || !own.histograms[name]) return null;
    const shown = own.histograms[name], bars = shown.right.length;
    const x = shown.right.map((_, index) => place(index + 0.5, bars));
    const traces = Object.keys(shown).map((kind) => ({
      type: "bar", x, y: shown[kind], name: kind === "out" ? "of no known class" : kind, opacity: 0.75,
      marker: { color: data.kinds[kind], pattern: { shape: kind === "wrong" ? "/" : "", fillmode: "overlay" } },
    }));
    return [traces, layout({ barmode: "overlay", bargap: 0.02, xaxis: { title: { text: title } }, yaxis: { title: { text: "% of each kind" } } })];
  }

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
      node.replaceChildren(element("p", { className: "empty", textContent: "There is nothing of this kind for this data set." }));
      return;
    }
    if (!node.data) node.replaceChildren();
    node.style.height = found[1].height ? `${found[1].height}px` : "";
    if (!found[1].height) node.style.height = `${node.clientHeight + legendHeight(found[0], node.clientWidth)}px`;
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
      return chosen().filter((own) => own.templates.accuracy).map((own) => element("p", { textContent:
        `${own.system}: fusion gains ${fixed(own.templates.fused - own.templates.best)} over the best template of each run and ` +
        `${fixed(own.templates.fused - own.templates.mean)} over their mean` +
        (own.similarity === null ? "." : `; the cosine of a class's embeddings under two templates is ${fixed(own.similarity, 3)}.`) }));
    },
    images() {
      const gallery = data.galleries.find(here);
      if (!gallery) return [element("p", { className: "empty", textContent: "There are no images for this data set." })];
      return gallery.rows.flatMap((row) => [element("h3", { textContent: `${row.title} (seed ${row.seed})` }), element("div", { className: "gallery" }, ...row.cards.map(card))]);
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
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  if (dark.matches) themed("dark");
  update();
  follow();
})();
