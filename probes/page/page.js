"use strict";
// Draws what the JSON beside it holds. Nothing is fetched; what a reader has chosen (theme, hidden
// curves, zoom, place) is kept in the session, so that a page that renews itself stays as it was.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement, tip = document.getElementById("tip");
  const many = data.runs.length > 1;

  // ---- what is remembered -------------------------------------------------------------------
  const KEY = "vci_jax:" + location.pathname;
  const kept = (() => {
    try { return JSON.parse(sessionStorage.getItem(KEY)) || {}; } catch { return {}; }
  })();
  const state = Object.assign({ theme: "auto", hidden: null, zoom: {}, chosen: {}, scroll: 0, open: [] }, kept);
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
  const DASH = { train: [], test: [6, 4] };
  const theme = (wanted) => {
    colours = {};
    if (wanted === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = wanted;
    for (const chart of charts.values()) chart.plot.redraw(false, true);
  };

  // ---- small things -------------------------------------------------------------------------
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
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
  const table = (head, rows) => make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col", textContent: h })))),
    make("tbody", {}, ...rows.map((row) =>
      make("tr", {}, ...row.map((v) => make("td", { textContent: typeof v === "string" ? v : show(v) }))))));

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
    const lines = spec.keys.flatMap((key, i) => {
      const y = u.data[i + 1][idx];
      if (y == null || !u.series[i + 1].show || spec.quiet[i]) return [];
      const mark = make("i"); mark.style.background = colour(spec.colours[i]);
      const band = spec.band && spec.band(i, idx);
      return [make("div", {}, make("span", {}, mark, spec.text(i, idx)), make("span", { textContent: show(y) + (band || "") }))];
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
    const width = () => Math.max(200, Math.floor(host.clientWidth || figure.clientWidth));
    const height = () => (innerWidth < 480 ? 210 : 250);
    const plot = new uPlot({
      width: width(), height: height(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false }, points: { size: 9 } },
      scales: {
        x: { time: false, ...(spec.scatter ? { range: padded(spec.x) } : {}), ...(spec.logX ? { distr: 3, range: decades } : {}) },
        y: log ? { distr: 3, range: decades } : { range: (u, min, max) => spec.scale === "zero" ? [0, (max || 1) * 1.08] : spread(min, max) },
      },
      axes: [axis({ label: spec.xLabel, labelSize: 18, size: 34, values: plain, ...(spec.whole ? { incrs: WHOLE } : {}) }), axis({ size: 58, values: plain, label: spec.yLabel, labelSize: spec.yLabel ? 18 : 0 })],
      series: [{}, ...spec.keys.map((key, i) => ({
        label: spec.text(i, 0), show: key.every((k) => !hidden.has(k)),
        stroke: spec.quiet[i] ? "transparent" : () => colour(spec.colours[i]),
        width: spec.quiet[i] ? 0 : 1.8, dash: spec.dash[i], spanGaps: true,
        ...(spec.scatter ? { paths: () => null } : {}),
        points: spec.quiet[i] ? { show: false } : { show: spec.scatter || spec.x.length < 45, size: spec.scatter ? 11 : 5, fill: () => colour(spec.colours[i]), ...(spec.scatter ? { paths: shaped(i) } : {}) },
      }))],
      bands: spec.bands.map(([high, low]) => ({ series: [high, low], fill: () => colour(spec.colours[high - 1]) + "2e" })),
      hooks: {
        setCursor: [(u) => { if (u.spec) place(u, u.cursor.idx); }],
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
  const shaped = (number) => (u, series) => {
    const path = new Path2D(), { x: across, y: up } = u.scales;
    u.data[0].forEach((x, i) => {
      const y = u.data[series][i];
      if (y == null || x < across.min || x > across.max || y < up.min || y > up.max) return;
      shape(path, number, u.valToPos(x, "x", true), u.valToPos(y, "y", true), 5 * devicePixelRatio);
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
    const spec = { x, columns: [], keys: [], colours: [], dash: [], quiet: [], bands: [], scale: chart.scale, linear: chart.scale === "log" ? "linear" : chart.scale, xLabel: "Epoch", whole: true };
    const owner = [];
    for (const s of chart.series) {
      const keys = many ? [`run:${s.run}`, `split:${s.split}`] : [`split:${s.split}`];
      const add = (ys, quiet) => { spec.columns.push(put(s, ys)); spec.keys.push(quiet ? [...keys, "band"] : keys); spec.colours.push(nameOf(s));
        spec.dash.push(DASH[s.split]); spec.quiet.push(quiet); owner.push(s); };
      add(s.y, false);
      if (s.low) { add(s.high, true); add(s.low, true); spec.bands.push([spec.columns.length - 1, spec.columns.length]); }
    }
    spec.text = (i) => title(owner[i]);
    spec.head = (v) => `Epoch ${show(v)}`;
    spec.band = (i, idx) => {
      const s = owner[i], at = s.low ? s.x.indexOf(x[idx]) : -1;
      return at >= 0 && s.low[at] != null ? ` (${show(s.low[at])} to ${show(s.high[at])})` : "";
    };
    spec.aria = `${chart.series.length} curves over ${x.length} epochs`;
    spec.csvHead = ["run", "split", "epoch", chart.id, ...(spec.bands.length ? ["low", "high"] : [])];
    spec.csvRows = () => chart.series.flatMap((s) => s.x.map((e, i) =>
      [data.runs[s.run], s.split, e, s.y[i], ...(spec.bands.length ? [s.low ? s.low[i] : null, s.high ? s.high[i] : null] : [])]));
    draw(chart.id, spec);
  };

  const line = (name, dash) => {
    const span = make("span");
    span.innerHTML = `<svg width="26" height="10" aria-hidden="true"><line x1="1" y1="5" x2="25" y2="5" stroke="var(--${name})" stroke-width="3" stroke-dasharray="${dash}"/></svg>`;
    return span.firstChild;
  };
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
    for (const split of splits) button(`split:${split}`, split, line(many ? "ink" : split, split === "test" ? "6 4" : ""));
    if (data.charts.some((c) => c.series.some((s) => s.low))) button("band", "95 % intervals");
    if (many) data.runs.forEach((run, i) => button(`run:${i}`, run, line(`c${i % 8}`, "")));
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

  // ---- spectra ------------------------------------------------------------------------------
  const spectrum = () => {
    if (!data.spectra.length) return;
    const box = document.querySelector('[data-controls="spectrum"]');
    const select = choose(box, "spectrum-of", "Of", parts(data.spectra), () => { limits(); update(); });
    const range = make("input", { type: "range", min: 0, id: "spectrum-epoch" }), said = make("output");
    box.append(make("label", {}, "Epoch", range, said));
    const of = () => data.spectra[+select.value];
    const limits = () => { range.max = of().epochs.length - 1; range.value = range.max; };
    const now = () => {
      const s = of(), e = +range.value;
      const floor = 1e-10 * Math.max(...s.total[e].map((v) => v || 0));
      const cut = (ys) => ys.map((y) => (y > floor ? y : null));
      const both = [{ x: s.index.between, y: cut(s.between[e]) }, { x: s.index.total, y: cut(s.total[e]) }];
      const { x, spread: put } = join(both);
      return { s, e, x, columns: both.map((p) => put(p, p.y)) };
    };
    const rows = () => { const { x, columns } = now(); return x.map((v, i) => [v, columns[0][i], columns[1][i]]); };
    const NAMES = ["between classes", "total"];
    const update = () => {
      const { s, e, x, columns } = now();
      said.textContent = `${s.epochs[e]}`;
      range.setAttribute("aria-valuetext", `epoch ${s.epochs[e]}`);
      const { plot, spec } = charts.get("spectrum");
      plot.setData([x, ...columns]);
      spec.x = x;
      const details = document.querySelector("#chart-spectrum .under details");
      details.open = false; while (details.children.length > 1) details.lastChild.remove();
      const kept = s.index.total.length;
      note.textContent = (kept < s.size.total ? `${kept} of ${s.size.total} eigenvalues, spaced logarithmically. ` : "") +
        "Those below 1e-10 of the largest are not drawn.";
    };
    const note = make("p", { className: "quiet" });
    limits();
    const first = now();
    draw("spectrum", { x: first.x, columns: first.columns, keys: [[], []], colours: ["c1", "c0"], dash: [[6, 4], []], quiet: [false, false], bands: [],
      scale: "log", logX: true, xLabel: "Index", text: (i) => NAMES[i], head: (v) => `Eigenvalue ${v}`, aria: "eigenvalues by index, both axes logarithmic",
      csvHead: ["index", ...NAMES], csvRows: rows });
    document.getElementById("chart-spectrum").append(note);
    document.querySelector("#chart-spectrum .direction").append(line("c0", ""), " total ", line("c1", "6 4"), " between classes");
    if (state.chosen.epoch != null && +state.chosen.epoch <= +range.max) range.value = state.chosen.epoch;
    range.addEventListener("input", () => {
      if (+range.value === +range.max) delete state.chosen.epoch; else state.chosen.epoch = range.value;
      update();
    });
    update();
  };

  // ---- classes ------------------------------------------------------------------------------
  const classes = () => {
    if (!data.classes.length) return;
    const box = document.querySelector('[data-controls="classes"]');
    const node = document.getElementById("class-table"), said = document.getElementById("classes-said");
    let sort = state.chosen.sort || { column: 2, down: true };
    const select = choose(box, "classes-of", "Of", parts(data.classes), () => fill());
    const csv = make("button", { type: "button", textContent: "Download CSV" });
    csv.addEventListener("click", () => download("classes.csv", [data.columns.map((c) => c[0]), ...data.classes[+select.value].rows]));
    box.append(csv);
    const fill = () => {
      const of = data.classes[+select.value];
      const sign = sort.down ? -1 : 1;
      const rows = [...of.rows].sort((a, b) => {
        const [x, y] = [a[sort.column], b[sort.column]];
        return x == null ? 1 : y == null ? -1 : sign * (x - y) || a[0] - b[0];
      });
      node.replaceChildren(...table(data.columns.map((c) => c[1]), rows.map((row) => row.map((v, i) => (i === 6 && v === -1 ? null : v)))).childNodes);
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
      said.textContent = `Epoch ${of.epoch}` + (of.rows.length < of.of ? `; the ${of.rows.length} loosest of ${of.of} classes.` : "") ;
    };
    fill();
  };

  // ---- correlation --------------------------------------------------------------------------
  const groups = [...new Set(data.scatters.flatMap((c) => c.points.map((q) => q.group)))].sort();
  const spot = (number) => {
    const corners = SHAPES[number % SHAPES.length], span = make("span");
    const form = corners ? `<polygon points="${corners.map(([a, b]) => `${7 + 5 * a},${7 + 5 * b}`).join(" ")}"` : '<circle cx="7" cy="7" r="5"';
    span.innerHTML = `<svg width="14" height="14" aria-hidden="true">${form} fill="var(--c${number % 8})"/></svg>`;
    return span.firstChild;
  };
  const scatterLegend = () => {
    if (groups.length < 2) return;
    const box = make("div", { className: "legend", id: "groups" });
    box.setAttribute("role", "group"); box.setAttribute("aria-label", "Groups shown");
    groups.forEach((group, i) => toggle(box, `group:${group}`, group, spot(i)));
    document.querySelector("#correlation .grid").before(box);
  };
  const scatter = (chart) => {
    if (!chart.strengths.length) return;
    const p = chart.points, here = groups.length > 1;
    const columns = groups.map((group) => p.map((q) => (q.group === group ? q.y : null)));
    draw(chart.id, { x: p.map((q) => q.x), columns, keys: groups.map((group) => (here ? [`group:${group}`] : [])), colours: groups.map((_, i) => "c" + (i % 8)),
      dash: groups.map(() => []), quiet: groups.map(() => false), bands: [], scatter: true,
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
  spectrum();
  classes();
  scatterLegend();
  data.scatters.forEach(scatter);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(state.theme));
  addEventListener("beforeprint", () => theme("light"));
  addEventListener("afterprint", () => theme(state.theme));
  addEventListener("pagehide", save);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  if (!location.hash || kept.scroll) requestAnimationFrame(() => scrollTo({ top: state.scroll, behavior: "instant" }));
  if (data.refresh) setTimeout(() => { save(); location.reload(); }, data.refresh * 1000);
})();
