// What the theme leaves unsaid to those who hear a page rather than see it.

document.addEventListener("DOMContentLoaded", () => {
  // The arrow that unfolds a part of the contents has no text, so no name.
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const title = arrow.closest("li").querySelector("a").textContent.trim();
    arrow.setAttribute("aria-label", `Pages of “${title}”`);
  }
  // Parameters, a line each, come as a list of definitions with nothing defined.
  for (const list of document.querySelectorAll("dt.sig > dl")) {
    const lines = document.createElement("span");
    lines.className = "sig-lines";
    for (const item of list.children) {
      const line = document.createElement("span");
      line.append(...item.childNodes);
      lines.append(line);
    }
    list.replaceWith(lines);
  }
  // A list of sources calls itself a list, and its entries something else.
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
});

// A table that scrolls is a stop of the tab key, as the theme makes one of code that scrolls.
function letTheTabKeyIntoTables() {
  for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
}
window.addEventListener("load", letTheTabKeyIntoTables);
window.addEventListener("resize", letTheTabKeyIntoTables);
