import { createHash } from "node:crypto"
import { escapeText } from "../core/EscapeText.ts"
import { formatReason } from "../core/Reason.ts"
import { queueName } from "../sched/Findings.ts"
import { stuckTask, waitingLongest } from "./Explain.ts"
import type { FailureDocument } from "./Failure.ts"

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&#39;"
}

/** Text of a guest in a page: neither markup, nor anything that hides or reorders what stands beside it. */
const safe = (text: string): string => escapeText(text).replaceAll(/[&<>"']/g, (character) => ENTITIES[character])

/** Lines of a guest: each is escaped, the breaks between them stay. */
const block = (lines: ReadonlyArray<string>): string => `<pre tabindex="0">${lines.map(safe).join("\n")}</pre>`

/** A cell: text, or a number with the text that shows it. */
type Cell = string | { readonly value: number; readonly text: string }

const ms = (value: number): string => value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`
const millis = (value: number | undefined): Cell => value === undefined ? "" : { value, text: ms(value) }
const number = (value: number | string | undefined): Cell =>
  value === undefined ? "" : { value: Number(value), text: String(value) }

const cellHtml = (cell: Cell): string =>
  typeof cell === "string"
    ? `<td>${safe(cell)}</td>`
    : `<td class="n" data-value="${cell.value}">${safe(cell.text)}</td>`

/** A table whose heads sort it, where JavaScript runs. */
const tableHtml = (title: string, head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<Cell>>): string => {
  if (rows.length === 0) return `<p>none</p>`
  const heads = head.map((name) => `<th scope="col">${safe(name)}</th>`).join("")
  const body = rows.map((row) => `<tr>${row.map(cellHtml).join("")}</tr>`).join("\n")
  return `<div class="wide" tabindex="0" role="region" aria-label="${
    safe(title)
  }"><table class="sortable"><thead><tr>${heads}</tr></thead><tbody>\n${body}\n</tbody></table></div>`
}

const section = (title: string, html: string): string => `<section><h2>${safe(title)}</h2>\n${html}\n</section>`

const STYLE = `
:root{color-scheme:light dark;--text:#1b1f24;--page:#fff;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--page:#0d1117;--soft:#9aa4af;--line:#30363d;--box:#161b22;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1rem;font:15px/1.45 system-ui,sans-serif;color:var(--text);background:var(--page)}
h1{font-size:1.25rem;color:var(--bad);overflow-wrap:anywhere;margin:.2rem 0}
h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p{margin:.3rem 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.15rem .6rem .15rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
td.n{text-align:right}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--soft)}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
pre{background:var(--box);border:1px solid var(--line);padding:.6rem;overflow:auto;max-height:30rem;font-size:13px}
input{font:inherit;padding:.2rem .4rem;margin:.3rem 0;border:1px solid var(--line);background:var(--box);color:var(--text);max-width:100%}
`

/** Sorts and searches tables; the page is whole without it. */
const SCRIPT = `
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
search.hidden = false
search.addEventListener("input", () => {
  const wanted = search.value.toLowerCase()
  for (const row of document.querySelectorAll("#tasks tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted)
})
`
const SCRIPT_HASH = createHash("sha256").update(SCRIPT).digest("base64")

/**
 * A failure as a page of HTML: one file that needs no network, and whose text is all there without JavaScript, which sorts
 * and searches its tables. No script but its own may run in it, whatever the guest wrote.
 *
 * @since 0.1.0
 * @category rendering
 */
export const failurePage = (document: FailureDocument): string => {
  const { console, failure, kernel, log } = document
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${SCRIPT_HASH}'; base-uri 'none'`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${safe(`${failure.kind}: ${failure.text}`.slice(0, 120))}</title><style>${STYLE}</style></head>
<body><main>
<h1>${safe(`${failure.kind}: ${failure.text}`)}</h1>
<p class="soft">${safe(`${failure.at}${kernel === null ? "" : ` · kernel ${kernel.release}`}`)}</p>
${summary(document)}
${schedHtml(document)}
${section("Kernel log", block(log.lines.map(({ atMicros, text }) => `${stamp(atMicros)}${text}`)))}
${section("Console", block(console))}
${section("BPF maps", mapsHtml(document))}
</main><script>${SCRIPT}</script></body></html>
`
}

const stamp = (micros: number | null): string => micros === null ? "" : `[${(micros / 1e6).toFixed(6).padStart(12)}] `

const summary = (document: FailureDocument): string => {
  const { degraded, early, log, sched } = document
  const stuck = stuckTask(document)
  const [longest] = waitingLongest(document)
  return [
    ...(degraded === null ? [] : [`Not read: ${formatReason(degraded)}`]),
    ...(stuck === undefined
      ? []
      : [
        `Stuck: ${stuck.comm}[${stuck.pid}], runnable for ${ms(stuck.millis)}, ${stuck.early ? "was" : "is"} ${
          stuck.place ?? "not there any more"
        }`
      ]),
    ...log.exits.filter(({ kind }) => kind !== "normal").map(({ message, reason, scheduler }) =>
      `The kernel: scheduler ${scheduler} disabled (${reason})${message === null ? "" : `: ${message}`}`
    ),
    ...(longest === undefined || longest.task.pid === stuck?.pid
      ? []
      : [`Waits longest: ${longest.task.comm}[${longest.task.pid}], for ${ms(longest.millis)}`]),
    ...("kind" in sched ? [] : sched.findings.map(({ text }) => `Looks wrong: ${text}`)),
    ...(early === undefined ? [] : [
      `Before the failure, ${early.at}: ${early.text}`,
      ...("kind" in early.reading
        ? [`Not read: ${formatReason(early.reading)}`]
        : "kind" in early.reading.sched
        ? []
        : early.reading.sched.findings.map(({ text }) => `Looked wrong: ${text}`))
    ]),
    ...(log.problem === null ? [] : [`Log: ${formatReason(log.problem)}`])
  ].map((line) => `<p>${safe(line)}</p>`).join("\n")
}

const schedHtml = (document: FailureDocument): string => {
  const { sched, vcpus } = document
  const stood = new Map("kind" in vcpus ? [] : vcpus.map((vcpu) => [vcpu.cpu, vcpu]))
  if ("kind" in sched) return section("Scheduler", `<p>${safe(formatReason(sched))}</p>`)
  const waits = new Map(waitingLongest(document).map(({ millis, task }) => [task.address, millis]))
  const runQueues = "kind" in sched.runQueues ? [] : sched.runQueues
  const queues = "kind" in sched.dispatchQueues ? [] : sched.dispatchQueues
  const tasks = "kind" in sched.tasks ? [] : sched.tasks
  return [
    section(
      "CPUs",
      tableHtml(
        "CPUs",
        ["CPU", "Runs", "Class", "Runnable", "In ext", "Switches", "Stood at"],
        runQueues.map(({ cpu, curr, nr_running, nr_switches, scx }) => [
          number(cpu),
          curr === undefined ? "" : curr.class === "idle" ? "idle" : `${curr.comm}[${curr.pid}]`,
          curr?.class ?? "",
          number(nr_running),
          number(scx?.nr_running),
          number(nr_switches),
          stood.get(cpu)?.place ?? stood.get(cpu)?.mode ?? ""
        ])
      )
    ),
    section(
      "Dispatch queues",
      tableHtml(
        "Dispatch queues",
        ["Queue", "Tasks", "First", "Longest wait"],
        queues.filter(({ kind, nr }) => kind === "user" || nr !== 0).map((queue) => [
          queueName(queue),
          number(queue.nr),
          queue.tasks.length === 0 ? "" : `${queue.tasks[0].comm}[${queue.tasks[0].pid}]`,
          queue.tasks.length === 0
            ? ""
            : millis(queue.tasks.reduce((longest, { waitingMillis }) => Math.max(longest, waitingMillis ?? 0), 0))
        ])
      )
    ),
    section(
      "Tasks",
      `<input id="search" type="search" aria-label="search tasks" placeholder="search tasks" hidden><div id="tasks">${
        tableHtml(
          "Tasks",
          ["PID", "Name", "State", "Class", "CPU", "CPUs", "Waits", "Sleeps in"],
          tasks.map((task) => [
            number(task.pid),
            task.comm,
            task.state,
            task.class,
            number(task.cpu),
            task.cpus_ptr ?? "",
            millis(waits.get(task.address)),
            task.wchan ?? ""
          ])
        )
      }</div>`
    ),
    ...("kind" in sched.scx ? [] : sched.scx.schedulers).flatMap(({ exitInfo, name }) =>
      exitInfo?.dump === undefined
        ? []
        : [section(`The kernel's own dump of ${name}`, block(exitInfo.dump.split("\n")))]
    )
  ].join("\n")
}

const mapsHtml = ({ maps }: FailureDocument): string =>
  tableHtml(
    "BPF maps",
    ["ID", "Name", "Type", "Entries", "Problem"],
    maps.map(({ entries, id, name, problem, truncated, type }) => [
      number(id),
      name,
      type,
      { value: entries.length, text: `${entries.length}${truncated ? "+" : ""}` },
      problem === null ? "" : formatReason(problem)
    ])
  )
