import type { FailureDocument } from "./Failure.ts"
import { type Cell, cellHtml, millis, number, safe, section } from "./PageParts.ts"
import type { Sample } from "./Sample.ts"

/** CPUs that are shown, the first ones, and queues, those that were longest: more would be a page of hundreds of columns. */
const MOST_CPUS = 64
const MOST_QUEUES = 12

/** A column of the table of samples; `chart` is what it is drawn in. */
interface Column {
  readonly name: string
  readonly chart: "wait" | "cpus" | "queues"
  readonly cell: (sample: Sample) => Cell
}

/**
 * The guest before its failure, by its samples: what each CPU was busy with, charts that the page's script draws of the
 * table, and the table. Nothing where there are no samples.
 */
export const timelineHtml = ({ failure, samples = [] }: FailureDocument): string => {
  if (samples.length === 0) return ""
  const end = Date.parse(failure.at)
  const secondsOf = ({ at }: Sample): number => (Date.parse(at) - end) / 1000
  const columns = columnsOf(samples)
  const [cpus, queues] = [cpusOf(samples), queuesOf(samples)]
  const left = [
    ...cpus.length > MOST_CPUS ? [`${cpus.length - MOST_CPUS} more CPUs`] : [],
    ...queues.length > MOST_QUEUES ? [`${queues.length - MOST_QUEUES} more queues, which were shorter`] : []
  ]
  const figure = (chart: Column["chart"], title: string): string =>
    `<figure data-chart="${chart}" hidden><figcaption>${title}</figcaption></figure>`
  const head = columns.map(({ chart, name }) => `<th scope="col" data-chart="${chart}">${safe(name)}</th>`).join("")
  const rows = samples.map((sample) => {
    const seconds = secondsOf(sample)
    const cells = columns.map(({ cell }) => cellHtml(cell(sample))).join("")
    return `<tr>${cellHtml({ value: seconds, text: seconds.toFixed(1) })}${cells}</tr>`
  })
  return section(
    "Before the failure",
    `${stripsHtml(samples, cpus.slice(0, MOST_CPUS), secondsOf)}
${figure("cpus", "Tasks that run or wait, by CPU")}
${figure("queues", "Tasks in dispatch queues")}
${figure("wait", "Longest wait of a task of sched_ext, in milliseconds")}
<p class="soft">Seconds to the failure; of each CPU how many tasks ran or waited, and which ran; of each queue how many were in it${
      left.length === 0 ? "" : `; left out: ${left.join(", ")}`
    }</p>
<div class="wide tall" id="samples" tabindex="0" role="region" aria-label="Samples"><table><thead><tr><th scope="col">Seconds</th>${head}</tr></thead><tbody>
${rows.join("\n")}
</tbody></table></div>`
  )
}

const cpusOf = (samples: ReadonlyArray<Sample>): ReadonlyArray<number> =>
  [...new Set(samples.flatMap(({ cpus }) => cpus.map(({ cpu }) => cpu)))].sort((one, other) => one - other)

/** Names of the queues, that which was longest first. */
const queuesOf = (samples: ReadonlyArray<Sample>): ReadonlyArray<string> => {
  const longest = new Map<string, number>()
  for (const { name, nr } of samples.flatMap(({ queues }) => queues)) {
    longest.set(name, Math.max(nr, longest.get(name) ?? 0))
  }
  return [...longest].sort(([, one], [, other]) => other - one).map(([name]) => name)
}

const columnsOf = (samples: ReadonlyArray<Sample>): ReadonlyArray<Column> => [
  ...samples.some(({ oldest }) => oldest !== null)
    ? [{ name: "Longest wait", chart: "wait" as const, cell: ({ oldest }: Sample) => millis(oldest?.millis) }]
    : [],
  ...cpusOf(samples).slice(0, MOST_CPUS).map((cpu): Column => ({
    name: `CPU ${cpu}`,
    chart: "cpus",
    cell: ({ cpus }) => {
      const found = cpus.find((one) => one.cpu === cpu)
      return found === undefined ? "" : { value: found.nr_running, text: `${found.nr_running} ${found.runs}` }
    }
  })),
  ...queuesOf(samples).slice(0, MOST_QUEUES).map((name): Column => ({
    name,
    chart: "queues",
    cell: ({ problems, queues, scheduler }) => {
      const isRead = scheduler !== null && !problems.some(({ part }) => part === "queues")
      return number(queues.find((queue) => queue.name === name)?.nr ?? (isRead ? 0 : undefined)) // the empty ones are left out
    }
  }))
]

/** The state of a CPU as a strip's color. */
const stateOf = ({ nr_running, runs }: Sample["cpus"][number]): "" | "busy" | "waits" | "left" => {
  if (runs === "idle") return nr_running > 0 ? "left" : ""
  return nr_running > 1 ? "waits" : "busy"
}

/** A strip for each CPU: when a task ran, when others waited behind it, and when it was idle though tasks waited. */
const stripsHtml = (
  samples: ReadonlyArray<Sample>,
  cpus: ReadonlyArray<number>,
  secondsOf: (sample: Sample) => number
): string => {
  const start = secondsOf(samples[0])
  const [from, to] = Number.isFinite(start) ? [start, Math.max(start + 0.001, 0)] : [0, 1]
  const at = (sample: Sample | undefined): number => {
    const seconds = sample === undefined ? to : secondsOf(sample)
    return Number.isFinite(seconds) ? Math.round((seconds - from) / (to - from) * 1000) : 0
  }
  const strips = cpus.map((cpu) => {
    const states = samples.map(({ cpus }) => {
      const found = cpus.find((one) => one.cpu === cpu)
      return found === undefined ? "" : stateOf(found)
    })
    const rects = states.flatMap((state, first) => {
      if (state === "" || states[first - 1] === state) return []
      const behind = states.findIndex((other, place) => place > first && other !== state)
      const x = at(samples[first])
      return [`<rect class="${state}" x="${x}" width="${at(samples[behind]) - x}" height="10"/>`]
    })
    const label = `CPU ${cpu}: a task ran in ${
      states.filter((state) => state === "busy" || state === "waits").length
    } of ${states.length} samples`
    return `<span>CPU ${cpu}</span><svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="${label}">${
      rects.join("")
    }</svg>`
  })
  return `<p><span class="busy" aria-hidden="true">■</span> a task runs <span class="waits" aria-hidden="true">■</span> others wait for the CPU, too <span class="left" aria-hidden="true">■</span> it is idle, but a task waits</p>
<div class="strips">${strips.join("\n")}</div>
<p class="soft ends"><span>${-from.toFixed(1)} s before</span><span>the failure</span></p>`
}
