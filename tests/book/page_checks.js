// What test_pages.py asks a page. Every check returns a list of what is wrong.

function describe(element) {
  const text = (element.textContent || element.getAttribute("src") || "").trim();
  return `<${element.tagName.toLowerCase()} class="${element.className}"> ${text.slice(0, 60)}`;
}

function isVisible(element) {
  return element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
}

// The text nodes that a reader sees, with the element that each belongs to.
function visibleTexts(skipped) {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (text && !element.closest(skipped) && isVisible(element)) found.push([text, element]);
  }
  return found;
}

function mathsNotTypeset() {
  const raw = /\\\(|\\\[|\$\$|\\begin\{|\\(frac|mathbb|log|sum|operatorname)\b/;
  const texts = visibleTexts("pre, code, script, style, mjx-container");
  const untouched = texts.filter(([text]) => raw.test(text)).map(([text]) => text);
  const maths = [...document.body.querySelectorAll(".math")];
  const missing = maths.filter((element) => !element.querySelector("mjx-container"));
  const wrong = [...document.querySelectorAll("mjx-merror, [data-mjx-error]")];
  return [...untouched, ...missing.map(describe), ...wrong.map(describe)];
}

function scrollsWithin(element) {
  for (let parent = element.parentElement; parent && parent !== document.body; parent = parent.parentElement) {
    if (getComputedStyle(parent).overflowX !== "visible") return true;
  }
  return false;
}

function tooWide() {
  const width = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > width ? ["the page scrolls sideways"] : [];
  const text = document.querySelector("article") ?? document.body;
  for (const element of text.querySelectorAll("*:not(mjx-container *)")) {
    const box = element.getBoundingClientRect();
    if (box.width && isVisible(element) && box.right > width + 1 && !scrollsWithin(element)) {
      found.push(describe(element));
    }
  }
  return found;
}

// Displayed equations that one would have to scroll to read.
function wideEquations() {
  const wide = [];
  for (const box of document.querySelectorAll('mjx-container[display="true"]')) {
    const width = box.querySelector("mjx-math").getBoundingClientRect().width;
    if (width > box.clientWidth + 1) wide.push(`${Math.round(width)} px: ${describe(box.closest("section"))}`);
  }
  return wide;
}

// Code and output that paper would cut off, since it has no scroll bars.
function cutOff() {
  const boxes = [...document.querySelectorAll("article pre, article .output, article table")];
  return boxes.filter((box) => isVisible(box) && box.scrollWidth > box.clientWidth + 1).map(describe);
}

function formulasInTabOrder() {
  return [...document.querySelectorAll("mjx-container, mjx-container *")].filter((part) => part.tabIndex >= 0).map(describe);
}

// What the page consists of before the reader does anything: addresses and their bytes.
function weight() {
  const parts = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return parts.map((part) => [part.name, part.decodedBodySize]);
}

function badPictures() {
  const shown = [...document.querySelectorAll("img")].filter(isVisible);
  const bad = shown.filter((picture) => !picture.alt.trim() || !picture.naturalWidth);
  return bad.map(describe);
}

// A colour as [red, green, blue, alpha], whatever way CSS spells it.
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const brush = canvas.getContext("2d", { willReadFrequently: true });
function channels(colour) {
  brush.clearRect(0, 0, 1, 1);
  brush.fillStyle = colour;
  brush.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

function over(top, below) {
  return [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
}

function background(element) {
  if (!element) return [255, 255, 255, 1];
  const own = channels(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own : over(own, background(element.parentElement));
}

function luminance(colour) {
  const [red, green, blue] = colour.slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(element) {
  const below = background(element);
  const lights = [over(channels(getComputedStyle(element).color), below), below].map(luminance);
  return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
}

// The contrast that the accessibility guidelines ask of text of ordinary size.
function faintText() {
  const elements = new Set(visibleTexts("script, style, mjx-container, .headerlink").map(([, element]) => element));
  const faint = [...elements].filter((element) => contrast(element) < 4.5);
  return faint.map((element) => `${contrast(element).toFixed(2)} ${describe(element)}`);
}

// What axe-core finds that keeps somebody from reading or using the page, or a part of it. It is not
// asked for contrasts: `faintText` asks for more of them in a fraction of the time. Nor does it fetch
// style sheets again, for a rule that is not run.
async function axeFinds(part, options) {
  const asked = { preload: false, resultTypes: ["violations"], ...options };
  const { violations } = await axe.run(part, asked);
  const worst = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  return worst.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 100)}`));
}

const ALL_BUT_CONTRASTS = { rules: { "color-contrast": { enabled: false } } };

function shown() {
  return [...document.body.querySelectorAll("*")].filter(isVisible);
}

async function barriers() {
  window.shownBefore = new Set(shown());
  return axeFinds(document, ALL_BUT_CONTRASTS);
}

// What axe-core may find in another colour mode than the one that `barriers` has just looked at: by
// the one rule that goes by colours, in what was not shown, and in what has lost a part that was.
async function barriersOfColours() {
  const found = await axeFinds(document, { runOnly: ["link-in-text-block"] });
  const now = new Set(shown());
  const newlyShown = [...now].filter((element) => !window.shownBefore.has(element));
  const lost = [...window.shownBefore].filter((element) => element.isConnected && !now.has(element));
  const losers = lost.map(({ parentElement }) => parentElement.closest("a, button, label, [role]") ?? parentElement);
  const changed = [...new Set([...newlyShown, ...losers])];
  return changed.length ? [...found, ...(await axeFinds(changed, ALL_BUT_CONTRASTS))] : found;
}
