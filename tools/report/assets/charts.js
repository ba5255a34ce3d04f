// What each chart draws: a list of traces and a layout, of which `height` is that of the chart without its legend.
const NARROW = 560;  // pixels, below which panels stand below each other and names are shorter
const BAR = 6;  // pixels of the thinnest bar in the chart of gains
const NARROW_BARS = 16;  // in that chart where there is little room
const AVERAGE = "\0average";  // the row of averages, which no data set is called
const isNarrow = (node) => node.clientWidth < NARROW;
const inLegend = (title, node) => label(title, isNarrow(node) ? 30 : 40);
// The whole name of a trace's system, which its legend may shorten.
const whole = (title) => ({ meta: plain(title) });
const EXTRA = "<extra>%{fullData.meta}</extra>";
const percentages = (x, y) => `${x} %{x:.1f}%, ${y} %{y:.1f}%${EXTRA}`;

function layout(more = {}) {
  const css = getComputedStyle(document.documentElement);
  const color = (name) => css.getPropertyValue(name).trim();
  const axis = ({ title, ...own } = {}) => ({ title: title && { standoff: 8, ...title }, gridcolor: color("--line"), zerolinecolor: color("--soft"), automargin: true, ...own });
  return {
    paper_bgcolor: color("--ground"), plot_bgcolor: color("--ground"), font: { color: color("--ink"), size: 13 },
    margin: { l: 60, r: 15, t: 40, b: 50 }, hovermode: "closest", hoverlabel: { namelength: -1 },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, ...more,
    xaxis: axis(more.xaxis), yaxis: axis(more.yaxis),
  };
}
const marker = (title, more = {}) => ({ color: style(title).color, symbol: style(title).symbol, size: 9, ...more });
// A fainter fill, and the colour itself around it, which alone would be too faint against the ground.
const faint = (color, share) => `${color}${Math.round(255 * share).toString(16).padStart(2, "0")}`;
const line = (title) => ({ color: style(title).color, dash: style(title).dash, width: 2 });
const cell = (column, row, metric) => (column.cells[row] || {})[metric];

const isWhole = (column, name) => column.metrics.every((metric) => cell(column, name, metric));
// The data sets that all of some systems have results on, else those of the table's average if one of them has it; a
// system without any result has no say.
function shared(table, columns) {
  const there = columns.filter((column) => Object.keys(column.cells).length);
  const all = (name) => there.every((column) => isWhole(column, name));
  const names = there.length ? table.datasets.filter((name) => name !== table.source && all(name)) : [];
  if (names.length > 1) return names;
  return there.some((column) => table.averaged.every((name) => isWhole(column, name))) ? table.averaged : [];
}
// A system with its averages over data sets as one more row, if it has all of them.
function withAverage(column, names) {
  const averages = {}, there = names.length && names.every((name) => isWhole(column, name));
  for (const metric of there ? column.metrics.filter((own) => own !== "HM") : []) {
    const cells = names.map((name) => cell(column, name, metric)), seeds = Object.keys(cells[0].seeds);
    const same = cells.every((own) => Object.keys(own.seeds).join() === seeds.join());
    const bySeed = (same ? seeds : []).map((seed) => [seed, average(cells.map((own) => own.seeds[seed]))]);
    const values = bySeed.map(([, own]) => own);
    averages[metric] = { mean: average(cells.map((own) => own.mean)), std: values.length > 1 ? deviation(values) : null, seeds: Object.fromEntries(bySeed) };
  }
  const { Base, New } = averages;
  if (Base && New && column.metrics.includes("HM")) averages.HM = { mean: (2 * Base.mean * New.mean) / (Base.mean + New.mean || 1) };
  return { ...column, cells: { ...column.cells, [AVERAGE]: averages } };
}

const rowTitle = (row, names) => (row === AVERAGE ? `average of ${names.length}` : plain(data.names[row] || row));

// Where one or two panels stand: beside each other, or below each other where there is little room.
function panels(number, node) {
  if (number < 2) return [{ x: [0, 1], y: [0, 1] }];
  if (isNarrow(node)) return [{ x: [0, 1], y: [0.6, 1] }, { x: [0, 1], y: [0, 0.4] }];
  return [{ x: [0, 0.46], y: [0, 1] }, { x: [0.54, 1], y: [0, 1] }];
}
const heading = (text, place) => ({
  text, x: average(place.x), xref: "paper", xanchor: "center", y: place.y[1], yref: "paper", yanchor: "bottom", showarrow: false,
});
// A panel's axes in a layout, and what a trace in it says of them.
function axesOf(own, index, place, x, y) {
  const [xName, yName] = index ? ["xaxis2", "yaxis2"] : ["xaxis", "yaxis"];
  own[xName] = { ...own.xaxis, ...x, domain: place.x, anchor: index ? "y2" : "y" };
  own[yName] = { ...own.yaxis, ...y, domain: place.y, anchor: index ? "x2" : "x" };
  return { x: own[xName], y: own[yName], trace: index ? { xaxis: "x2", yaxis: "y2" } : {} };
}

// The mean of a system's gains over another one, of the same seeds, and their standard deviation.
function gainOf(column, base, row, metric) {
  const own = cell(column, row, metric), theirs = cell(base, row, metric);
  if (!own || !theirs) return null;
  // What trains nothing is the same under every seed.
  const seeds = Object.keys((column.constant ? theirs : own).seeds).filter((seed) => column.constant || base.constant || seed in theirs.seeds);
  const at = (one, found, seed) => (one.constant ? found.mean : found.seeds[seed]);
  const gains = seeds.map((seed) => at(column, own, seed) - at(base, theirs, seed));
  if (!gains.length) return { mean: own.mean - theirs.mean, std: 0 };
  return { mean: average(gains), std: gains.length > 1 ? deviation(gains) : 0 };
}

// A bar for each system, data set and metric.
function gainsInBars(base, columns, metrics, rows, names, node) {
  const title = (row) => rowTitle(row, names);
  const traces = [];
  for (const column of columns) {
    for (const [index, name] of metrics.entries()) {
      const found = rows.map((row) => [title(row), gainOf(column, base, row, name)]).filter(([, gain]) => gain);
      if (!found.length) continue;
      const ending = metrics.length > 1 ? `, ${name.toLowerCase()}` : "";
      traces.push({
        type: "bar", x: found.map(([row]) => row), y: found.map(([, gain]) => gain.mean),
        error_y: { array: found.map(([, gain]) => gain.std), thickness: 1 }, name: inLegend(column.title, node) + ending, ...whole(column.title + ending),
        marker: {
          color: faint(style(column.title).color, index || metrics.length === 1 ? 1 : 0.45), line: { color: style(column.title).color, width: 1 },
          pattern: { shape: style(column.title).pattern },
        },
        hovertemplate: `%{x}: %{y:+.2f}${EXTRA}`,
      });
    }
  }
  // In the order of the table, though the first system lacks a row.
  const order = rows.map(title).filter((name) => traces.some((trace) => trace.x.includes(name)));
  const xaxis = { type: "category", categoryorder: "array", categoryarray: order };
  return [traces, layout({ barmode: "group", xaxis, yaxis: { title: { text: "points" } } })];
}

// A row for each system, the one that gains most at the top: of the average, and of the data set that is chosen.
function gainsInRows(base, columns, metrics, rows, averaged, node) {
  const row = rows.includes(value("dataset")) ? value("dataset") : rows[rows.length - 1];
  const last = metrics[metrics.length - 1], shown = unique(averaged.length && cell(base, AVERAGE, last) ? [AVERAGE, row] : [row]);
  const gains = columns.map((column) => ({ column, of: (name, metric) => gainOf(column, base, name, metric) }));
  // Those without an average stand below all that have one.
  const order = (own) => shown.map((name) => own.of(name, last)).map((gain, at) => gain && gain.mean - 1000 * at).filter(Number.isFinite)[0];
  const sorted = gains.filter((own) => order(own) !== undefined).sort((a, b) => order(a) - order(b));
  if (!sorted.length) return null;
  const places = panels(shown.length, node), names = sorted.map(({ column }) => label(column.title, isNarrow(node) ? 20 : 32));
  const inPanel = 24 * sorted.length + 20, own = layout({ height: isNarrow(node) && shown.length > 1 ? 90 + 2.5 * Math.max(inPanel, 140) : 90 + inPanel });
  own.annotations = shown.map((name, index) => heading(rowTitle(name, averaged), places[index]));
  const traces = [];
  const symbol = (metric, title) => style(title).symbol + (metric === last ? "" : "-open");
  shown.forEach((name, index) => {
    const ticks = { tickvals: names.map((_, at) => at), ticktext: names, showticklabels: !index || isNarrow(node), range: [-0.7, names.length - 0.3], zeroline: false };
    const axes = axesOf(own, index, places[index], { title: { text: "points", standoff: 8 } }, ticks);
    metrics.forEach((metric, at) => {
      const found = sorted.map(({ column, of }, place) => ({ title: column.title, gain: of(name, metric), place: place + (metrics.length > 1 ? 0.15 - 0.3 * at : 0) })).filter(({ gain }) => gain);
      traces.push({
        x: found.map(({ gain }) => gain.mean), y: found.map(({ place }) => place), mode: "markers", showlegend: false,
        error_x: { array: found.map(({ gain }) => gain.std), thickness: 1, width: 2, color: "#888888" },
        marker: { color: found.map(({ title }) => style(title).color), symbol: found.map(({ title }) => symbol(metric, title)), size: 9 },
        text: found.map(({ title }) => plain(title)), hovertemplate: `%{text}, ${metric.toLowerCase()}: %{x:+.2f}<extra></extra>`, ...axes.trace,
      });
    });
  });
  if (metrics.length > 1) {
    for (const metric of metrics) {
      traces.push({ x: [null], y: [null], mode: "markers", name: metric.toLowerCase(), marker: { color: "#888888", symbol: metric === last ? "circle" : "circle-open", size: 9 } });
    }
  }
  return [traces, own];
}

const charts = {
  scatter(node) {
    const table = data.tables.base2new, row = table.datasets.includes(value("dataset")) ? value("dataset") : "";
    const some = table.columns.filter((column) => drawn.has(column.title)), names = shared(table, some);
    const columns = some.map((column) => withAverage(column, names));
    const rows = [...(names.length ? [AVERAGE] : []), ...(row ? [row] : [])], places = panels(rows.length, node);
    const own = layout({ height: isNarrow(node) ? 300 * rows.length : 0 }), traces = [];
    own.annotations = rows.map((name, index) => heading(rowTitle(name, names), places[index]));
    rows.forEach((name, index) => {
      const axes = axesOf(own, index, places[index], { title: { text: "base classes (%)", standoff: 8 } }, { title: index && !isNarrow(node) ? undefined : { text: "new classes (%)", standoff: 8 } });
      const shown = columns.map((column) => ({ title: column.title, base: cell(column, name, "Base"), fresh: cell(column, name, "New"), hm: cell(column, name, "HM") }));
      const points = shown.filter(({ base, fresh }) => base && fresh);
      if (!points.length) return;
      const error = (cell) => ({ array: [cell.std || 0], thickness: points.length > 6 ? 1 : 2 });
      for (const { title, base, fresh, hm } of points) {
        traces.push({
          x: [base.mean], y: [fresh.mean], error_x: error(base), error_y: error(fresh),
          mode: "markers", marker: marker(title, { size: 12 }), name: inLegend(title, node), legendgroup: title,
          showlegend: !traces.some((trace) => trace.legendgroup === title), ...axes.trace,
          ...whole(title), hovertemplate: `%{fullData.meta}<br>base ${fixed(base.mean)}, new ${fixed(fresh.mean)}, HM ${hm ? fixed(hm.mean) : "–"}<extra></extra>`,
        });
      }
      const range = (cells) => [Math.min(...cells.map((own) => own.mean - (own.std || 0))) - 2, Math.max(...cells.map((own) => own.mean + (own.std || 0))) + 2];
      axes.x.range = range(points.map(({ base }) => base));
      axes.y.range = range(points.map(({ fresh }) => fresh));
      const [left, right] = axes.x.range;
      const hms = points.map(({ base, fresh }) => (2 * base.mean * fresh.mean) / (base.mean + fresh.mean));
      for (const hm of [Math.floor(Math.min(...hms)), Math.round((Math.min(...hms) + Math.max(...hms)) / 2), Math.ceil(Math.max(...hms))]) {
        const x = Array.from({ length: 30 }, (_, at) => left + (at * (right - left)) / 29).filter((at) => 2 * at - hm > 0);
        traces.push({
          x, y: x.map((at) => (hm * at) / (2 * at - hm)), mode: "lines", line: { color: "#888888", width: 1, dash: "dot" },
          showlegend: false, hovertemplate: `HM ${hm}<extra></extra>`, ...axes.trace,
        });
      }
    });
    return [traces, own];
  },

  gain(node) {
    const table = data.tables[node.dataset.protocol], title = value("base");
    const some = table.columns.filter((column) => column.title === title || drawn.has(column.title)), names = shared(table, some);
    const columns = some.map((column) => withAverage(column, names)), base = columns.find((column) => column.title === title);
    if (!base) return null;
    const others = columns.filter((column) => column !== base), metrics = base.metrics.includes("New") ? ["Base", "New"] : ["Accuracy"];
    const rows = [...table.datasets.filter((name) => name !== table.source), ...(names.length ? [AVERAGE] : [])];
    const bars = others.length * metrics.length * rows.length, room = isNarrow(node) ? NARROW_BARS : node.clientWidth / BAR;
    const looks = unique(others.map(({ title }) => style(title).color + style(title).pattern));
    return (bars > room || looks.length < others.length ? gainsInRows : gainsInBars)(base, others, metrics, rows, names, node);
  },

  shots(node) {
    const table = data.tables.fewshot, row = table.datasets.includes(value("dataset")) ? value("dataset") : table.datasets[0];
    const traces = table.columns.filter((column) => drawn.has(column.title)).map((column) => {
      const points = column.metrics.map((metric) => [column.shots[metric], cell(column, row, metric)]).filter(([shots, own]) => own && shots >= 0);
      return {
        x: points.map(([shots]) => shots), y: points.map(([, own]) => own.mean), error_y: { array: points.map(([, own]) => own.std || 0) },
        mode: "lines+markers", name: inLegend(column.title, node), ...whole(column.title), marker: marker(column.title), line: line(column.title),
        hovertemplate: `%{x} per class: %{y:.2f}%${EXTRA}`,
      };
    });
    return [traces, layout({ title: { text: plain(data.names[row] || row) }, xaxis: { title: { text: "training images per class" } }, yaxis: { title: { text: "accuracy (%)" } } })];
  },

  epochs(node) {
    const found = trainings().filter(isDrawn);
    if (!found.length) return null;
    const traces = found.map((own) => ({
      x: own.meters[value("meter")][0], y: own.meters[value("meter")][1], mode: "lines+markers", name: inLegend(own.system, node), ...whole(own.system),
      marker: marker(own.system, { size: 6 }), line: line(own.system), hovertemplate: `epoch %{x}: %{y:.4~g}${EXTRA}`,
    }));
    const shots = found[0].shots ? `, ${shotsTitle(found[0].shots)}` : "";
    const title = { text: plain(`${data.titles[found[0].protocol]}${shots}`) };
    return [traces, layout({ title, xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: plain(value("meter")) } } })];
  },

  classes(node) {
    const found = chosen(), one = found.find((own) => own.system === value("one")), other = found.find((own) => own.system === value("other"));
    if (!one || !other) return null;
    const names = data.classes[one.key];
    const rows = names.map((name, index) => [name, one.classes[index], other.classes[index]]).filter(([, a, b]) => a !== null && b !== null);
    rows.sort((a, b) => Math.abs(b[2] - b[1]) - Math.abs(a[2] - a[1]));
    const top = rows.slice(0, 20).reverse();
    const places = top.map((_, index) => index);
    const trace = (own, at) => ({
      x: top.map((row) => row[at]), y: places, mode: "markers", name: inLegend(own.system, node), marker: marker(own.system),
      text: top.map((row) => plain(row[0])), hovertemplate: "%{text}: %{x:.1f}%<extra></extra>",
    });
    const joined = { x: [], y: [], mode: "lines", line: { color: "#888888", width: 1 }, showlegend: false, hoverinfo: "skip" };
    top.forEach((row, index) => { joined.x.push(row[1], row[2], null); joined.y.push(index, index, null); });
    return [[joined, trace(one, 1), trace(other, 2)], layout({
      height: 120 + 24 * top.length, xaxis: { title: { text: "accuracy (%)" } },
      yaxis: { tickvals: places, ticktext: top.map((row) => short(row[0])) },
    })];
  },

  reliability(node) {
    const traces = chosen().filter(isDrawn).map((own) => {
      const bins = own.reliability.filter(([number]) => number > 0), most = Math.max(...bins.map(([number]) => number));
      return {
        x: bins.map(([, mean]) => mean), y: bins.map(([, , accuracy]) => accuracy), mode: "lines+markers", name: inLegend(own.system, node), ...whole(own.system), line: line(own.system),
        marker: marker(own.system, { size: bins.map(([number]) => 4 + 12 * Math.sqrt(number / most)) }), text: bins.map(([number]) => number),
        hovertemplate: "%{text} images: confidence %{x:.1f}%, accuracy %{y:.1f}%" + EXTRA,
      };
    });
    if (!traces.length) return null;
    traces.unshift({ x: [0, 100], y: [0, 100], mode: "lines", line: { color: "#888888", dash: "dot" }, showlegend: false, hoverinfo: "skip" });
    return [traces, layout({ xaxis: { title: { text: "confidence (%)" }, range: [0, 102] }, yaxis: { title: { text: "accuracy (%)" }, range: [0, 102] } })];
  },

  risk(node) {
    const traces = chosen().filter((own) => isDrawn(own) && value("score") in own.risk).map((own) => {
      const risk = own.risk[value("score")];
      return {
        x: risk.map((_, index) => (100 * (index + 1)) / risk.length), y: risk, mode: "lines", line: line(own.system),
        name: inLegend(own.system, node), ...whole(own.system), hovertemplate: percentages("coverage", "error"),
      };
    });
    if (!traces.length) return null;
    return [traces, layout({ xaxis: { title: { text: "coverage (%)" } }, yaxis: { title: { text: "error (%)" }, rangemode: "tozero" } })];
  },

  "hist-confidence": () => histogram("confidence", "confidence", (at, bars) => at / bars),
  "hist-uncertainty": () => histogram("uncertainty", "uncertainty, log10", (at, bars) => data.lowest * (1 - at / bars)),

  templates(node) {
    const found = chosen().filter((own) => isDrawn(own) && own.templates.accuracy);
    if (!found.length) return null;
    const traces = found.map((own) => {
      const m = own.templates.accuracy.length;
      return {
        type: "bar", x: [...own.templates.accuracy.map((_, index) => `template ${index + 1}`), "mean", "best", "fused"],
        y: [...own.templates.accuracy, own.templates.mean, own.templates.best, own.templates.fused], name: inLegend(own.system, node), ...whole(own.system),
        marker: {
          color: [...Array(m).fill(0.6), 0.8, 0.8, 1].map((share) => faint(style(own.system).color, share)), line: { color: style(own.system).color, width: 1 },
          pattern: { shape: style(own.system).pattern },
        },
        hovertemplate: `%{x}: %{y:.2f}%${EXTRA}`,
      };
    });
    const ys = traces.flatMap((trace) => trace.y);
    return [traces, layout({ barmode: "group", yaxis: { title: { text: "accuracy (%)" }, range: [Math.max(0, Math.min(...ys) - 3), Math.min(100, Math.max(...ys) + 1)] } })];
  },

  agreement() {
    const found = chosen().filter((own) => isDrawn(own) && own.templates.agreement), own = found[found.length - 1];
    if (!own) return null;
    const names = own.templates.agreement.map((_, index) => `template ${index + 1}`);
    return [[{
      type: "heatmap", z: own.templates.agreement, x: names, y: names, colorscale: "Cividis", texttemplate: "%{z:.1f}",
      hovertemplate: "%{x} and %{y}: the same class on %{z:.1f}% of the images<extra></extra>",
    }], layout({ title: { text: `agreement (%), ${label(own.system, 24)}`, font: { size: 13 } }, yaxis: { autorange: "reversed" } })];
  },
};

function histogram(name, title, place) {
  const detail = chosen().find((other) => other.system === value("system"));
  const open = data.open_sets.find((other) => other.dataset === value("dataset") && other.system === value("system"));
  // On an open set the known classes are the base classes.
  const own = open && (!detail || value("part") === "base") ? open : detail;
  if (!own || !own.histograms[name]) return null;
  const shown = own.histograms[name], [any] = Object.values(shown);  // a kind without images is not there
  const x = any.map((_, index) => place(index + 0.5, any.length));
  const traces = Object.keys(shown).map((kind) => ({
    type: "bar", x, y: shown[kind], name: kind === "out" ? "of no known class" : kind, opacity: 0.75,
    marker: { color: data.kinds[kind], pattern: { shape: kind === "wrong" ? "/" : "", fillmode: "overlay" } },
  }));
  return [traces, layout({ barmode: "overlay", bargap: 0.02, xaxis: { title: { text: title } }, yaxis: { title: { text: "% of each kind" } } })];
}
