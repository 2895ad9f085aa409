import { plural } from "../../core/Plural.ts"
import { formatReason, type Reason } from "../../core/Reason.ts"
import type { LogLine } from "../../host/KernelLog.ts"
import { stuckTask } from "../../monitor/Explain.ts"
import type { FailureDocument } from "../../monitor/Failure.ts"
import type { Moment } from "../../monitor/moments/Moment.ts"
import type { Reading } from "../../monitor/moments/Reading.ts"
import { headerText } from "../maps/present.ts"
import { dsqsText, showText, tasksText } from "../sched/schedText.ts"
import { bold, dim, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** Lines of the log on the first screen. */
const FIRST_LINES = 4
/** Callers of the function that a CPU stood at there; the file has more. */
const MOST_CALLERS = 3

const heading = (text: string): string => `\n${bold(text)}\n`

/** A failure for people: one screen that says what failed and why, the details behind it. */
export const failureText = (document: FailureDocument): string => {
  const { degraded, sched } = document
  return [
    headText(document),
    degraded === null ? "" : notRead(degraded),
    stuckText(document),
    wordsText(document),
    vcpuText(document),
    "kind" in sched ? "" : `\n${showText(sched)}`,
    earlyText(document),
    ...details(document)
  ].join("")
}

/** A snapshot of a guest that went on. */
export const momentText = ({ at, name, pauseMillis, reading, text }: Moment): string => {
  const title = `${bold(escapeLine(name))}  ${escapeLine(text)}\n${dim(escapeLine(at))}\n`
  if ("kind" in reading) return `${title}${notRead(reading)}`
  return [
    title,
    dim(pauseMillis === null ? "" : `the guest stood still for ${duration(pauseMillis)}\n`),
    vcpuText(reading),
    "kind" in reading.sched ? yellow(`${escapeLine(formatReason(reading.sched))}\n`) : `\n${showText(reading.sched)}`,
    ...readingDetails(reading),
    ...lossLines(reading)
  ].join("")
}

const headText = ({ failure, freeze, kernel, source }: FailureDocument): string => {
  const title = `${red(bold(failure.kind))}  ${escapeLine(failure.text)}\n`
  const noticed = {
    memory: "in the running guest's memory",
    console: "on its console",
    report: "by its init",
    host: "by the host"
  }
  const when = dim(`${escapeLine(failure.at)} · noticed ${noticed[failure.seenIn]}\n`)
  return title + when
    + (kernel === null ? "" : headerText({ schema: "single", version: 2, source, kernel, freeze }).replace(/\n$/, ""))
}

const stuckText = (document: FailureDocument): string => {
  const stuck = stuckTask(document)
  if (stuck === undefined) return ""
  const { comm, early, millis, pid, place, task } = stuck
  const allowed = task?.cpus_ptr === undefined ? "" : `; it may run on CPUs ${task.cpus_ptr}`
  return `${bold(`stuck: ${escapeLine(comm)}[${pid}]`)} has been runnable for ${duration(millis)}: it ${
    early ? "was" : "is"
  } ${place === undefined ? "not there any more" : escapeLine(place)}${escapeLine(allowed)}\n`
}

const earlyText = ({ early }: FailureDocument): string => {
  if (early === undefined) return ""
  const { at, reading, text } = early
  const title = heading(`before the failure, ${escapeLine(at)}: ${escapeLine(text)}`)
  if ("kind" in reading) return `${title}${notRead(reading)}`
  return `${title}${"kind" in reading.sched ? `${escapeLine(formatReason(reading.sched))}\n` : showText(reading.sched)}`
}

const lineText = ({ atMicros, text }: LogLine): string =>
  `${atMicros === null ? "" : dim(`[${(atMicros / 1e6).toFixed(6).padStart(12)}] `)}${escapeLine(text)}\n`

/** The kernel's words about a scheduler's end; of another failure its last words, where it may have some about it. */
const wordsText = ({ failure, log }: FailureDocument): string => {
  const why = log.problem === null ? "" : `${yellow(escapeLine(formatReason(log.problem)))}\n`
  // an end without an error is news where none was noticed: the script failed, and its scheduler was gone
  const exits = failure.kind === "scheduler" ? log.exits.filter(({ kind }) => kind !== "normal") : log.exits
  const ends = exits.map(({ message, reason, scheduler, stack }) =>
    `the kernel: ${escapeLine(`${scheduler} disabled (${reason})${message === null ? "" : `: ${message}`}`)}${
      stack.length === 0 ? "" : dim(` from ${escapeLine(stack.slice(0, 3).map(({ name }) => name).join(" < "))}`)
    }\n`
  )
  if (failure.kind === "scheduler" || failure.kind === "rule") return ends.join("") + why
  return ends.join("") + why + log.lines.slice(-FIRST_LINES).map(lineText).join("")
}

const vcpuText = ({ vcpus }: Reading): string =>
  "kind" in vcpus
    ? `registers: ${dim(escapeLine(formatReason(vcpus)))}\n`
    : heading("CPUs stood at") + table(
      ["CPU", "MODE", "RIP", "FUNCTION", "CALLED BY"],
      vcpus.map(({ callers, cpu, mode, place, registers }) => [
        String(cpu),
        mode,
        escapeLine(registers["rip"] ?? registers["pc"] ?? ""),
        escapeLine(place ?? (mode === "user" ? "user space" : "a module or a BPF program")),
        dim(escapeLine(callers.slice(0, MOST_CALLERS).map((caller) => caller.replace(/\+.*/, "")).join(" < ")))
      ]),
      [0]
    )

const notRead = (why: Reason): string => yellow(`not read: ${escapeLine(formatReason(why))}\n`)

const readingDetails = ({ links, maps, programs, sched }: Reading) => [
  ...("kind" in sched ? [] : [
    heading("tasks"),
    "kind" in sched.tasks
      ? notRead(sched.tasks)
      : tasksText(sched.tasks, { ...sched.time, ticks: BigInt(sched.time.jiffies) }, sched),
    heading("dispatch queues with tasks"),
    "kind" in sched.dispatchQueues
      ? notRead(sched.dispatchQueues)
      : dsqsText(sched.dispatchQueues.filter(({ tasks }) => tasks.length > 0))
  ]),
  heading("BPF maps"),
  maps.length === 0 ? "none\n" : table(
    ["ID", "NAME", "TYPE", "ENTRIES", ""],
    maps.map(({ entries, id, name, problem, truncated, type }) => [
      String(id),
      escapeLine(name),
      escapeLine(type),
      `${entries.length}${truncated ? "+" : ""}`,
      problem === null ? "" : escapeLine(formatReason(problem))
    ]),
    [0, 3]
  ),
  dim(
    `${plural(programs.length, "program")}${
      "kind" in links ? "" : `, ${plural(links.length, "link")}`
    }; the file has them, and all entries\n`
  ),
  ..."kind" in links ? [`links: ${notRead(links)}`] : []
]

const details = (document: FailureDocument) => [
  ...readingDetails(document),
  heading("kernel log"),
  ...document.log.lines.map(lineText),
  heading("console"),
  ...document.console.map((line) => `${escapeLine(line)}\n`),
  ...lossLines(document)
]

const lossLines = ({ losses, problems }: Reading) => [
  ...problems.map((problem) => yellow(`problem: ${escapeLine(formatReason(problem))}\n`)),
  losses === 0 ? "" : yellow(`incomplete: ${plural(losses, "part")} could not be read whole\n`)
]
