"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byNumber = new Map(data.records.map((record) => [record.number, record]));
  const byId = (id) => document.getElementById(id);

  // --- colour scheme -------------------------------------------------------------------------------------------
  const root = document.documentElement;
  const scheme = byId("scheme");
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.classList.contains("dark") || (wantsDark.matches && !root.classList.contains("light"));
  const showScheme = () => { scheme.textContent = `Switch to ${isDark() ? "light" : "dark"}`; };
  scheme.addEventListener("click", () => {
    const dark = !isDark();
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", !dark);
    showScheme();
  });
  wantsDark.addEventListener("change", showScheme);
  showScheme();

  // --- the table: sort and filter ------------------------------------------------------------------------------
  const body = byId("board").tBodies[0];
  const heads = [...byId("board").tHead.rows[0].cells];
  const rows = [...body.rows];
  const haystack = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const compareKeys = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const sortBy = (column, direction) => {
    const key = (row) => row.cells[column].dataset.sort;
    const sign = direction === "ascending" ? 1 : -1;
    const blankLast = (a, b) => (key(a) === "" || key(b) === "" ? 1 : sign); // unknown stays at the end either way
    rows.sort((a, b) => blankLast(a, b) * compareKeys(key(a), key(b)));
    body.append(...rows);
    heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
  };
  heads.forEach((head, column) =>
    head.firstElementChild.addEventListener("click", () =>
      sortBy(column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending")));

  const filter = byId("filter");
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => haystack.get(row).includes(word))
        && (!byId("only-archived").checked || "archived" in row.dataset)
        && (!byId("only-odd").checked || "odd" in row.dataset);
      row.hidden = !fits;
      shown += fits;
    }
    byId("count").textContent = `${shown} of ${rows.length} records`;
  };
  byId("filters").addEventListener("input", applyFilter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    filter.value = "";
    applyFilter();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    filter.focus();
  });

  // --- loss curves ---------------------------------------------------------------------------------------------
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const plain = (value) => {
    for (const [size, word] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= size) return `${Number((value / size).toPrecision(3))}${word}`;
    }
    return String(Number(value.toPrecision(3)));
  };
  const AXES = { step: "steps", seconds: "seconds", tokens: "tokens" };
  const value = {
    step: (point) => point[0],
    seconds: (point, one) => (point[2] === null ? NaN : point[2] * one.share), // fewer GPUs: projected to eight
    tokens: (point, one) => (one.tokens === null ? NaN : point[0] * one.tokens),
  };

  const seriesOf = (number) => {
    const { share, others, tokens_per_step: tokens } = byNumber.get(number);
    const published = data.curves[number];
    const own = (data.replays[number] || []).map((run) => ({ ...run, name: `${number} ${run.fidelity}` }));
    return [...(published ? [{ name: number, points: published, tokens, share, others }] : []), ...own];
  };
  const niceTicks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) ticks.push(Number(tick.toPrecision(12)));
    return ticks;
  };

  const drawOne = (series, axis) => {
    const lines = series
      .map((one, index) => ({
        name: axis === "seconds" && one.share !== 1 ? `${one.name} × ${8 * one.share}/8` : one.name,
        index: index % 4,
        xy: one.points.map((point) => [value[axis](point, one), point[1]]).filter(([x, y]) => x >= 0 && Number.isFinite(y)),
      }))
      .filter((line) => line.xy.length > 1);
    if (!lines.length) return null;
    const right = 14 + 7.5 * Math.max(...lines.map((line) => line.name.length));
    const [width, height, left, top, bottom] = [480, 270, 40, 12, 40];
    const ends = lines.map((line) => line.xy[line.xy.length - 1]);
    const toy = series.every((one) => one.fidelity === "smoke");
    const lowest = Math.min(...lines.flatMap((line) => line.xy.map(([, y]) => y)));
    const low = (toy ? lowest : Math.min(data.target, lowest)) - 0.05;
    const first = Math.max(...lines.map((line) => line.xy[0][1]));
    const high = toy ? first : Math.min(first, Math.max(...ends.map(([, y]) => y)) + 1.3);
    const beyond = axis === "seconds" ? series.flatMap((one) => (one.others || []).map(([seconds]) => seconds)) : [];
    const most = Math.max(...ends.map(([x]) => x), ...beyond);
    const x = (v) => left + (v / most) * (width - left - right);
    const y = (v) => top + ((high - Math.min(v, high)) / (high - low)) * (height - top - bottom);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.append(make("title", {}, `Validation loss against ${AXES[axis]}: ${lines.map((line) => line.name).join(", ")}`));
    for (const tick of niceTicks(low, high, 5)) {
      svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      svg.append(make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(1)));
    }
    for (const tick of niceTicks(0, most, 4)) {
      svg.append(make("text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, plain(tick)));
    }
    svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, AXES[axis]));
    if (low < data.target) svg.append(make("line", { class: "goal", x1: left, x2: width - right, y1: y(data.target), y2: y(data.target) }));
    const others = axis === "seconds" ? series.flatMap((one) => one.others || []) : [];
    lines.forEach((line) => {
      line.drawn = line.xy.filter(([, loss]) => loss <= high).map(([a, b]) => [x(a), y(b)]);
      const points = line.drawn.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      svg.append(make("polyline", { class: `line s${line.index}`, points }));
    });
    const frame = [left, top - 4, width, height - bottom];
    const dots = others.map(([seconds]) => [x(seconds) - 7, y(data.target) - 7, x(seconds) + 7, y(data.target) + 7]);
    for (const { line, at, from } of placeNames(lines, ends.map(([a, b]) => [x(a), y(b)]), frame, dots)) {
      if (from) svg.append(make("line", { class: "leader", x1: from[0], y1: from[1], x2: at[0] - 2, y2: at[1] - 4 }));
      svg.append(make("text", { class: "name", x: at[0], y: at[1] }, line.name));
    }
    for (const [seconds, source] of others) {
      const circle = make("circle", { class: "others", cx: x(seconds), cy: y(data.target), r: 5 });
      circle.append(make("title", {}, `${plain(seconds)} s, as timed by ${source}`));
      svg.append(circle);
    }
    return svg;
  };

  // A name stands at the end of its line, or as near to it as it covers no other name and, if possible, no line.
  const placeNames = (lines, ends, [x0, y0, x1, y1], taken) => {
    const boxes = [...taken];
    const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    const points = lines.flatMap((line) => line.drawn.slice(1).flatMap(([bx, by], index) => {
      const [ax, ay] = line.drawn[index];
      const count = Math.ceil(Math.hypot(bx - ax, by - ay) / 4) || 1;
      return Array.from({ length: count }, (_, k) => [ax + (bx - ax) * k / count, ay + (by - ay) * k / count]);
    }));
    const order = lines.map((line, index) => ({ line, end: ends[index] })).sort((a, b) => a.end[1] - b.end[1]);
    return order.map(({ line, end }) => {
      const wide = 7.5 * line.name.length;
      let best = null;
      for (let row = -16; row <= 16; row += 1) {
        for (const across of [end[0] + 5, end[0] - wide / 2, end[0] - wide - 5]) {
          const level = end[1] + 4 + 7 * row;
          const box = [across - 3, level - 11, across + wide, level + 3];
          if (box[0] < x0 || box[1] < y0 || box[2] > x1 + 1 || box[3] > y1 || boxes.some((other) => overlap(box, other))) continue;
          const hit = points.filter(([a, b]) => a > box[0] && a < box[2] && b > box[1] && b < box[3]).length;
          const cost = 7 * Math.abs(row) + 4 * hit + (across > end[0] ? 0 : 12);
          if (best === null || cost < best.cost) best = { cost, box, at: [across, level], far: Math.abs(row) > 2 };
        }
      }
      if (best === null) return null;
      boxes.push(best.box);
      return { line, at: best.at, from: best.far ? end : null };
    }).filter(Boolean);
  };

  // Losses on one text and one schedule belong together; those on another, and those of toys, have scales of their own.
  const KINDS = [
    ["", ({ fidelity }) => !fidelity || ["official", "same-batch"].includes(fidelity)],
    ["Own replays on another text or schedule: their losses are no measure of the record’s",
      ({ fidelity }) => fidelity && !["official", "same-batch", "smoke"].includes(fidelity)],
    ["Smoke replays: a toy’s loss", ({ fidelity }) => fidelity === "smoke"],
  ];
  const hintOf = (text, name = "p") => {
    const element = document.createElement(name);
    element.className = "hint";
    element.textContent = text;
    return element;
  };
  const drawCurves = (place, numbers, axes, folded = false) => {
    const series = numbers.filter((number) => byNumber.has(number)).flatMap(seriesOf);
    place.replaceChildren();
    for (const [words, belongs] of KINDS) {
      const group = series.filter(belongs);
      const drawn = (words.startsWith("Smoke") ? ["step"] : axes).map((axis) => drawOne(group, axis)).filter(Boolean);
      if (!drawn.length) continue;
      if (!words) {
        place.append(...drawn);
        if (group.some((one) => (one.others || []).length) && axes.includes("seconds")) {
          place.append(hintOf("Hollow points: the time that other people measured for the record on their own machines."));
        }
      } else if (folded) {
        const details = document.createElement("details");
        const inside = document.createElement("div");
        inside.className = "curves";
        inside.append(...drawn);
        details.append(hintOf(words, "summary"), inside);
        place.append(details);
      } else {
        place.append(hintOf(`${words}.`), ...drawn);
      }
    }
  };
  const fillRecord = (details) => {
    const place = details.querySelector(".curves");
    if (!place || place.childElementCount) return;
    drawCurves(place, [place.dataset.of, place.dataset.against].filter(Boolean), ["step", "seconds"]);
  };
  document.querySelectorAll("details.record").forEach((details) =>
    details.addEventListener("toggle", () => details.open && fillRecord(details)));

  // --- a record by its address ---------------------------------------------------------------------------------
  const openAddressed = () => {
    const details = byId(decodeURIComponent(location.hash.slice(1)));
    if (!details || !details.matches("details.record")) return;
    details.open = true;
    fillRecord(details);
    details.scrollIntoView();
    details.querySelector("summary").focus({ preventScroll: true });
  };
  window.addEventListener("hashchange", openAddressed);

  // --- the curve: hover ----------------------------------------------------------------------------------------
  const hint = byId("curve-hint");
  const say = (record) => [
    `${record.number}: ${record.title}`, record.date, record.listed, record.gain, record.credit,
  ].filter(Boolean).join(" · ");
  byId("progress").addEventListener("pointerover", (event) => {
    const dot = event.target.closest("[data-record]");
    if (dot && byNumber.has(dot.dataset.record)) hint.textContent = say(byNumber.get(dot.dataset.record));
  });
  byId("progress").addEventListener("click", (event) => {
    const dot = event.target.closest("[data-record]");
    if (!dot) return;
    event.preventDefault();
    if (location.hash === `#record-${dot.dataset.record}`) openAddressed();
    else location.hash = `record-${dot.dataset.record}`;
  });

  // --- compare two ---------------------------------------------------------------------------------------------
  const cell = (name, text, scope) => {
    const element = document.createElement(name);
    element.textContent = text;
    if (scope) element.scope = scope;
    return element;
  };
  const percent = (ratio) => ratio === 1 ? "same" : `${ratio >= 1 ? "+" : "−"}${Math.abs(100 * (ratio - 1)).toFixed(1)} %`;
  const factTable = (a, b) => {
    const table = document.createElement("table");
    table.className = "plain";
    const head = table.createTHead().insertRow();
    head.append(...["", a.number, b.number, "change"].map((text) => cell("th", text, "col")));
    const rowsOf = table.createTBody();
    for (const [index, [name, text, number]] of a.facts.entries()) {
      const [, other, otherNumber] = b.facts[index];
      const row = rowsOf.insertRow();
      const change = number > 0 && otherNumber > 0 ? percent(otherNumber / number) : "";
      row.append(cell("th", name, "row"), cell("td", text), cell("td", other), cell("td", change));
    }
    return table;
  };
  const splitSentence = (a, b) => {
    if (!(a.minutes > 0 && b.minutes > 0)) return "";
    const whole = a.minutes / b.minutes;
    const words = whole >= 1 ? `${whole.toFixed(3)}× faster` : `${(1 / whole).toFixed(3)}× slower`;
    if (!(a.steps > 0 && b.steps > 0)) return `${b.number} is ${words} than ${a.number} by the listed times.`;
    const [fewer, clock] = [a.steps / b.steps, a.clock / b.clock];
    const retimed = Math.abs(clock - 1) < 5e-4 ? "" : `, ${clock.toFixed(3)}× from old records timed anew`;
    return `${b.number} is ${words} than ${a.number} by the listed times: ${fewer.toFixed(3)}× from fewer steps, `
      + `${(whole / fewer / clock).toFixed(3)}× from faster ones${retimed}.`;
  };
  const compare = () => {
    const [a, b] = ["compare-a", "compare-b"].map((id) => byNumber.get(byId(id).value));
    const sentence = document.createElement("p");
    sentence.textContent = a === b ? "Choose two different records." : splitSentence(a, b);
    const facts = document.createElement("div");
    facts.className = "scroll";
    facts.append(factTable(a, b));
    const curves = document.createElement("div");
    curves.className = "curves";
    drawCurves(curves, a === b ? [a.number] : [a.number, b.number], ["step", "seconds", "tokens"], true);
    byId("compare-result").replaceChildren(sentence, facts, curves);
  };
  byId("compare-form").addEventListener("change", compare);
  byId("compare-form").addEventListener("submit", (event) => event.preventDefault());
  compare();
  openAddressed();
})();
