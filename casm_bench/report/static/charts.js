"use strict";
// Curves, drawn by uPlot once they come into view. Their values stand in a table below each.

const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3]]; // told apart without colour
const BORDERS = ["solid", "dashed", "dotted", "double"]; // the same in the legend
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(data, width) {
  const axis = { stroke: ink("--faint"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line") } };
  const whole = { incrs: [1, 2, 5, 10, 20, 50, 100] };
  const stages = { values: (_, places) => places.map((place) => data.stages[place] || ""), rotate: -50, size: 90 };
  const across = data.stages ? { ...whole, ...stages } : data.axis === "epoch" ? whole : {};
  return {
    width,
    height: data.stages ? 250 : 190,
    padding: [null, data.stages ? 48 : null, null, null], // slanted names hang over
    scales: { x: { time: false } },
    legend: { markers: { width: 2, dash: (_, i) => BORDERS[(i - 1) % BORDERS.length] } },
    axes: [{ ...axis, ...across, label: data.stages ? undefined : data.axis, labelSize: 22 }, { ...axis, size: 56 }],
    series: [
      { label: data.axis, value: (_, place) => (data.stages ? data.stages[place] || "–" : place ?? "–") },
      ...data.series.map((series, i) => ({
        label: series.label,
        stroke: ink(`--curve-${i % 4}`),
        width: 2,
        dash: DASHES[i % DASHES.length],
        points: { show: data.x.length < 30, size: 5 },
        value: (_, y) => (y === null || y === undefined ? "–" : y.toPrecision(4)),
      })),
    ],
  };
}

function draw(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const place = figure.querySelector(".plot");
  place.replaceChildren();
  figure.plot = new uPlot(options(data, place.clientWidth), [data.x, ...data.series.map((s) => s.y)], place);
}

const figures = [...document.querySelectorAll("figure.chart")];
const appearing = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && !target.plot) draw(target);
  }
});
const resizing = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const { plot } = target;
    const width = target.querySelector(".plot").clientWidth;
    if (plot && width && plot.width !== width) plot.setSize({ width, height: plot.height });
  }
});
for (const figure of figures) {
  appearing.observe(figure);
  resizing.observe(figure);
}
dark.addEventListener("change", () => figures.filter((figure) => figure.plot).forEach(draw));
