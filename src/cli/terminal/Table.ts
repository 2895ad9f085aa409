import CliTable from "cli-table3"

const NO_BORDERS = {
  "top": "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  "bottom": "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  "left": "",
  "left-mid": "",
  "mid": "",
  "mid-mid": "",
  "right": "",
  "right-mid": "",
  "middle": "  "
}

/** Aligned columns for people: a head and rows; the columns in `right` are aligned to the right. */
export const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  right: ReadonlyArray<number> = []
): string => {
  const columns = new CliTable({
    head: [...head],
    chars: NO_BORDERS,
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [], compact: true },
    colAligns: head.map((_, column) => right.includes(column) ? "right" : "left")
  })
  for (const row of rows) columns.push(row.map(singleLine))
  return `${columns.toString().split("\n").map(withoutBlanks).join("\n")}\n`
}

/** A cell that had a line of its own would look like a row. */
const singleLine = (cell: string): string => cell.replaceAll("\n", " ")

/** A line without the blanks at its end; a regular expression would take the square of any other blanks' length. */
const withoutBlanks = (line: string): string => {
  let end = line.length
  while (end > 0 && line[end - 1] === " ") end--
  return line.slice(0, end)
}
