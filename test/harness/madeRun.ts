import type { RunRecord } from "../../src/harness/claim/RunRecord.ts"

const work = (units: number, cpu: number | null, gap: number) => ({
  units,
  cpu,
  wait: 0,
  runs: 1,
  gap: { max: gap, at: 0, cpu: 0 },
  migrations: 0,
  cpus: "0"
})
/** What a group did in a phase, by one worker. */
export const group = (units: number, cpu: number | null, gap: number) => ({
  ...work(units, cpu, gap),
  cpuStat: cpu,
  workers: [{ worker: 0, ...work(units, cpu, gap) }]
})
export const phase = (name: string, a: ReturnType<typeof group>, b: ReturnType<typeof group>, complete = true) => ({
  name,
  from: 0,
  to: 1e9,
  complete,
  groups: { a, b }
})

/** A run with two groups and two phases. */
export const made: RunRecord = {
  schema: "ktstr.run/1",
  test: "made",
  determinismKey: "0",
  seed: 1,
  mode: { mode: "exact", why: "asked for", qemu: "10.0.2", clock: { shift: 2, sliceMicros: 100 } },
  kernel: { id: "6.12", release: "6.12.0", sha256: "0" },
  machine: { cpus: 2, nodes: 1, llcs: 1, cores: 2, threads: 1, memoryMib: 512 },
  scenario: {
    version: 1,
    name: "made",
    groups: { a: {}, b: {} },
    steps: [{ name: "x", hold: "1 second" }, { name: "y", hold: "1 second" }]
  },
  claims: [],
  scheduler: {
    name: "s",
    path: "/s",
    sha256: "0",
    arguments: [],
    ops: "s",
    attach: 4e8,
    expected: null,
    attachLimit: 1e10,
    switchAll: true,
    cpu: 1e6,
    gone: null,
    attached: "yes",
    atEnd: true,
    status: null,
    exits: [],
    log: []
  },
  payloads: {},
  phases: [
    phase("x", group(10, 2e8, 5e6), group(5, 1e8, 9e6)),
    phase("y", group(20, 2e8, 7e6), group(5, 1e8, 1e6))
  ],
  latencies: { a: { count: 3, p50: 1000, p99: 2000, max: 3000 }, b: { count: 0, p50: null, p99: null, max: null } },
  operations: [],
  lostWorkers: [],
  kernelLog: [],
  end: { how: "done", at: 2e9, why: null },
  damage: null,
  verdict: { outcome: "inconclusive", details: [] },
  host: { id: "x", startedAt: "", wallMillis: 1, ktstr: "0.1.0", directory: null, dump: null }
}
