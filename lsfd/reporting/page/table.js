
// Sorting of the table of scores: a click, or Enter, on a column's name; again to turn it round.
(() => {
  "use strict";
  const table = document.getElementById("scores");
  if (!table) return;

  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined) return null;
    return text === "inf" ? Infinity : Number(text);
  };

  const sort = (heading, button) => {
    const column = Number(button.dataset.column);
    const before = heading.getAttribute("aria-sort");
    const falls = before ? before === "ascending" : button.dataset.falls === "1";
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((one, other) => {
      const [first, second] = [valueOf(one, column), valueOf(other, column)];
      if (first === null || second === null) return (first === null) - (second === null);
      if (first === second) return 0;
      return (first < second ? -1 : 1) * (falls ? -1 : 1);
    });
    body.append(...rows);
  };

  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sort(button.closest("th"), button));
  }
})();
