import { afterAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { compareParked } from "../scx/compareParked.ts"
import { compileBpf, compilePark, HostLive, scratch } from "../support/guest.ts"
import { matrix } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"
import { compareSched } from "./compareSched.ts"

/** What is compared from 6.1 on; of these, the series whose stock kernels have no sched_ext. */
const series = matrix.filter((each) => each !== "5.10")
const WITHOUT_SCX = ["6.1", "6.12"]

/** On one CPU; then on two, and on four of two nodes with KASLR, under a scheduler where the kernel has sched_ext; then parked tasks. */
const compareAll = (series: string, bpftool: string) =>
  Effect.gen(function*() {
    const kernel = `debian:${series}-cloud`
    const directory = yield* scratch
    const scx = WITHOUT_SCX.includes(series)
      ? {}
      : {
        includes: [bpftool, ...yield* compileBpf(directory, "park"), yield* compilePark(directory)],
        before: `bpftool struct_ops register /include-files/park.bpf.o >/dev/null
          /include-files/park parks1 parks2 >/dev/null`
      }
    const topology = { nodes: 2, llcs: 2, cores: 2, threads: 1 }
    const one = yield* compareSched({ kernel, cpus: 1 })
    const two = yield* compareSched({ kernel, cpus: 2, ...scx })
    const four = yield* compareSched({ kernel, topology, kaslr: true, ...scx })
    const parked = WITHOUT_SCX.includes(series) ? "no scx" : yield* compareParked(kernel, bpftool)
    const all = [one, two, four]
    return [
      all.map(({ tasks }) => tasks).join("+"),
      all.map(({ domains }) => domains).join("+"),
      all.map(({ counters }) => counters).join("+"),
      parked
    ]
  }).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie)

describe("the scheduler's state is what /proc and /sys say in the guest", () => {
  const rows: Array<ReadonlyArray<unknown>> = [["kernel", "tasks", "domains", "counters", "parked", "differences"]]
  beforeEach(needsStockScx)
  afterAll(() => {
    const line = (row: ReadonlyArray<unknown>) => row.map((cell) => String(cell).padEnd(14)).join(" ").trimEnd()
    if (series.length > 0) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })
  if (series.length === 0) it.skip("on each kernel of the matrix: `npm run matrix` boots them")
  for (const each of series) {
    it.live(`on Debian's ${each}`, () =>
      Effect.gen(function*() {
        const { bpftool } = yield* stockScx
        const cells = yield* Effect.onError(
          compareAll(each, bpftool),
          () => Effect.sync(() => rows.push([each, "", "", "", "", "see the failure"]))
        )
        rows.push([each, ...cells, 0])
      }), 900_000)
  }
})
