"use strict";

// What a page can do besides being read: sort a table, copy a command, tell the figures of the
// moment in a chart that is pointed at. The figures stand in the table below the chart.

const make = (name, className, ...children) => {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
};

// ---- Sorting ----

const keyOf = (row, column) => {
  const cell = row.cells[column];
  return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent;
};

// What is not known ("-") stands last, whichever way the rest is sorted.
const compare = (a, b) => {
  if (a === "-" || b === "-") return 0;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
};

const sortBy = (table, head) => {
  const isDescending = head.ariaSort === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.ariaSort = isDescending ? "descending" : "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, head.cellIndex), row]);
  rows.sort(([a], [b]) => (a === "-") - (b === "-") || compare(a, b) * (isDescending ? -1 : 1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.title = "Sort";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head));
    head.append(button);
  }
}

// ---- Copying ----

const copy = async (event) => {
  const command = event.currentTarget;
  const text = command.title || command.textContent;
  const copied = await navigator.clipboard?.writeText(text).then(
    () => "Copied",
    () => "Command", // this browser does not let us: it can be copied from there
  );
  const tip = make("span", "tip", `${copied ?? "Command"}: ${text}`);
  command.after(tip);
  setTimeout(() => tip.remove(), 4000);
};

for (const command of document.querySelectorAll(".command")) {
  command.addEventListener("click", copy);
}

// ---- Pointing ----

const tell = (figure, row) => {
  const names = figure.querySelectorAll(".figures thead th");
  const inks = figure.querySelectorAll(".legend i");
  const lines = [...row.cells].slice(1).map((cell, i) => {
    const name = make("span", "legend", inks[i].cloneNode(), names[i + 1].textContent.trim());
    return make("p", "", name, cell.textContent.trim());
  });
  return make("div", "tip", make("b", "", row.cells[0].textContent), ...lines);
};

const point = (figure, event) => {
  const around = figure.getBoundingClientRect();
  const plot = figure.querySelector("svg").getBoundingClientRect();
  const rows = figure.querySelector(".figures").tBodies[0].rows;
  const place = Math.floor(((event.clientX - plot.left) / plot.width) * rows.length);
  leave(figure);
  if (!(place in rows)) return;
  const left = plot.left - around.left + ((place + 0.5) * plot.width) / rows.length;
  const pointer = make("i", "pointer");
  const tip = tell(figure, rows[place]);
  figure.append(pointer, tip);
  const top = plot.top - around.top;
  Object.assign(pointer.style, { left: `${left}px`, top: `${top}px`, height: `${plot.height}px` });
  const isRight = left > around.width / 2;
  const besides = isRight ? left - tip.offsetWidth - 12 : left + 12;
  Object.assign(tip.style, { left: `${Math.max(besides, 0)}px`, top: `${top}px` });
};

const leave = (figure) => {
  for (const drawn of figure.querySelectorAll(".pointer, .tip")) drawn.remove();
};

// In a long strip the cells have no titles of their own.
for (const cells of document.querySelectorAll(".cells.many")) {
  const section = cells.closest("section");
  const column = [...section.querySelectorAll(".cells")].indexOf(cells) + 1;
  cells.addEventListener("pointerover", ({ target }) => {
    if (target === cells) return;
    const row = section.querySelector(".figures").tBodies[0].rows[[...cells.children].indexOf(target)];
    target.title = `${row.cells[0].textContent} ${row.cells[column].textContent}`.trim();
  });
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const plot = figure.querySelector(".plot");
  plot.addEventListener("pointermove", (event) => point(figure, event));
  plot.addEventListener("pointerdown", (event) => point(figure, event));
  plot.addEventListener("pointerleave", () => leave(figure));
}
