// The widget of reviews.html: a map of codes of two numbers, and what a decoder writes at each place.
// reviews.js brings the texts, row by row from the top, and the codes of test reviews.
"use strict";

(() => {
  const EDGE = 2.5; // the map shows codes from -EDGE to EDGE
  const PLACES = 17; // a side
  const { texts, dots, categories } = tutvaeLive.reviews;
  const root = document.getElementById("reviews");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const sliders = ["first", "second"].map((name) => document.getElementById(`reviews-${name}`));
  const code = (place) => EDGE * ((2 * place) / (PLACES - 1) - 1);
  let before = "";

  // What the decoder writes at a place, counted from the left and from below.
  tutvaeLive.written = (across, up) => texts[(PLACES - 1 - up) * PLACES + across];

  function element(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // A text whose words are marked where the one before does not have them.
  function marked(text) {
    const known = new Set(before.split(" "));
    return text.split(" ").flatMap((word) => {
      if (!before || known.has(word)) return [word, " "];
      const mark = document.createElement("mark");
      mark.textContent = word;
      return [mark, " "];
    });
  }

  function show() {
    const [across, up] = sliders.map((slider) => Number(slider.value));
    const text = tutvaeLive.written(across, up);
    if (text !== before) part("text").replaceChildren(...marked(text));
    before = text;
    [across, up].forEach((place, i) => {
      const said = code(place).toFixed(1);
      part(["first-value", "second-value"][i]).value = said;
      sliders[i].setAttribute("aria-valuetext", `${said}: ${text}`);
    });
    ring.setAttribute("cx", code(across));
    ring.setAttribute("cy", -code(up));
  }

  // A point of the picture becomes a place: right and up are larger.
  function point(event) {
    const { left, top, width, height } = part("map").getBoundingClientRect();
    const nearest = (share) => Math.round((PLACES - 1) * Math.min(1, Math.max(0, share)));
    sliders[0].value = nearest((event.clientX - left) / width);
    sliders[1].value = nearest(1 - (event.clientY - top) / height);
    show();
  }

  for (const [x, y, category, stars] of dots) {
    part("map").append(
      element("circle", { cx: x, cy: -y, r: 0.025 + 0.012 * stars, class: `live-dot-${category}` }),
    );
  }
  const ring = element("circle", { r: 0.16, class: "live-ring" });
  part("map").append(ring);
  categories.forEach((name, i) => {
    const dot = document.createElement("span");
    dot.className = `live-key live-dot-${i}`;
    part("key").append(dot, ` ${name} `);
  });
  for (const kind of ["pointerdown", "pointermove"]) part("map").addEventListener(kind, point);
  for (const slider of sliders) slider.addEventListener("input", show);
  root.querySelector("img").hidden = true;
  root.querySelector("form").hidden = false;
  part("how").hidden = false;
  show();
})();
