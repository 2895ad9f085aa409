// Bundled, and run as a process of its own: tries cases on an image, and says on stdout which one it is at, each as a line
// of JSON, and in the end what came of all. A case that hangs or uses up all memory is thus the last one it spoke of.
import { readFileSync, writeSync } from "node:fs"
import { Cases } from "./Cases.ts"
import type { Line, Report } from "./Line.ts"

const [path, seed, first, step, count] = process.argv.slice(2).map((text, index) => index === 0 ? text : Number(text))
const say = (line: Line): void => void writeSync(1, `${JSON.stringify(line)}\n`)

const cases = await Cases.make(new Uint8Array(readFileSync(String(path))))
const peak = (): number => process.resourceUsage().maxRSS
const before = peak()
const tries: Record<string, number> = {}
let changed = 0
let slowest: Report["slowest"] = { millis: 0, number: -1, task: "" }
for (let number = Number(first); number < Number(count); number += Number(step)) {
  say({ trying: number })
  const start = process.cpuUsage()
  const { failure, task, changed: isChanged } = await cases.try(Number(seed), number)
  const { system, user } = process.cpuUsage(start)
  const millis = Math.round((system + user) / 1000)
  if (failure !== null) say({ number, task, failure })
  if (isChanged) changed++
  if (millis > slowest.millis) slowest = { millis, number, task }
  tries[task] = (tries[task] ?? 0) + 1
}
const report: Report = {
  tasks: cases.names,
  round: cases.round,
  tries,
  changed,
  slowest,
  grownMib: Math.round((peak() - before) / 1024),
  peakMib: Math.round(peak() / 1024),
  notUndone: await cases.notUndone()
}
say(report)
