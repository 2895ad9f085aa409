// Prints what we promise about speed, measured in this run, beside its limit.
//     npm run bench -- [--list] [--only ROW]… [--json] [--against FILE] [--images DIR]
// --only: these rows alone. --json: a document on stdout in place of the table; kept in a file, it is what --against
// compares with. --images: keep the memory images there, and use those that are there already.
import CliTable from "cli-table3"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import { Images } from "./images.mjs"
import { here } from "./measure.mjs"
import { rowsOf } from "./rows.mjs"

/** A change below this, in percent, is noise. */
const NOISE = 3

process.on("SIGINT", () => process.exit(130))
process.on("SIGTERM", () => process.exit(143))

const fail = (message) => {
  console.error(`bench: ${message}`)
  process.exit(2)
}

const { values: options } = parseArgs({
  options: {
    list: { type: "boolean", default: false },
    only: { type: "string", multiple: true, default: [] },
    json: { type: "boolean", default: false },
    against: { type: "string" },
    images: { type: "string" }
  }
})
const before = options.against === undefined ? undefined : JSON.parse(readFileSync(options.against, "utf8"))
if (before !== undefined && before.schema !== "ktstr-bench") {
  fail(`${options.against} is not a run of this bench: make one with --json`)
}

const rows = rowsOf(new Images(options.images))
const unknown = options.only.filter((name) => rows.every((row) => row.name !== name))
if (unknown.length > 0) {
  fail(`no row ${unknown.join(", ")}; there are ${rows.map(({ name }) => name).join(", ")}`)
}

/** How much worse, in percent of the run before; negative: better. */
const worseBy = ({ better, value }, old) => (better === "less" ? value / old - 1 : old / value - 1) * 100

const number = (value) =>
  value >= 100_000 ? `${Math.round(value / 1000)}k` : value >= 100 ? `${Math.round(value)}` : value.toPrecision(2)
const amount = (value, unit) => `${number(value)} ${unit}`

const table = (results) => {
  const head = ["what", "measured", "limit", ...(before === undefined ? [] : ["before", "change"])]
  const shown = new CliTable({ head, style: { head: [], border: [] } })
  for (const result of results) {
    const { better, id, limit, skipped, unit, value, what } = result
    if (skipped !== undefined) {
      shown.push([what, `skipped: ${skipped}`, "", ...(before === undefined ? [] : ["", ""])])
      continue
    }
    const kept = limit === null || (better === "less" ? value <= limit : value >= limit)
    const cells = [what, amount(value, unit), limit === null ? "" : `${amount(limit, unit)} ${kept ? "ok" : "MISSED"}`]
    if (before !== undefined) {
      const old = before.results.find((each) => each.id === id)
      const worse = old?.value === undefined ? undefined : worseBy(result, old.value)
      cells.push(
        old?.value === undefined ? "not measured" : amount(old.value, unit),
        worse === undefined ?
          "" :
          `${Math.abs(worse).toFixed(1)} % ${worse < 0 ? "better" : "worse"}${worse > NOISE ? ": WORSE" : ""}`
      )
    }
    shown.push(cells)
  }
  return shown.toString()
}

if (options.list) { for (const { name } of rows) console.log(name) }
else {
  const results = []
  for (const { name, run } of rows.filter((row) => options.only.length === 0 || options.only.includes(row.name))) {
    process.stderr.write(`bench: ${name}\n`)
    results.push(...await run())
  }
  const git = (...args) => execFileSync("git", ["-C", here(".."), ...args], { encoding: "utf8" }).trim()
  console.log(
    options.json
      ? JSON.stringify({
        schema: "ktstr-bench",
        version: 1,
        at: new Date().toISOString(),
        commit: `${git("rev-parse", "--short", "HEAD")}${git("status", "--porcelain") === "" ? "" : " and changes"}`,
        node: process.version,
        cpu: `${cpus().length} × ${cpus()[0].model}`,
        results
      })
      : table(results)
  )
}
