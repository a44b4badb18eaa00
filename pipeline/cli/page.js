"use strict";

// Sorts tables by the column whose head is pressed, and draws the charts in the page's colours.

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
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head));
    head.append(button);
  }
}

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const LONGEST = 40; // characters of a name in a legend
const shorten = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

// Plotly reads a little HTML in names; ours are text.
const asText = (name) =>
  shorten(name).replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);

const INKS = 7;
const DASHES = ["solid", "dash", "dot", "dashdot"];
const OPACITIES = ["", "8c", "4d", "1a"]; // as #rrggbb ends that is not opaque
const MANY = 120; // points, past which a marker on each would hide the line

const HOUR = 3_600_000; // milliseconds

// A single moment says nothing of the distance to the next: a day is shown, and it has an hour.
const isLone = (chart) => chart.moments.length === 1;
const dayAround = (moment) =>
  [-12, 12].map((hours) => new Date(Date.parse(`${moment}Z`) + hours * HOUR).toISOString());

const traceOf = (chart, series, index) => {
  const ink = colour(`series-${index % INKS}`);
  const round = Math.floor(index / INKS) % DASHES.length; // the same ink comes again, in a new style
  const common = { name: asText(series.name), x: chart.moments, y: series.values, showlegend: true };
  if (chart.mark === "bars") {
    const marker = { color: ink + OPACITIES[round], line: { color: ink, width: round && 1 } };
    const width = isLone(chart) ? HOUR : undefined;
    return { ...common, type: "bar", width, marker };
  }
  return {
    ...common,
    type: "scatter",
    mode: "lines+markers", // a point between two gaps is no line
    line: { color: ink, width: 2, dash: DASHES[round] },
    marker: { size: chart.moments.length > MANY ? 3 : 5 },
  };
};

const layoutOf = (chart) => {
  const ink = colour("ink");
  const grid = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false };
  return {
    autosize: true,
    barmode: "stack",
    bargap: 0.25,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    font: { family: "system-ui, sans-serif", size: 13, color: ink },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: ink } },
    hovermode: "x unified",
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom" },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: {
      ...grid,
      type: "date",
      automargin: true,
      showgrid: false,
      range: isLone(chart) ? dayAround(chart.moments[0]) : undefined,
      hoverformat: "%Y-%m-%d %H:%MZ",
    },
    yaxis: {
      ...grid,
      automargin: true,
      fixedrange: true,
      range: chart.isShare ? [0, 1.02] : undefined,
      rangemode: "tozero",
      tickformat: chart.axisFormat,
      hoverformat: chart.pointFormat,
      ticksuffix: chart.unit,
    },
  };
};

const drawCharts = () => {
  for (const figure of document.querySelectorAll("figure.chart")) {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const traces = chart.series.map((series, index) => traceOf(chart, series, index));
    const config = { displayModeBar: false, responsive: true };
    Plotly.react(figure.querySelector(".plot"), traces, layoutOf(chart), config);
  }
};

drawCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
