import { createHash } from "node:crypto"
import { plural } from "../core/Plural.ts"
import { formatReason, type Reason } from "../core/Reason.ts"
import { queueName } from "../sched/Findings.ts"
import { stuckTask, waitingLongest } from "./Explain.ts"
import type { FailureDocument } from "./Failure.ts"
import { block, type Cell, millis, ms, number, safe, section, tableHtml } from "./PageParts.ts"
import { scriptOf } from "./PageScript.ts"
import { timelineHtml } from "./PageTimeline.ts"

/**
 * A failure as a page of HTML: one file that needs no network, and whose text is all there without JavaScript, which sorts
 * and searches its tables, and draws charts. No script but its own may run in it, whatever the guest wrote.
 *
 * @since 0.1.0
 * @category rendering
 */
export const failurePage = (document: FailureDocument): string => {
  const { console, failure, kernel, log } = document
  const timeline = timelineHtml(document)
  const { script, style } = scriptOf(timeline !== "")
  const hash = createHash("sha256").update(script).digest("base64")
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'; base-uri 'none'`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${safe(`${failure.kind}: ${failure.text}`.slice(0, 120))}</title><style>${style}</style></head>
<body><main>
<h1>${safe(`${failure.kind}: ${failure.text}`)}</h1>
<p class="soft">${safe(`${failure.at}${kernel === null ? "" : ` · kernel ${kernel.release}`}`)}</p>
${summary(document)}
${timeline}
<script>${script}</script>
${schedHtml(document)}
${section("Kernel log", block(log.lines.map(({ atMicros, text }) => `${stamp(atMicros)}${text}`)))}
${section("Console", block(console))}
${section("BPF maps", mapsHtml(document))}
${lossesHtml(document)}
${tasksHtml(document)}
</main></body></html>
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

const notRead = (why: Reason): string => `<p>Not read: ${safe(formatReason(why))}</p>`

/** A table of what was read, or in its place why it was not. */
const tableOf = <A>(
  title: string,
  head: ReadonlyArray<string>,
  all: ReadonlyArray<A> | Reason,
  row: (one: A) => ReadonlyArray<Cell>
): string => "kind" in all ? notRead(all) : tableHtml(title, head, all.map(row))

const schedHtml = (document: FailureDocument): string => {
  const { sched, vcpus } = document
  const stood = new Map("kind" in vcpus ? [] : vcpus.map((vcpu) => [vcpu.cpu, vcpu]))
  if ("kind" in sched) return section("Scheduler", notRead(sched))
  const { dispatchQueues, runQueues, scx } = sched
  return [
    section(
      "CPUs",
      tableOf(
        "CPUs",
        ["CPU", "Runs", "Class", "Runnable", "In ext", "Switches", "Stood at", "Called by"],
        runQueues,
        ({ cpu, curr, nr_running, nr_switches, scx }) => [
          number(cpu),
          curr === undefined ? "" : curr.class === "idle" ? "idle" : `${curr.comm}[${curr.pid}]`,
          curr?.class ?? "",
          number(nr_running),
          number(scx?.nr_running),
          number(nr_switches),
          stood.get(cpu)?.place ?? stood.get(cpu)?.mode ?? "",
          stood.get(cpu)?.callers.map((caller) => caller.replace(/\+.*/, "")).join(" < ") ?? ""
        ]
      ) + ("kind" in vcpus ? `<p>Registers: ${safe(formatReason(vcpus))}</p>` : "")
    ),
    section(
      "Dispatch queues",
      tableOf(
        "Dispatch queues",
        ["Queue", "Tasks", "First", "Longest wait"],
        "kind" in dispatchQueues
          ? dispatchQueues
          : dispatchQueues.filter(({ kind, nr }) => kind === "user" || nr !== 0),
        (queue) => [
          queueName(queue),
          number(queue.nr),
          queue.tasks.length === 0 ? "" : `${queue.tasks[0].comm}[${queue.tasks[0].pid}]`,
          queue.tasks.length === 0
            ? ""
            : millis(queue.tasks.reduce((longest, { waitingMillis }) => Math.max(longest, waitingMillis ?? 0), 0))
        ]
      )
    ),
    ...("kind" in scx ?
      [section("sched_ext", notRead(scx))] :
      scx.schedulers.flatMap(({ exitInfo, name }) =>
        exitInfo?.dump === undefined
          ? []
          : [section(`The kernel's own dump of ${name}`, block(exitInfo.dump.split("\n")))]
      ))
  ].join("\n")
}

/** The longest part, so the last: as long as it is not scrolled to, a browser need not lay it out. */
const tasksHtml = (document: FailureDocument): string => {
  const { sched } = document
  if ("kind" in sched) return ""
  if ("kind" in sched.tasks) return section("Tasks", notRead(sched.tasks))
  const waits = new Map(waitingLongest(document).map(({ millis, task }) => [task.address, millis]))
  return section(
    "Tasks",
    `<input id="search" type="search" aria-label="search tasks" placeholder="search tasks" hidden><div id="tasks">${
      tableHtml(
        "Tasks",
        ["PID", "Name", "State", "Class", "CPU", "CPUs", "Waits", "Sleeps in"],
        sched.tasks.map((task) => [
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
  )
}

const lossesHtml = ({ losses, problems }: FailureDocument): string =>
  losses === 0 && problems.length === 0 ? "" : section(
    "Not read whole",
    block([
      ...problems.map(formatReason),
      ...(losses === 0 ? [] : [`${plural(losses, "part")} could not be read whole`])
    ])
  )

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
