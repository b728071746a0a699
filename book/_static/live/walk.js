// The widget of walk.html, which pages of book/ and notebooks/ include: a walk between two sentences of the reader's.
"use strict";

(() => {
  const LAST = 60; // positions of the slider; every tenth is a line of the list
  const EVERY = 10;
  const root = document.getElementById("walk");
  const form = root.querySelector("form");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const slider = part("slider");
  const ready = new Set(); // names of models that are loaded
  let walk; // the one that is shown

  class Walk {
    constructor(model, left, right) {
      this.model = model;
      this.ends = [left, right].map((text) => model.encode(text).mean);
      this.texts = new Map(); // position: sentence
    }

    code(position) {
      const [left, right] = this.ends;
      return left.map((value, i) => value + (position / LAST) * (right[i] - value));
    }

    text(position) {
      if (!this.texts.has(position)) {
        this.texts.set(position, this.model.decode(this.code(position)));
      }
      return this.texts.get(position);
    }
  }

  async function start() {
    const fields = [form.left, form.right];
    const empty = fields.find((field) => !field.value.trim());
    if (empty) {
      say("Write a sentence in both fields.");
      empty.focus();
      return;
    }
    const { value: name } = form.model;
    if (!ready.has(name)) say("Loading the model …");
    try {
      const model = await tutvaeLive.load(name);
      ready.add(name);
      labelButton();
      if (name !== form.model.value) return;
      const [left, right] = fields.map((field) => field.value.trim());
      say([left, right].map((text) => tooLong(model, text)).join(""));
      await show(new Walk(model, left, right), left, right);
    } catch (error) {
      say(`${error.message} Press the button to try again.`);
    }
  }

  // Fills the page, a sentence a frame, so that it answers in the meantime.
  async function show(started, left, right) {
    walk = started;
    const rate = form.model.value.replace("rate-", "");
    part("title").textContent = `The whole walk at ${rate} nats, from “${left}” to “${right}”:`;
    for (const name of ["list", "left-back", "right-back"]) part(name).replaceChildren();
    slider.value = 0;
    move();
    part("way").hidden = false;
    for (let position = 0; position <= LAST; position += EVERY) {
      await new Promise(requestAnimationFrame);
      if (walk !== started) return; // another one has begun
      const above = position ? walk.text(position - EVERY) : null;
      part("list").append(line(walk.text(position), above));
    }
    part("left-back").textContent = `reads back as: ${walk.text(0)}`;
    part("right-back").textContent = `reads back as: ${walk.text(LAST)}`;
  }

  function move() {
    const position = Number(slider.value);
    const share = `${Math.round((100 * position) / LAST)} %`;
    part("share").textContent = share;
    part("sentence").textContent = walk.text(position);
    slider.setAttribute("aria-valuetext", `${share}: ${walk.text(position)}`);
    part("sampled").textContent = "";
  }

  // A sentence of the list, the words marked that the one above does not have.
  function line(text, above) {
    const item = document.createElement("li");
    const words = text.split(" ");
    const same = above === null ? words.map(() => true) : kept(words, above.split(" "));
    words.forEach((word, i) => {
      const element = document.createElement(same[i] ? "span" : "mark");
      element.textContent = word;
      item.append(i ? " " : "", element);
    });
    return item;
  }

  // Which words belong to the longest common subsequence with those above.
  function kept(words, above) {
    const lengths = Array.from({ length: words.length + 1 }, () => Array(above.length + 1).fill(0));
    for (let i = words.length - 1; i >= 0; i--) {
      for (let j = above.length - 1; j >= 0; j--) {
        const skipped = Math.max(lengths[i + 1][j], lengths[i][j + 1]);
        lengths[i][j] = words[i] === above[j] ? lengths[i + 1][j + 1] + 1 : skipped;
      }
    }
    let j = 0;
    return words.map((word, i) => {
      while (j < above.length && word !== above[j] && lengths[i][j + 1] === lengths[i][j]) j++;
      if (word !== above[j]) return false;
      j++;
      return true;
    });
  }

  function tooLong({ tokenizer, maxLength }, text) {
    const length = tokenizer.encode(text).length - 2; // without its marks
    const read = maxLength - 1; // after the start mark
    if (length <= read) return "";
    const shown = [...text].slice(0, 20).join("");
    return `“${shown}…” is long: of its ${length} tokens, the model reads ${read}. `;
  }

  function say(message) {
    part("status").textContent = message;
  }

  function labelButton() {
    const known = ready.has(form.model.value);
    part("start").textContent = known ? "Walk" : "Load the model, 4 MB";
  }

  let moving = false; // at most one sentence a frame is written while the slider is dragged
  slider.addEventListener("input", () => {
    if (!moving) requestAnimationFrame(() => ((moving = false), move()));
    moving = true;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  part("rates").addEventListener("change", () => {
    labelButton();
    if (ready.has(form.model.value)) start();
  });
  part("sample").addEventListener("click", () => {
    part("sampled").textContent = walk.model.decode(walk.code(Number(slider.value)), 1);
  });
  labelButton();
  form.hidden = false;
})();
