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
  const showScheme = () => scheme.setAttribute("aria-pressed", String(isDark()));
  scheme.addEventListener("click", () => {
    const dark = !isDark();
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", !dark);
    showScheme();
  });
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
    const record = byNumber.get(number);
    const published = data.curves[number];
    const own = (data.replays[number] || []).map((run) => ({ ...run, name: `${number} ${run.fidelity}` }));
    const { share } = record;
    return [...(published ? [{ name: number, points: published, tokens: record.tokens_per_step, share }] : []), ...own];
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
    const most = Math.max(...ends.map(([x]) => x));
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
    const used = [];
    lines.forEach((line, index) => {
      const points = line.xy.filter(([, loss]) => loss <= high).map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`);
      svg.append(make("polyline", { class: `line s${line.index}`, points: points.join(" ") }));
      const [across, level] = [x(ends[index][0]), y(ends[index][1]) + 4];
      const free = (at) => used.every(([a, b]) => Math.abs(a - at) >= 13 || Math.abs(b - across) >= right);
      const at = [0, 13, -13, 26, -26, 39, -39].map((shift) => level + shift).find(free) ?? level - 52;
      used.push([at, across]);
      svg.append(make("text", { class: "name", x: across + 5, y: at }, line.name));
    });
    return svg;
  };
  const drawCurves = (place, numbers, axes) => {
    const series = numbers.filter((number) => byNumber.has(number)).flatMap(seriesOf);
    const toys = series.filter((one) => one.fidelity === "smoke"); // a toy's loss has a scale of its own
    const real = series.filter((one) => one.fidelity !== "smoke");
    place.replaceChildren(...[...axes.map((axis) => drawOne(real, axis)), drawOne(toys, "step")].filter(Boolean));
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
    const fewer = a.steps / b.steps;
    return `${b.number} is ${words} than ${a.number} by the listed times: ${fewer.toFixed(3)}× from fewer steps, `
      + `${(whole / fewer).toFixed(3)}× from faster ones.`;
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
    drawCurves(curves, a === b ? [a.number] : [a.number, b.number], ["step", "seconds", "tokens"]);
    byId("compare-result").replaceChildren(sentence, facts, curves);
  };
  byId("compare-form").addEventListener("change", compare);
  byId("compare-form").addEventListener("submit", (event) => event.preventDefault());
  compare();
  openAddressed();
})();
