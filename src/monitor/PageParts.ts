import { escapeText } from "../core/EscapeText.ts"

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&#39;"
}

/** Text of a guest in a page: neither markup, nor anything that hides or reorders what stands beside it. */
export const safe = (text: string): string =>
  escapeText(text).replaceAll(/[&<>"']/g, (character) => ENTITIES[character])

/** Lines of a guest: each is escaped, the breaks between them stay. */
export const block = (lines: ReadonlyArray<string>): string => `<pre tabindex="0">${lines.map(safe).join("\n")}</pre>`

/** A cell: text, or a number with the text that shows it. */
export type Cell = string | { readonly value: number; readonly text: string }

/** Milliseconds for people. */
export const ms = (value: number): string => value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`
/** Milliseconds as a cell. */
export const millis = (value: number | undefined): Cell => value === undefined ? "" : { value, text: ms(value) }
/** A number as a cell. */
export const number = (value: number | string | undefined): Cell =>
  value === undefined ? "" : { value: Number(value), text: String(value) }

/** A cell of a row. */
export const cellHtml = (cell: Cell): string =>
  typeof cell === "string"
    ? `<td>${safe(cell)}</td>`
    : `<td class="n" data-value="${cell.value}">${safe(cell.text)}</td>`

/** A table whose heads sort it, where JavaScript runs. */
export const tableHtml = (
  title: string,
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<Cell>>
): string => {
  if (rows.length === 0) return `<p>none</p>`
  const isNumber = (column: number) => rows.some((row) => typeof row[column] !== "string")
  const heads = head.map((name, column) =>
    `<th scope="col"${isNumber(column) ? " class=\"n\"" : ""}>${safe(name)}</th>`
  )
    .join("")
  const body = rows.map((row) => `<tr>${row.map(cellHtml).join("")}</tr>`).join("\n")
  return `<div class="wide" tabindex="0" role="region" aria-label="${
    safe(title)
  }"><table class="sortable"><thead><tr>${heads}</tr></thead><tbody>\n${body}\n</tbody></table></div>`
}

/** A part of the page under a heading. */
export const section = (title: string, html: string): string => `<section><h2>${safe(title)}</h2>\n${html}\n</section>`
