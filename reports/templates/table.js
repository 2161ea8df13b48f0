"use strict";
// The table of records: sorted by a click on a head, filtered as one types.
(() => {
  const byId = (id) => document.getElementById(id);
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
})();
