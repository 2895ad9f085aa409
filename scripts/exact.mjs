// Whether exact mode holds on a busy host: beside `stress-ng --cpu 4`, on 1, 2 and 4 CPUs or the machines named, ten runs of
// one seed must be the same to the byte but for the host's clock, and ten seeds must give at least eight schedules.
// npm run exact -- KERNEL [SCHEDULER [RUNS [TOPOLOGY…]]]; needs stress-ng and what `ktstr qemu fetch` gets.
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const [kernel = "6.12", scheduler, runs = "10", ...named] = process.argv.slice(2)
const LEAST_SCHEDULES = 0.8
/** 2, 1 and 4 CPUs. */
const TOPOLOGIES = named.length > 0 ? named : ["1,1,2,1", "1,1,1,1", "1,1,4,1"]
const ktstr = new URL("../dist/bin/ktstr.cjs", import.meta.url).pathname
const scenario = {
  version: 1,
  name: "short",
  groups: {
    spin: { workers: { perCpu: 1 }, work: { type: "spin" } },
    pipe: { workers: 2, work: { type: "pipe" } },
    timer: { workers: 4, work: { type: "timer", interval: "10 millis" } }
  },
  steps: [{ name: "run", hold: "300 millis" }]
}

const directory = mkdtempSync(join(tmpdir(), "ktstr-exact-"))
const file = join(directory, "short.json")
writeFileSync(file, JSON.stringify(scenario))
const load = spawn("stress-ng", ["--cpu", "4", "--quiet"], { stdio: "inherit" })
load.on("error", ({ message }) => {
  console.error(`exact: the load: ${message}; apt-get install stress-ng`)
  process.exit(3)
})

/** Run cells; gives their records, and ends this program where the command itself failed. */
const recordsOf = (...options) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      ktstr,
      "run",
      "--kernel",
      kernel,
      "--mode",
      "exact",
      "--scenario",
      file,
      "--json",
      "--runs-dir",
      join(directory, "runs"),
      ...(scheduler === undefined ? [] : ["--scheduler", scheduler]),
      ...options
    ],
    { encoding: "utf8", maxBuffer: 2 ** 30 }
  )
  const records = stdout.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line))
  if (status !== 0) console.error(`status ${status}: ${stderr.trimEnd().split("\n").at(-1)}`)
  return { status, records }
}

let failed = false
const say = (holds, text) => {
  failed ||= !holds
  console.log(`${holds ? "ok  " : "FAIL"}  ${text}`)
}
const distinct = (values) => new Set(values).size
try {
  for (const topology of TOPOLOGIES) {
    const on = `machine ${topology}`
    const again = recordsOf("--topology", topology, "--repeat", runs)
    const texts = again.records.map((record) => JSON.stringify({ ...record, host: null }))
    const keys = distinct(again.records.map(({ determinismKey }) => determinismKey))
    say(
      again.status === 0 && texts.length === Number(runs) && keys === 1 && distinct(texts) === 1,
      `${on}: ${texts.length} runs of one seed: ${keys} determinism key, ${distinct(texts)} record`
    )
    const seeds = recordsOf("--topology", topology, "--seeds", runs)
    const schedules = distinct(seeds.records.map(({ phases }) => JSON.stringify(phases)))
    say(
      seeds.status === 0 && schedules >= LEAST_SCHEDULES * Number(runs),
      `${on}: ${seeds.records.length} seeds: ${schedules} schedules`
    )
  }
} finally {
  load.kill()
  rmSync(directory, { recursive: true })
}
process.exitCode = failed ? 1 : 0
