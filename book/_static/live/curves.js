// The widget of remedies.html: the course of two recorded runs, with a slider for the update.
// remedies.js brings the runs: name, and KL weight, KL and reconstruction of each point.
"use strict";

(() => {
  const SINGLY = 100; // so many first points are single updates, the others means of TOGETHER
  const TOGETHER = 10;
  const HEIGHT = 150;
  const MARGIN = { left: 46, right: 8, top: 24, bottom: 20 };
  // Column, title, and the marks of the axis, from its lower to its upper end.
  const CHARTS = [
    ["weights", "weight of the KL", [0, 1]],
    ["kl", "KL, nats", [0.01, 0.1, 1, 10, 100]],
    ["reconstruction", "reconstruction, nats", [10, 20, 50, 100]],
  ];
  const runs = tutvaeLive.remedies;
  const root = document.getElementById("remedies");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const field = (name) => document.getElementById(`remedies-${name}`);

  // The last update of a point.
  tutvaeLive.updateOf = (point) =>
    point < SINGLY ? point + 1 : SINGLY + TOGETHER * (point - SINGLY + 1);

  const chosen = () => ["first", "second"].map((name) => runs[field(name).value]);

  function element(name, attributes, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  // The share of the way from a to b, in logarithms unless the way starts at 0.
  function share(value, a, b) {
    if (a === 0) return value / b;
    return Math.log(Math.max(value, a) / a) / Math.log(b / a);
  }

  // From points and values to places in a chart.
  function scales(width, last, marks) {
    const { left, right, top, bottom } = MARGIN;
    const across = width - left - right;
    const up = HEIGHT - top - bottom;
    const update = tutvaeLive.updateOf;
    return {
      x: (point) => left + across * share(update(point), 1, update(last)),
      y: (value) => HEIGHT - bottom - up * share(value, marks[0], marks.at(-1)),
    };
  }

  function chart([column, title, marks], width, count) {
    const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "live-chart" });
    const { x, y } = scales(width, count - 1, marks);
    svg.append(element("text", { x: MARGIN.left, y: 14 }, title));
    for (const value of marks) {
      svg.append(element("text", { x: MARGIN.left - 6, y: y(value) + 4, class: "live-tick" }, value));
      svg.append(element("path", { d: `M${MARGIN.left},${y(value)}H${width}` }));
    }
    for (const [i, line] of [[1, "live-second"], [0, "live-first"]]) {
      const values = chosen()[i][column];
      const places = values.map((value, point) => `${x(point).toFixed(1)},${y(value).toFixed(1)}`);
      svg.append(element("polyline", { points: places.join(" "), class: line }));
    }
    const now = x(Number(field("update").value));
    svg.append(element("path", { d: `M${now},${MARGIN.top}V${HEIGHT - MARGIN.bottom}`, class: "live-now" }));
    return svg;
  }

  // What a run was at a point, in words.
  function told(run, point) {
    if (point >= run.kl.length) return `${run.name}: has ended.`;
    const [weight, kl, cost] = [run.weights, run.kl, run.reconstruction].map((x) => x[point]);
    const terms = `KL ${kl.toFixed(2)}, reconstruction ${cost.toFixed(2)}`;
    return `${run.name}: weight ${weight.toFixed(2)}, ${terms}, together ${(kl + cost).toFixed(2)}.`;
  }

  function show() {
    const count = Math.max(...chosen().map(({ kl }) => kl.length));
    const slider = field("update");
    slider.max = count - 1;
    const point = Number(slider.value);
    const width = part("charts").clientWidth;
    part("charts").replaceChildren(...CHARTS.map((which) => chart(which, width, count)));
    part("update").value = tutvaeLive.updateOf(point);
    const said = chosen().map((run) => told(run, point));
    ["first", "second"].forEach((name, i) => (part(name).textContent = said[i]));
    slider.setAttribute("aria-valuetext", `update ${tutvaeLive.updateOf(point)}. ${said[0]}`);
  }

  for (const [name, start] of [["first", "linear ramp"], ["second", "none"]]) {
    field(name).append(...runs.map((run, i) => new Option(run.name, i)));
    field(name).value = runs.findIndex((run) => run.name === start);
    field(name).addEventListener("change", show);
  }
  field("update").addEventListener("input", show);
  root.querySelector("img").hidden = true;
  root.querySelector("form").hidden = false;
  addEventListener("resize", show);
  show();
})();
