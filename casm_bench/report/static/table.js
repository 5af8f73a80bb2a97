"use strict";
// Sorting and filtering of the results. Without this script the tables are whole, in paper order.

function valueOf(row, column) {
  const cell = row.cells[column];
  const number = parseFloat(cell.dataset.value);
  return "value" in cell.dataset ? number : cell.textContent.trim().toLowerCase();
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a - b;
}

function sortBy(table, header) {
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  const missing = (value) => typeof value === "number" && Number.isNaN(value);
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (missing(x) || missing(y)) return compare(x, y); // what has no number stays at the end
    return ascending ? compare(x, y) : compare(y, x);
  });
  table.tBodies[0].append(...rows);
}

function fillSelect(select, rows) {
  const values = new Set(rows.map((row) => row.dataset[select.name]));
  for (const value of [...values].sort((a, b) => a.localeCompare(b))) {
    select.add(new Option(value, value));
  }
}

function filter(form, rows) {
  const chosen = new FormData(form);
  const words = chosen.get("text").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits =
      words.every((word) => text.includes(word)) &&
      ["data", "method", "protocol"].every((n) => !chosen.get(n) || row.dataset[n] === chosen.get(n)) &&
      (chosen.has("controls") || !row.classList.contains("control")) &&
      (chosen.has("variants") || !("differs" in row.dataset));
    row.hidden = !fits;
    shown += fits;
  }
  rows[0].closest("table").classList.toggle("plain", !chosen.has("variants"));
  form.querySelector("output").value = `${shown} of ${rows.length} rows`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sortBy(table, button.parentElement));
  }
}
const form = document.querySelector("form.filters");
if (form) {
  const rows = [...document.querySelector("table.sortable").tBodies[0].rows];
  form.querySelectorAll("select").forEach((select) => fillSelect(select, rows));
  form.addEventListener("input", () => filter(form, rows));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter(form, rows);
}
