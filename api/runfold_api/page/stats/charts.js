// Charts over time: stacked bars and lines in plain SVG. Each has a table with the same figures.

import { h, svg } from "../shared/elements.js";

const WIDTH = 640;
const HEIGHT = 190;
const LEFT = 56;
const BOTTOM = 22;
const TOP = 8;

// `series`: [{name, look, values}]; `look` is a status or colour class, `values` has one value per
// bucket or null. `kind`: "bars" stacks the series, "lines" draws each.
export function chart({ title, starts, series, kind, format, labelOf, top = null }) {
  const highest = top ?? niceTop(kind === "bars" ? stackedTop(starts, series) : Math.max(0, ...series.flatMap((each) => each.values.filter((value) => value !== null))));
  const x = (index) => LEFT + ((WIDTH - LEFT) * (index + 0.5)) / starts.length;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / highest);
  const isEmpty = !series.some((each) => each.values.some((value) => value));
  return h("figure", { class: "chart" },
    h("figcaption", null, h("h3", null, title), legend(series)),
    isEmpty ? h("p", { class: "faint" }, "No data for this period.")
      : svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}; the table below has the figures` },
        [0, 0.5, 1].map((part) => gridLine(y(highest * part), part ? format(highest * part) : "0")),
        kind === "bars" ? bars(series, starts, x, y, format, labelOf) : lines(series, starts, x, y, format, labelOf),
        axis(starts, x, labelOf)),
    table(title, starts, series, format, labelOf));
}

/** A line without axes, as high as a line of text. */
export function sparkline(values, label) {
  const highest = Math.max(1, ...values);
  const step = values.length > 1 ? 100 / (values.length - 1) : 100;
  const points = values.map((value, index) => `${(index * step).toFixed(1)},${(22 - (value / highest) * 20).toFixed(1)}`);
  return svg("svg", { class: "sparkline", viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("title", null, label), svg("polyline", { points: points.join(" ") }));
}

function bars(series, starts, x, y, format, labelOf) {
  const width = Math.max(1, ((WIDTH - LEFT) / starts.length) * 0.78);
  return starts.map((start, index) => {
    let below = 0;
    const parts = series.filter((each) => each.values[index]).map((each) => {
      const from = below;
      below += each.values[index];
      return svg("rect", { class: `part ${each.look}`, x: x(index) - width / 2, width, y: y(below), height: Math.max(0.5, y(from) - y(below)) });
    });
    return svg("g", { class: "bucket" }, svg("title", null, hover(series, index, labelOf(start), format)), parts);
  });
}

function lines(series, starts, x, y, format, labelOf) {
  return series.map((each) => {
    const runs = unbroken(each.values);
    return svg("g", { class: `line ${each.look}` },
      runs.map((indexes) => svg("polyline", { points: indexes.map((index) => `${x(index)},${y(each.values[index])}`).join(" ") })),
      runs.flat().map((index) => svg("circle", { cx: x(index), cy: y(each.values[index]), r: starts.length > 60 ? 1.5 : 3 },
        svg("title", null, `${labelOf(starts[index])}\n${each.name}: ${format(each.values[index])}`))));
  });
}

function unbroken(values) {
  const runs = [[]];
  values.forEach((value, index) => {
    if (value !== null && value !== undefined) runs.at(-1).push(index);
    else if (runs.at(-1).length) runs.push([]);
  });
  return runs.filter((indexes) => indexes.length);
}

function gridLine(at, text) {
  return svg("g", { class: "grid" }, svg("line", { x1: LEFT, x2: WIDTH, y1: at, y2: at }), svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, text));
}

function axis(starts, x, labelOf) {
  const step = Math.ceil(starts.length / 7);
  return starts.map((start, index) => (index % step === 0
    ? svg("text", { class: "tick", x: x(index), y: HEIGHT - 6, "text-anchor": "middle" }, labelOf(start)) : null));
}

function legend(series) {
  return series.length < 2 ? null : h("ul", { class: "legend" }, series.map((each) =>
    h("li", null, h("span", { class: `swatch ${each.look}`, "aria-hidden": "true" }), each.name)));
}

function table(title, starts, series, format, labelOf) {
  return h("details", { class: "behind" }, h("summary", null, "Table"),
    h("div", { class: "scroll" }, h("table", null, h("caption", { class: "hidden" }, title),
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "From"), series.map((each) => h("th", { scope: "col", class: "number" }, each.name)))),
      h("tbody", null, starts.map((start, index) => h("tr", null, h("th", { scope: "row" }, labelOf(start)),
        series.map((each) => h("td", { class: "number" }, each.values[index] === null ? "–" : format(each.values[index])))))))));
}

function hover(series, index, label, format) {
  return [label, ...series.filter((each) => each.values[index]).map((each) => `${each.name}: ${format(each.values[index])}`)].join("\n");
}

const stackedTop = (starts, series) => Math.max(0, ...starts.map((_, index) => series.reduce((sum, each) => sum + (each.values[index] ?? 0), 0)));

function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((each) => each >= value);
}
