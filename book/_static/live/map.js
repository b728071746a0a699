// The widget of digits.html: a map of codes, and the decoder that paints the digit at any point of it.
// digits.js brings the decoder's weights, in 8 bits, and the codes of real digits.
"use strict";

(() => {
  const EDGE = 2.5; // the map shows codes from -EDGE to EDGE
  const NEAREST = 5; // so many real digits say what a place looks like
  const { layers, codes } = tutvaeLive.digits;
  const root = document.getElementById("digits");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const sliders = ["first", "second"].map((name) => document.getElementById(`digits-${name}`));
  const [hidden, output] = layers.map(({ weight, scale, bias }) => {
    const bytes = Uint8Array.from(atob(weight), (character) => character.charCodeAt(0));
    return { weight: new Int8Array(bytes.buffer), scale, bias };
  });

  // The probability of black of each pixel, row by row.
  tutvaeLive.paint = (code) =>
    linear(output, linear(hidden, code).map(Math.tanh)).map((logit) => 1 / (1 + Math.exp(-logit)));

  // One scale for each row of a matrix of 8-bit numbers.
  function linear({ weight, scale, bias }, input) {
    return bias.map((constant, i) => {
      const row = weight.subarray(i * input.length, (i + 1) * input.length);
      return constant + scale[i] * row.reduce((sum, w, j) => sum + w * input[j], 0);
    });
  }

  // The digit that most of the nearest codes belong to, and how many do.
  tutvaeLive.looksLike = ([x, y]) => {
    const near = codes
      .map(([u, v, digit]) => [(u - x) ** 2 + (v - y) ** 2, digit])
      .sort((a, b) => a[0] - b[0])
      .slice(0, NEAREST);
    const votes = Array(10).fill(0);
    for (const [, digit] of near) votes[digit] += 1;
    const most = Math.max(...votes);
    return { digit: votes.indexOf(most), votes: most };
  };

  function show() {
    const code = sliders.map((slider) => Number(slider.value));
    const context = part("paper").getContext("2d");
    const image = context.createImageData(8, 8);
    tutvaeLive.paint(code).forEach((black, i) => {
      const grey = Math.round(255 * (1 - black));
      image.data.set([grey, grey, grey, 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const { digit, votes } = tutvaeLive.looksLike(code);
    const said = `of the ${NEAREST} nearest real digits, ${votes} are a ${digit}`;
    part("status").textContent = `Here, ${said}.`;
    code.forEach((value, i) => {
      part(["first-value", "second-value"][i]).value = value.toFixed(2);
      sliders[i].setAttribute("aria-valuetext", `${value.toFixed(2)}: ${said}`);
    });
    part("pin").style.left = `${(50 * (code[0] + EDGE)) / EDGE}%`;
    part("pin").style.top = `${(50 * (EDGE - code[1])) / EDGE}%`;
  }

  // A point of the picture becomes a code: right and up are larger.
  function drag(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const { left, top, width, height } = part("ground").getBoundingClientRect();
    sliders[0].value = EDGE * ((2 * (event.clientX - left)) / width - 1);
    sliders[1].value = EDGE * (1 - (2 * (event.clientY - top)) / height);
    show();
    event.preventDefault();
  }

  part("ground").addEventListener("pointerdown", (event) => {
    part("ground").setPointerCapture(event.pointerId);
    drag(event);
  });
  part("ground").addEventListener("pointermove", drag);
  for (const slider of sliders) slider.addEventListener("input", show);
  for (const name of ["pin", "paper", "how"]) part(name).hidden = false;
  root.querySelector("form").hidden = false;
  show();
})();
