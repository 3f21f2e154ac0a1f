"use strict";
// Sorting: a click on a heading orders the rows by the cells' data-v; empty ones stay last.
document.querySelectorAll("table.sortable").forEach((table) => {
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th"), column = head.cellIndex;
      const falling = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.v;
      const order = (a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return falling ? -difference : difference;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
});
// Filter: every word must occur somewhere in the row.
const filter = document.getElementById("filter");
if (filter) filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  document.querySelectorAll("#board tbody tr").forEach((row) => {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  });
});
// A trial under the pointer stands out in every figure and in the leaderboard.
const light = (id) => {
  document.querySelectorAll(".on").forEach((item) => item.classList.remove("on"));
  document.querySelectorAll("svg.lit").forEach((svg) => svg.classList.remove("lit"));
  if (!id) return;
  document.querySelectorAll(`[data-trial="${CSS.escape(id)}"]`).forEach((item) => {
    item.classList.add("on");
    const svg = item.closest("svg");
    if (svg) svg.classList.add("lit");
  });
};
document.addEventListener("mouseover", (event) => {
  const item = event.target.closest("[data-trial]");
  light(item && item.dataset.trial);
});
document.addEventListener("click", (event) => {
  const item = event.target.closest("svg [data-trial]");
  if (item) location.hash = `trial-${item.dataset.trial}`;
});
