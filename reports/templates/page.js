"use strict";
// What happens on the page: the colour scheme, a record by its address, the curve's dots, two records side by side.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byNumber = new Map(data.records.map((record) => [record.number, record]));
  const byId = (id) => document.getElementById(id);
  const drawCurves = lossCurves(data);

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

  // --- a record, unfolded ---------------------------------------------------------------------------------------
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
