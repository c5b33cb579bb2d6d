"use strict";
// Draws the JSON of the page. Nothing is fetched; what a reader has chosen (theme, hidden
// curves, zoom, scroll position) is stored in the session, so that it survives a reload.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement, tip = document.getElementById("tip");
  const many = data.runs.length > 1;

  // ---- stored state --------------------------------------------------------------------------
  const KEY = "vci_jax:" + location.pathname;
  const restored = (() => {
    try { return JSON.parse(sessionStorage.getItem(KEY)) || {}; } catch { return {}; }
  })();
  const state = Object.assign({ theme: "auto", hidden: null, zoom: {}, chosen: {}, scroll: 0, open: [] }, restored);
  const save = () => {
    state.scroll = scrollY;
    state.open = [...document.querySelectorAll("main > section > details")].map((d) => d.open);
    try { sessionStorage.setItem(KEY, JSON.stringify(state)); } catch { /* Private windows. */ }
  };
  const crowded = data.runs.length > 3;
  const hidden = new Set(state.hidden || (crowded ? ["split:test", "band"] : []));

  // ---- colours ------------------------------------------------------------------------------
  let colours = {};
  const colour = (name) =>
    (colours[name] ||= getComputedStyle(root).getPropertyValue("--" + name).trim());
  const nameOf = (s) => (many ? "c" + (s.run % 8) : s.split);
  const MARK = { train: 0, test: 1 };
  const theme = (wanted) => {
    colours = {};
    if (wanted === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = wanted;
    for (const chart of charts.values()) chart.plot.redraw(false, true);
  };

  // ---- helpers ------------------------------------------------------------------------------
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  // Numbers that are compared have equal digits: three or more of the smallest.
  const fixed = (values) => {
    const sizes = values.filter((v) => typeof v === "number" && v).map(Math.abs);
    if (!sizes.length || values.every((v) => typeof v !== "number" || Number.isInteger(v))) return values.map((v) => (typeof v === "string" ? v : show(v)));
    const places = Math.max(0, 2 - Math.floor(Math.log10(Math.min(...sizes))));
    const text = places < 7 && Math.max(...sizes) < 1e5 ? (v) => v.toFixed(places) : (v) => v.toExponential(2);
    return values.map((v) => (typeof v === "number" ? text(v) : v ?? "–"));
  };
  const show = (v) => (v == null ? "–" : Number.isInteger(v) ? String(v) : String(+v.toPrecision(5)));
  // A text that a spreadsheet would take for a formula begins with an apostrophe.
  const csvCell = (v) => {
    if (v == null || typeof v === "number") return v ?? "";
    const text = /^[=+\-@\t\r]/.test(v) ? "'" + v : String(v);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const download = (name, rows) => {
    const text = rows.map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const table = (head, rows) => {
    const columns = head.map((_, j) => fixed(rows.map((row) => row[j])));
    return make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col", textContent: h })))),
      make("tbody", {}, ...rows.map((_, i) => make("tr", {}, ...columns.map((column) => make("td", { textContent: column[i] }))))));
  };

  // ---- charts -------------------------------------------------------------------------------
  // A chart is { plot, spec }; spec has x, columns, labels, colours, keys (of the legend), text.
  const charts = new Map();
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  window.vciCharts = charts;

  const join = (parts) => {
    const x = [...new Set(parts.flatMap((p) => p.x))].sort((a, b) => a - b);
    const at = new Map(x.map((v, i) => [v, i]));
    const spread = (p, ys) => { const out = Array(x.length).fill(null); p.x.forEach((v, i) => { out[at.get(v)] = ys[i]; }); return out; };
    return { x, spread };
  };

  const place = (u, idx) => {
    const rows = tipRows(u, idx);
    if (!rows) { tip.hidden = true; return; }
    tip.replaceChildren(...rows);
    tip.hidden = false;
    const box = u.over.getBoundingClientRect(), mine = tip.getBoundingClientRect();
    const left = box.left + u.cursor.left + 16;
    tip.style.left = Math.max(4, left + mine.width > innerWidth ? box.left + u.cursor.left - mine.width - 16 : left) + "px";
    tip.style.top = Math.max(4, Math.min(innerHeight - mine.height - 4, box.top + Math.max(0, u.cursor.top) - mine.height / 2)) + "px";
  };
  const tipRows = (u, idx) => {
    if (idx == null || u.cursor.left < 0) return null;
    const { spec } = u;
    const shown = spec.keys.map((_, i) => i).filter((i) => u.data[i + 1][idx] != null && u.series[i + 1].show && !spec.quiet[i]);
    const text = fixed(shown.flatMap((i) => [u.data[i + 1][idx], ...(spec.band ? spec.band(i, idx) : [null, null])]));
    const lines = shown.map((i, n) => {
      const mark = make("i"); mark.style.background = colour(spec.colours[i]);
      const [y, low, high] = text.slice(3 * n, 3 * n + 3);
      return make("div", {}, make("span", {}, mark, spec.text(i, idx)), make("span", { textContent: low === "–" ? y : `${y} (${low} to ${high})` }));
    });
    if (!lines.length) return null;
    return [make("b", { textContent: spec.head(u.data[0][idx]) }), ...lines];
  };

  const draw = (id, spec) => {
    const figure = document.getElementById("chart-" + id);
    const host = make("div", { className: "plot", tabIndex: 0 });
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: ${spec.aria}. Arrow keys read values.`);
    figure.append(host);
    const log = spec.scale === "log";
    const clean = (ys) => (log ? ys.map((y) => (y > 0 ? y : null)) : ys);
    const axis = (extra) => ({ stroke: () => colour("quiet"), grid: { stroke: () => colour("grid"), width: 1 },
      ticks: { stroke: () => colour("grid"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", ...extra });
    const plain = (u, splits) => splits.map((v) => (v == null ? "" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e5 || v === 0 ? String(+v.toPrecision(6)) : v.toExponential(0)));
    // Logarithmic axes of few decades have numbers at 2 and 5, too.
    const sparse = (u, splits) => {
      const few = Math.max(...splits) < 1e3 * Math.min(...splits);
      return splits.map((v) => ((few ? [1, 2, 5] : [1]).includes(Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9))) ? v : null));
    };
    const width = () => Math.min(spec.square ? 480 : Infinity, Math.max(200, Math.floor(host.clientWidth || figure.clientWidth)));
    const height = () => (spec.square ? width() : innerWidth < 480 ? 210 : 250);
    const plot = new uPlot({
      width: width(), height: height(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false }, points: { size: 9 } },
      scales: {
        x: { time: false, ...(spec.square ? { range: spec.square } : spec.scatter ? { range: padded(spec.x) } : {}), ...(spec.logX ? { distr: 3, range: decades } : {}) },
        y: spec.square ? { range: spec.square } : log ? { distr: 3, range: decades } : { range: (u, min, max) => spec.scale === "zero" ? [0, (max || 1) * 1.08] : spread(min, max) },
      },
      axes: spec.square ? [{ show: false }, { show: false }] : [
        axis({ label: spec.xLabel, labelSize: 18, size: 34, values: plain, ...(spec.whole ? { incrs: WHOLE } : {}), ...(spec.logX ? { filter: sparse } : {}) }),
        axis({ size: 58, values: plain, label: spec.yLabel, labelSize: spec.yLabel ? 18 : 0, ...(log ? { filter: sparse } : {}) })],
      series: [{}, ...spec.keys.map((key, i) => ({
        label: spec.text(i, 0), show: key.every((k) => !hidden.has(k)),
        stroke: spec.quiet[i] ? "transparent" : () => colour(spec.colours[i]),
        width: spec.quiet[i] ? 0 : 1.8, spanGaps: true,
        ...(spec.scatter ? { paths: () => null } : {}),
        points: spec.quiet[i] ? { show: false } : { show: true, size: 6, fill: () => colour(spec.colours[i]), paths: shaped(spec.marks[i], spec.square ? 3.5 : spec.scatter ? 5 : 3, spec.scatter) },
      }))],
      bands: spec.bands.map(([high, low]) => ({ series: [high, low], fill: () => colour(spec.colours[high - 1]) + "2e" })),
      hooks: {
        setCursor: [(u) => { if (u.spec) place(u, u.cursor.idx); }],
        draw: [(u) => { if (spec.over) spec.over(u); }],
        setScale: [(u, key) => { if (key === "x" && u.spec) remember(id, u); }],
      },
    }, [spec.x, ...spec.columns.map(clean)], host);
    plot.spec = spec;
    charts.set(id, { plot, spec });
    if (state.zoom[id]) plot.setScale("x", state.zoom[id]);
    keyboard(host, plot);
    new ResizeObserver(() => { if (host.clientWidth && width() !== plot.width) plot.setSize({ width: width(), height: height() }); }).observe(host);
    if (!figure.querySelector(".under")) figure.append(under(id, spec));
    figure.querySelector(".under").before(host);
    return plot;
  };
  // Logarithmic axes end at 1, 2 or 5 times a power of ten: uPlot's own whole decades leave gaps.
  const decades = (u, min, max) => {
    if (!(min > 0)) return [0.1, 1];
    const snap = (v, steps, fits) => { const unit = 10 ** Math.floor(Math.log10(v)); return unit * steps.find((k) => fits(unit * k)); };
    const low = snap(min, [5, 2, 1], (v) => v <= min * (1 + 1e-9)), high = snap(max, [1, 2, 5, 10], (v) => v >= max * (1 - 1e-9));
    return low < high ? [low, high] : [low / 2, high * 2];
  };
  const spread = (min, max) => {
    if (min == null) return [0, 1];
    const pad = (max - min) * 0.08 || Math.abs(max) * 0.1 || 1;
    return [min - pad, max + pad];
  };
  // All points of a scatter are whole: the ends of x have room, unless a part was zoomed into.
  const padded = (x) => {
    const [low, high] = [x[0], x[x.length - 1]], pad = (high - low) * 0.05 || Math.abs(low) * 0.1 || 1;
    return (u, min, max) => (min > low || max < high ? [min, max] : [low - pad, high + pad]);
  };
  // Corners around a point, as fractions of its radius; the first shape is a circle.
  const SHAPES = [null, [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], [[0, -1.1], [1.1, 0.9], [-1.1, 0.9]], [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]];
  const shape = (path, number, x, y, radius) => {
    const corners = SHAPES[number % SHAPES.length];
    if (!corners) { path.moveTo(x + radius, y); path.arc(x, y, radius, 0, 2 * Math.PI); return; }
    corners.forEach(([a, b], i) => path[i ? "lineTo" : "moveTo"](x + a * radius, y + b * radius));
    path.closePath();
  };
  // A curve has a mark at every value, or at some thirty of many.
  const shaped = (number, radius, every) => (u, series) => {
    const path = new Path2D(), { x: across, y: up } = u.scales;
    const places = u.data[0].map((_, i) => i).filter((i) => u.data[series][i] != null), by = every ? 1 : Math.ceil(places.length / 30);
    places.filter((_, n) => n % by === 0).forEach((i) => {
      const x = u.data[0][i], y = u.data[series][i];
      if (x < across.min || x > across.max || y < up.min || y > up.max) return;
      shape(path, number, u.valToPos(x, "x", true), u.valToPos(y, "y", true), radius * devicePixelRatio);
    });
    return { stroke: path, fill: path, clip: null, flags: 0 };
  };
  const remember = (id, u) => {
    const { min, max } = u.scales.x, x = u.data[0];
    if (min > x[0] || max < x[x.length - 1]) state.zoom[id] = { min, max }; else delete state.zoom[id];
  };

  const redraw = (id, spec) => {
    const { plot } = charts.get(id), host = plot.root.parentNode;
    plot.destroy();
    host.remove();
    draw(id, spec);
  };
  const under = (id, spec) => {
    const box = make("details", {}, make("summary", { textContent: "Values as a table" }));
    const csv = make("button", { type: "button", textContent: "CSV" });
    csv.setAttribute("aria-label", `Download ${id} as CSV`);
    const rows = () => [spec.csvHead, ...spec.csvRows()];
    csv.addEventListener("click", () => download(`${id}.csv`, rows()));
    box.addEventListener("toggle", () => {
      if (!box.open || box.children.length > 1) return;
      const [head, ...body] = rows();
      const scroll = make("div", { className: "scroll tall", tabIndex: 0 }, table(head, body));
      scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", "Values");
      box.append(scroll);
    });
    const tools = make("div", { className: "under" }, box, csv);
    if (spec.whole) {
      const name = () => (spec.scale === "log" ? "Linear axis" : "Log axis");
      const turn = make("button", { type: "button", textContent: name() });
      turn.addEventListener("click", () => {
        spec.scale = spec.scale === "log" ? spec.linear : "log";
        turn.textContent = name();
        redraw(id, spec);
      });
      csv.before(turn);
    }
    return tools;
  };

  const keyboard = (host, u) => {
    const x = u.data[0];
    let idx = -1;
    const move = (to) => {
      idx = Math.max(0, Math.min(u.data[0].length - 1, to));
      const y = u.data.slice(1).map((c) => c[idx]).find((v) => v != null);
      u.setCursor({ left: u.valToPos(u.data[0][idx], "x"), top: y == null ? 20 : u.valToPos(y, "y") });
    };
    const visible = (i) => u.data[0][i] >= u.scales.x.min && u.data[0][i] <= u.scales.x.max;
    const step = (by) => { let to = idx < 0 ? (by > 0 ? 0 : u.data[0].length - 1) : idx + by; while (u.data[0][to] !== undefined && !visible(to)) to += by; if (u.data[0][to] !== undefined) move(to); };
    const zoom = (factor) => {
      const { min, max } = u.scales.x, all = u.data[0], middle = idx < 0 ? (min + max) / 2 : u.data[0][idx];
      const low = Math.max(all[0], middle - (middle - min) * factor), high = Math.min(all[all.length - 1], middle + (max - middle) * factor);
      if (high > low) u.setScale("x", { min: low, max: high });
    };
    const reset = () => u.setScale("x", { min: u.data[0][0], max: u.data[0][u.data[0].length - 1] });
    const actions = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => move(0), End: () => move(x.length - 1),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": reset, Escape: () => u.setCursor({ left: -10, top: -10 }),
    };
    host.addEventListener("keydown", (event) => {
      const action = !event.ctrlKey && !event.metaKey && !event.altKey && actions[event.key];
      if (action) { event.preventDefault(); action(); }
    });
    const leave = () => { tip.hidden = true; idx = -1; };
    host.addEventListener("blur", () => { u.setCursor({ left: -10, top: -10 }); leave(); });
    host.addEventListener("mouseleave", () => { if (document.activeElement !== host) leave(); });
  };

  // ---- curves over training -----------------------------------------------------------------
  const title = (s) => (many ? `${data.runs[s.run]}, ${s.split}` : s.split);
  const curve = (chart) => {
    if (!chart.series.length) return;
    const { x, spread: put } = join(chart.series);
    const spec = { x, columns: [], keys: [], colours: [], marks: [], quiet: [], bands: [], scale: chart.scale, linear: chart.scale === "log" ? "zero" : chart.scale, xLabel: "Epoch", whole: true };
    const owner = [];
    for (const s of chart.series) {
      const keys = many ? [`run:${s.run}`, `split:${s.split}`] : [`split:${s.split}`];
      const add = (ys, quiet) => { spec.columns.push(put(s, ys)); spec.keys.push(quiet ? [...keys, "band"] : keys); spec.colours.push(nameOf(s));
        spec.marks.push(MARK[s.split]); spec.quiet.push(quiet); owner.push(s); };
      add(s.y, false);
      if (s.low) { add(s.high, true); add(s.low, true); spec.bands.push([spec.columns.length - 1, spec.columns.length]); }
    }
    spec.text = (i) => title(owner[i]);
    spec.head = (v) => `Epoch ${show(v)}`;
    spec.band = (i, idx) => {
      const s = owner[i], at = s.low ? s.x.indexOf(x[idx]) : -1;
      return at >= 0 && s.low[at] != null ? [s.low[at], s.high[at]] : [null, null];
    };
    spec.aria = `${chart.series.length} curves over ${x.length} epochs`;
    spec.csvHead = ["run", "split", "epoch", chart.id, ...(spec.bands.length ? ["low", "high"] : [])];
    spec.csvRows = () => chart.series.flatMap((s) => s.x.map((e, i) =>
      [data.runs[s.run], s.split, e, s.y[i], ...(spec.bands.length ? [s.low ? s.low[i] : null, s.high ? s.high[i] : null] : [])]));
    draw(chart.id, spec);
  };

  const spot = (name, number, dash = "") => {
    const corners = SHAPES[number % SHAPES.length], span = make("span");
    const form = corners ? `<polygon points="${corners.map(([a, b]) => `${13 + 5 * a},${7 + 5 * b}`).join(" ")}"` : '<circle cx="13" cy="7" r="5"';
    span.innerHTML = `<svg width="26" height="14" aria-hidden="true">${dash}${form} fill="var(--${name})"/></svg>`;
    return span.firstChild;
  };
  const line = (name, number) => spot(name, number, `<line x1="1" y1="7" x2="25" y2="7" stroke="var(--${name})" stroke-width="2.5"/>`);
  const toggle = (box, key, text, mark) => {
    const b = make("button", { type: "button" }, ...(mark ? [mark] : []), text);
    b.dataset.key = key;
    b.setAttribute("aria-pressed", String(!hidden.has(key)));
    b.addEventListener("click", () => {
      if (hidden.has(key)) hidden.delete(key); else hidden.add(key);
      state.hidden = [...hidden];
      b.setAttribute("aria-pressed", String(!hidden.has(key)));
      for (const { plot, spec } of charts.values())
        spec.keys.forEach((keys, i) => {
          const visible = keys.every((k) => !hidden.has(k));
          if (keys.includes(key) && plot.series[i + 1].show !== visible) plot.setSeries(i + 1, { show: visible });
        });
    });
    box.append(b);
  };
  const legend = () => {
    const box = document.getElementById("legend");
    const button = (...what) => toggle(box, ...what);
    const splits = [...new Set(data.charts.flatMap((c) => c.series.map((s) => s.split)))];
    for (const split of splits) button(`split:${split}`, split, line(many ? "ink" : split, MARK[split]));
    if (data.charts.some((c) => c.series.some((s) => s.low))) button("band", "95 % intervals");
    if (many) data.runs.forEach((run, i) => button(`run:${i}`, run, line(`c${i % 8}`, 0)));
  };

  // ---- choices ------------------------------------------------------------------------------
  const choose = (box, id, label, options, change) => {
    const select = make("select", { id }, ...options.map(([value, text]) => make("option", { value, textContent: text })));
    if (options.some(([value]) => value === state.chosen[id])) select.value = state.chosen[id];
    select.addEventListener("change", () => { state.chosen[id] = select.value; change(); });
    box.append(make("label", {}, label, select));
    return select;
  };
  const parts = (list) => list.map((s, i) => [String(i), title(s)]);

  // ---- charts with an epoch slider ------------------------------------------------------------
  // A chart of an item of a list at one of its epochs; ``columns(item, epoch)`` returns its values.
  const stepped = (id, list, columns, spec) => {
    const box = document.querySelector(`[data-controls="${id}"]`);
    const select = choose(box, `${id}-of`, "Of", parts(list), () => { limits(); update(); });
    const range = make("input", { type: "range", min: 0, id: `${id}-epoch` }), output = make("output");
    box.append(make("label", {}, "Epoch", range, output));
    const of = () => list[+select.value];
    const limits = () => { range.max = of().epochs.length - 1; range.value = range.max; };
    const update = () => {
      const epoch = of().epochs[+range.value], now = columns(of(), +range.value), chart = charts.get(id);
      output.textContent = `${epoch}`;
      range.setAttribute("aria-valuetext", `epoch ${epoch}`);
      chart.spec.x = now.x;
      chart.plot.setData([now.x, ...now.columns]);
      const details = document.querySelector(`#chart-${id} .under details`);
      details.open = false; while (details.children.length > 1) details.lastChild.remove();
    };
    limits();
    const each = ({ x, columns: all }) => x.map((v, i) => [v, ...all.map((c) => c[i])]);
    const rows = () => (spec.rows ? spec.rows(of(), +range.value) : each(columns(of(), +range.value)));
    draw(id, { ...columns(of(), +range.value), quiet: spec.keys.map(() => false), bands: [], csvRows: rows, of, ...spec });
    if (state.chosen[id] != null && +state.chosen[id] <= +range.max) range.value = state.chosen[id];
    range.addEventListener("input", () => {
      if (+range.value === +range.max) delete state.chosen[id]; else state.chosen[id] = range.value;
      update();
    });
    update();
    return of;
  };

  const spectrum = () => {
    if (!data.spectra.length) return;
    const NAMES = ["total", "between classes"];
    const columns = (s, e) => {
      const floor = 1e-10 * Math.max(...s.total[e].map((v) => v || 0));
      const cut = (ys) => ys.map((y) => (y > floor ? y : null));
      const both = [{ x: s.index.total, y: cut(s.total[e]) }, { x: s.index.between, y: cut(s.between[e]) }];
      const { x, spread: put } = join(both);
      return { x, columns: both.map((p) => put(p, p.y)) };
    };
    stepped("spectrum", data.spectra, columns, { keys: [[], []], colours: ["c0", "c1"], marks: [0, 1], scale: "log", logX: true, xLabel: "Index",
      text: (i) => NAMES[i], head: (v) => `Eigenvalue ${v}`, aria: "eigenvalues by index, both axes logarithmic", csvHead: ["index", ...NAMES] });
    const thinned = data.spectra.find((s) => s.index.total.length < s.size.total);
    document.getElementById("chart-spectrum").append(make("p", { className: "quiet", textContent:
      (thinned ? `${thinned.index.total.length} of ${thinned.size.total} eigenvalues, spaced logarithmically. ` : "") + "Those below 1e-10 of the largest are not drawn." }));
    document.querySelector("#chart-spectrum .direction").append(line("c0", 0), " total ", line("c1", 1), " between classes");
  };

  const picture = () => {
    if (!data.pictures.length) return;
    const labels = [...new Set(data.pictures.flatMap((p) => p.label))].sort((a, b) => a - b);
    const named = (p, k) => p.names[k] ?? `class ${k}`;
    const columns = (p, e) => {
      const order = p.label.map((_, i) => i).sort((i, j) => p.points[e][i][0] - p.points[e][j][0]);
      return { x: order.map((i) => p.points[e][i][0]), columns: labels.map((k) => order.map((i) => (p.label[i] === k ? p.points[e][i][1] : null))) };
    };
    const reach = Math.max(1.5, ...data.pictures.flatMap((p) => p.points.flat(2)).map((v) => Math.abs(v) * 1.05 || 0));
    const over = (u) => {
      const p = u.spec ? of() : data.pictures[0], { ctx } = u;
      ctx.save();
      ctx.font = `600 ${13 * devicePixelRatio}px system-ui, sans-serif`; ctx.textAlign = "center"; ctx.textBaseline = "middle";
      p.corners.forEach(([x, y], k) => {
        if (!p.names.length) return;
        ctx.fillStyle = colour("ink");
        ctx.fillText(p.names[k].slice(0, 12), u.valToPos(1.38 * x, "x", true), u.valToPos(1.38 * y, "y", true));
        ctx.strokeStyle = colour("quiet"); ctx.lineWidth = devicePixelRatio; ctx.beginPath();
        ctx.arc(u.valToPos(x, "x", true), u.valToPos(y, "y", true), 7 * devicePixelRatio, 0, 2 * Math.PI); ctx.stroke();
      });
      ctx.restore();
    };
    let of = () => data.pictures[0];
    of = stepped("picture", data.pictures, columns, { keys: labels.map(() => []), colours: labels.map((k) => "c" + (k % 8)), marks: labels.map((k) => Math.floor(k / 8)),
      scatter: true, square: () => [-reach, reach], over, scale: "linear", text: (i) => named(of(), labels[i]), head: (v) => `x ${show(v)}, y:`,
      aria: `images as points, ${labels.length} classes`, csvHead: ["class", "x", "y"], rows: (p, e) => p.label.map((k, i) => [named(p, k), ...p.points[e][i]]) });
  };

  // ---- classes ------------------------------------------------------------------------------
  const classes = () => {
    if (!data.classes.length) return;
    const box = document.querySelector('[data-controls="classes"]');
    const node = document.getElementById("class-table"), note = document.getElementById("classes-note");
    const by = (x, y) => (typeof x === "number" ? x - y : String(x).localeCompare(y, undefined, { numeric: true }));
    let sort = state.chosen.sort || { column: 3, down: true };
    const select = choose(box, "classes-of", "Of", parts(data.classes), () => fill());
    const csv = make("button", { type: "button", textContent: "Download CSV" });
    csv.addEventListener("click", () => download("classes.csv", [data.columns.map((c) => c[0]), ...data.classes[+select.value].rows]));
    box.append(csv);
    const fill = () => {
      const of = data.classes[+select.value];
      const sign = sort.down ? -1 : 1;
      const rows = [...of.rows].sort((a, b) => {
        const [x, y] = [a[sort.column], b[sort.column]];
        return x == null ? 1 : y == null ? -1 : sign * by(x, y) || by(a[0], b[0]);
      });
      node.replaceChildren(...table(data.columns.map((c) => c[1]), rows).childNodes);
      node.querySelectorAll("td").forEach((td) => td.classList.add("n"));
      node.querySelectorAll("thead th").forEach((th, i) => {
        const active = i === sort.column;
        th.className = "n";
        th.setAttribute("aria-sort", active ? (sort.down ? "descending" : "ascending") : "none");
        const b = make("button", { type: "button" }, th.textContent + (active ? (sort.down ? " ▼" : " ▲") : ""));
        b.addEventListener("click", () => {
          sort = { column: i, down: active ? !sort.down : i !== 0 };
          state.chosen.sort = sort;
          fill();
          node.querySelectorAll("thead button")[i].focus();
        });
        th.replaceChildren(b);
      });
      note.textContent = `Epoch ${of.epoch}` + (of.rows.length < of.of ? `; the ${of.rows.length} loosest of ${of.of} classes.` : "");
    };
    fill();
  };

  // ---- correlation --------------------------------------------------------------------------
  const groups = [...new Set(data.scatters.flatMap((c) => c.points.map((q) => q.group)))].sort();
  const scatterLegend = () => {
    if (groups.length < 2) return;
    const box = make("div", { className: "legend", id: "groups" });
    box.setAttribute("role", "group"); box.setAttribute("aria-label", "Groups shown");
    groups.forEach((group, i) => toggle(box, `group:${group}`, group, spot(`c${i % 8}`, i)));
    document.querySelector("#correlation .grid").before(box);
  };
  const scatter = (chart) => {
    if (!chart.strengths.length) return;
    const p = chart.points, here = groups.length > 1;
    const columns = groups.map((group) => p.map((q) => (q.group === group ? q.y : null)));
    draw(chart.id, { x: p.map((q) => q.x), columns, keys: groups.map((group) => (here ? [`group:${group}`] : [])), colours: groups.map((_, i) => "c" + (i % 8)),
      marks: groups.map((_, i) => i), quiet: groups.map(() => false), bands: [], scatter: true,
      scale: "linear", xLabel: chart.title, yLabel: "Transfer, MLOG", text: (i, idx) => data.runs[p[idx].run] + (here ? `, ${p[idx].group}` : ""), head: (v) => `${chart.title} ${show(v)}`,
      aria: `${p.length} runs` + (here ? ` of ${groups.length} groups` : ""), csvHead: ["run", "group", chart.id.replace("scatter-", ""), "transfer"],
      csvRows: () => p.map((q) => [data.runs[q.run], q.group, q.x, q.y]) });
  };

  // ---- begin --------------------------------------------------------------------------------
  const lazy = (node, act) => {
    const details = node.closest("main > section > details");
    if (!details || details.open) act();
    else details.addEventListener("toggle", act, { once: true });
  };
  document.querySelectorAll("main > section > details").forEach((d, i) => { if (state.open[i] != null) d.open = state.open[i]; });
  const button = document.getElementById("theme");
  const label = () => { button.textContent = `Theme: ${state.theme}`; };
  button.addEventListener("click", () => {
    state.theme = { auto: "light", light: "dark", dark: "auto" }[state.theme];
    theme(state.theme); label();
  });
  theme(state.theme); label();
  legend();
  for (const chart of data.charts) lazy(document.getElementById("chart-" + chart.id), () => curve(chart));
  picture();
  spectrum();
  classes();
  scatterLegend();
  data.scatters.forEach(scatter);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(state.theme));
  addEventListener("beforeprint", () => theme("light"));
  addEventListener("afterprint", () => theme(state.theme));
  addEventListener("pagehide", save);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  history.scrollRestoration = "manual";  // The browser's own comes before the charts have their height.
  if (!location.hash || restored.scroll) requestAnimationFrame(() => scrollTo({ top: state.scroll, behavior: "instant" }));
  if (data.refresh) setTimeout(() => { save(); location.reload(); }, data.refresh * 1000);
})();
