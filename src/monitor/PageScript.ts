import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

/** The page's style: its colors are those of the theme that the reader has chosen. */
const STYLE = `
:root{color-scheme:light dark;--text:#1b1f24;--page:#fff;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--bad:#b3261e;--busy:#2c7a4b;--left:#9a6700;--lines:35%}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--page:#0d1117;--soft:#9aa4af;--line:#30363d;--box:#161b22;--bad:#ff8a80;--busy:#4cc38a;--left:#e3b341;--lines:60%}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1rem;font:15px/1.45 system-ui,sans-serif;color:var(--text);background:var(--page)}
h1{font-size:1.25rem;color:var(--bad);overflow-wrap:anywhere;margin:.2rem 0}
section{content-visibility:auto;contain-intrinsic-size:auto 60rem}
h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p{margin:.3rem 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.15rem .6rem .15rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
td.n,th.n,#samples th{text-align:right}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--soft)}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
pre{background:var(--box);border:1px solid var(--line);padding:.6rem;overflow:auto;max-height:30rem;font-size:13px}
.tall{max-height:20rem;overflow:auto}
.strips{display:grid;grid-template-columns:max-content 1fr;gap:.2rem .6rem;align-items:center}
.strips svg{width:100%;height:.9rem;background:var(--box);border:1px solid var(--line)}
.busy{fill:var(--busy);color:var(--busy)}
.waits{fill:var(--bad);color:var(--bad)}
.left{fill:var(--left);color:var(--left)}
.ends{display:flex;justify-content:space-between}
figure{margin:.8rem 0}
figcaption{font-weight:600}
.uplot{width:auto}
.u-legend,.u-legend *{white-space:normal;overflow-wrap:anywhere;max-width:100%}
.u-legend th,.u-legend td{border:0}
input{font:inherit;padding:.2rem .4rem;margin:.3rem 0;border:1px solid var(--line);background:var(--box);color:var(--text);max-width:100%}
`

/**
 * Sorts and searches tables, and draws charts of the table of samples, which stands before it; the page is whole without
 * it. With the charts there, the last parts are known to be beyond the screen before they are laid out.
 */
const SCRIPT = `
addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0]
    const key = (row, at) => { const cell = row.cells[at]; const value = cell.dataset.value; return value === undefined ? cell.textContent : Number(value) }
    for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button")
      button.type = "button"
      button.textContent = head.textContent
      head.replaceChildren(button)
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending"
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort")
        head.setAttribute("aria-sort", down ? "descending" : "ascending")
        const rows = [...body.rows].sort((one, two) => {
          const a = key(one, at), b = key(two, at)
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))
          return down ? -order : order
        })
        body.append(...rows)
      })
    }
  }
  const search = document.getElementById("search")
  if (search === null) return
  search.hidden = false
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase()
    for (const row of document.querySelectorAll("#tasks tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted)
  })
})
const samples = document.querySelector("#samples table")
const heads = samples === null ? [] : [...samples.tHead.rows[0].cells]
const column = (at) => [...samples.tBodies[0].rows].map(({ cells }) => {
  const value = Number(cells[at].dataset.value ?? "none")
  return Number.isFinite(value) ? value : null
})
const color = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name)
const axis = { stroke: color("--text"), grid: { stroke: color("--line") }, ticks: { stroke: color("--line") } }
const sized = (chart, values) => 20 + 8 * Math.max(...(values ?? [""]).map((value) => String(value).length))
const told = (chart, value) => value ?? ""
const charts = []
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const shown = heads.flatMap((head, at) => head.dataset.chart === figure.dataset.chart ? [at] : [])
  const seconds = shown.length === 0 ? [] : column(0)
  if (seconds.length < 2 || seconds.includes(null)) continue
  figure.hidden = false
  const series = shown.map((at, place) => ({
    label: heads[at].textContent,
    value: told,
    stroke: () => "hsl(" + Math.round(place * 360 / shown.length) + " 65% " + color("--lines")() + ")",
    paths: uPlot.paths.stepped({ align: 1 })
  }))
  const options = {
    width: figure.clientWidth,
    height: 180,
    scales: { x: { time: false }, y: { range: (chart, least, most) => [0, Math.max(1, most)] } },
    axes: [axis, { ...axis, size: sized }],
    series: [{ label: "seconds", value: told }, ...series]
  }
  charts.push([figure, new uPlot(options, [seconds, ...shown.map(column)], figure)])
}
addEventListener("resize", () => {
  for (const [figure, chart] of charts) chart.setSize({ width: figure.clientWidth, height: 180 })
})
matchMedia("(prefers-color-scheme:dark)").addEventListener("change", () => {
  for (const [, chart] of charts) chart.redraw()
})
`

/** A file of uPlot, which draws the charts. A CommonJS bundle has no `import.meta.url`, but `require`. */
const uPlot = (file: string): string => {
  const from = import.meta.url === undefined ? require : createRequire(import.meta.url)
  return readFileSync(from.resolve(`uplot/${file}`), "utf8")
}

/** The script of a page without charts, and of one with them: uPlot's licence asks that it comes with each copy. */
export const scriptOf = (hasCharts: boolean): { readonly script: string; readonly style: string } =>
  hasCharts
    ? {
      script: `/*\n${uPlot("LICENSE")}\n*/\n${uPlot("dist/uPlot.iife.min.js")}${SCRIPT}`,
      style: `${uPlot("dist/uPlot.min.css")}${STYLE}`
    }
    : { script: SCRIPT, style: STYLE }
