// The widget of words.html: the words of a review, coloured by the nats that a code saves on them.
// words.js brings the reviews and, for each decoder, its KL and the nats saved on every word.
"use strict";

(() => {
  const MUCH = 0.5; // nats from which a word is underlined
  const { reviews, decoders } = tutvaeLive.words;
  const root = document.getElementById("words");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const review = document.getElementById("words-review");
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const signed = (nats) => nats.toFixed(1).replace("-", "\u2212");
  const decoder = () => decoders[root.querySelector("input[name=words-decoder]:checked").value];

  function span(word, nats) {
    const made = document.createElement("span");
    made.textContent = word;
    made.className = nats < 0 ? "live-lost" : "live-saved";
    made.classList.toggle("live-much", Math.abs(nats) >= MUCH);
    made.style.setProperty("--share", Math.min(1, Math.abs(nats) / 2).toFixed(2));
    made.title = `${word}: ${signed(nats)} nats`;
    return made;
  }

  function show() {
    const { name, kl, nats } = decoder();
    const words = reviews[review.value];
    const saved = nats[review.value];
    const spans = words.flatMap((word, i) => [span(word, saved[i]), " "]);
    part("text").replaceChildren(...spans);
    const most = words
      .map((word, i) => [word, saved[i]])
      .sort((a, b) => b[1] - a[1])
      .slice(0, 3)
      .map(([word, value]) => `${word} ${signed(value)}`);
    part("status").textContent =
      `${name}: ${signed(sum(saved))} nats saved on this review, ` +
      `most on ${most.join(", ")}. The code costs ${kl.toFixed(1)} nats, on average.`;
  }

  review.append(...reviews.map((words, i) => new Option(`${words.slice(0, 5).join(" ")} \u2026`, i)));
  decoders.forEach(({ name }, i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "words-decoder", value: i, checked: i === 0,
    });
    label.append(input, ` ${name} `);
    part("decoders").append(label);
  });
  root.addEventListener("input", show);
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("form").hidden = false;
  part("how").hidden = false;
  show();
})();
