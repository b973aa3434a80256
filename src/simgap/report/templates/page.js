// A click on a column heading sorts the table by the column. A second click reverses the order. Cells without a value come last.
const by = document.getElementById("sort-by");
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = head.cellIndex;
    const falling = head.getAttribute("aria-sort") === "descending";
    const key = (row) => {
      const cell = row.cells[column];
      const value = table.id === "accuracy" ? cell.dataset[by.value] : undefined;
      return value ?? cell.dataset.sort;
    };
    const number = (text) => (text === undefined || text === "" ? NaN : Number(text));
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const difference = Number.isNaN(number(x)) ? x.localeCompare(y) : number(x) - number(y);
      return falling ? difference : -difference;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "ascending" : "descending");
  });
}
