/** Our own styles (`Color.ts`): they take no place. */
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const STYLE = /\x1b\[\d{1,2}m/g
const PLAIN = /^[ -~]*$/
const COMBINING = /\p{M}/u
/** Characters that take two columns: Hangul, CJK, Yi, full-width forms, pictures. Unicode 15, EastAsianWidth.txt, W and F. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u

/** Columns of a terminal that a cell takes. */
const widthOf = (cell: string): number => {
  const text = cell.includes("\x1b") ? cell.replaceAll(STYLE, "") : cell
  if (PLAIN.test(text)) return text.length
  let width = 0
  for (const character of text) width += COMBINING.test(character) ? 0 : WIDE.test(character) ? 2 : 1
  return width
}

/**
 * Aligned columns for people: a head and rows; the columns in `right` are aligned to the right. The time that it takes is
 * that of the text's length: a guest may have tens of thousands of tasks.
 */
export const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  right: ReadonlyArray<number> = []
): string => {
  const widths = head.map(widthOf)
  const lines = [head, ...rows].map((row) => row.map(singleLine))
  for (const line of lines) line.forEach((cell, column) => (widths[column] = Math.max(widths[column], widthOf(cell))))
  const padded = (cell: string, column: number): string => {
    const blanks = " ".repeat(widths[column] - widthOf(cell))
    return right.includes(column) ? blanks + cell : cell + blanks
  }
  return lines.map((line) => `${withoutBlanks(line.map(padded).join("  "))}\n`).join("")
}

/** A cell that had a line of its own would look like a row. */
const singleLine = (cell: string): string => cell.replaceAll("\n", " ")

/** A line without the blanks at its end; a regular expression would take the square of any other blanks' length. */
const withoutBlanks = (line: string): string => {
  let end = line.length
  while (end > 0 && line[end - 1] === " ") end--
  return line.slice(0, end)
}
