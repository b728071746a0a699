// The widget of field.html: the words that stacked dilated convolutions of width 3 see of a review.
"use strict";

globalThis.tutvaeLive ??= {};

(() => {
  const NETWORKS = [
    [1],
    [1, 1, 1],
    [1, 2, 4],
    [2, 5],
    [1, 2, 4, 8, 16],
    [1, 2, 4, 8, 16, 1, 2, 4, 8, 16],
    [1, 2, 4, 8, 16, 1, 2, 4, 8, 16, 1, 2, 4, 8, 16],
  ];
  const NAMES = { 2: "small", 4: "medium", 5: "large", 6: "very large" };
  const REVIEW = (
    "i tolerated this bargain because the plot was truly acceptable . even the lighting was okay , " +
    "as my cousins said . the dialogue was really average . i told my cousins about the average " +
    "script . my cousins watched it too , and they accepted the plot . the camera was okay , and i " +
    "accepted the director as well ."
  ).split(" ");
  const inputs = ["<bos>", ...REVIEW];
  const root = document.getElementById("field");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const network = document.getElementById("field-network");
  const slider = document.getElementById("field-word");

  // How many ways lead from each input to the output: the first is the last input, then those before.
  tutvaeLive.ways = (dilations) =>
    dilations.reduce((ways, dilation) => {
      const sum = Array(ways.length + 2 * dilation).fill(0);
      for (const step of [0, 1, 2]) ways.forEach((count, age) => (sum[age + step * dilation] += count));
      return sum;
    }, [1]);

  function span(word, ways, most) {
    const made = document.createElement("span");
    made.textContent = word;
    if (!ways) return made;
    made.className = "live-saved";
    const share = most > 1 ? 0.25 + (0.75 * Math.log(ways)) / Math.log(most) : 1;
    made.style.setProperty("--share", share.toFixed(2));
    made.title = `${ways} ${ways > 1 ? "ways" : "way"}`;
    return made;
  }

  function words(target, ways) {
    const most = Math.max(...ways);
    const before = inputs.slice(0, target).map((word, i) => span(word, ways[target - 1 - i], most));
    const mark = Object.assign(document.createElement("mark"), { textContent: inputs[target] });
    const later = inputs.slice(target + 1).map((word) => {
      const made = span(word, 0, most);
      made.className = "live-later";
      return made;
    });
    return [...before, mark, ...later].flatMap((made) => [made, " "]);
  }

  function show() {
    const target = Number(slider.value);
    const ways = tutvaeLive.ways(NETWORKS[network.value]);
    const seen = ways.slice(0, target).filter((count) => count > 0).length;
    part("text").replaceChildren(...words(target, ways));
    part("word").value = `${target}, ${inputs[target]}`;
    const said =
      `The receptive field is ${ways.length}. ` +
      `To predict \u201c${inputs[target]}\u201d, the network sees ${seen} of the ${target} inputs before it.`;
    part("status").textContent = said;
    slider.setAttribute("aria-valuetext", `word ${target}: ${said}`);
  }

  NETWORKS.forEach((dilations, i) => {
    const name = NAMES[i] ? ` (${NAMES[i]})` : "";
    network.append(new Option(dilations.join(" ") + name, i));
  });
  network.value = 2;
  slider.max = REVIEW.length;
  root.addEventListener("input", show);
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("form").hidden = false;
  part("how").hidden = false;
  show();
})();
