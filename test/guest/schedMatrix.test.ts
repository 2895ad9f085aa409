import { afterAll, assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { compareParked } from "../scx/compareParked.ts"
import { compileBpf, compilePark, HostLive, scratch } from "../support/guest.ts"
import { matrix, seriesOf } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"
import { compareSched } from "./compareSched.ts"

/** What is compared, from 6.1 on; and the series whose stock kernels have no sched_ext. */
const kernels = matrix.filter((name) => seriesOf(name) !== "5.10")
const WITHOUT_SCX = ["6.1", "6.12"]
/**
 * In 7.1 and 7.2 as Debian builds them no scheduler can make a queue: the verifier says "cannot find function
 * scx_bpf_create_dsq_impl in BTF", and libbpf that its prototype has an argument more. There tasks are parked in the others.
 */
const WITHOUT_QUEUES = ["7.1", "7.2"]

/** On one CPU; then on two, and on four of two nodes with KASLR, under a scheduler where the kernel has sched_ext; then parked tasks. */
const compareAll = (name: string, bpftool: string) =>
  Effect.gen(function*() {
    const kernel = `debian:${name}`
    const directory = yield* scratch
    const bare = WITHOUT_SCX.includes(seriesOf(name))
    const scx = bare
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
    for (const { sched } of bare ? [] : [two, four]) assert.deepInclude(sched.scx, { state: "enabled" })
    const parked = bare
      ? "no scx"
      : yield* compareParked(kernel, bpftool, { queues: !WITHOUT_QUEUES.includes(seriesOf(name)) })
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
    if (kernels.length > 0) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })
  if (kernels.length === 0) it.skip("on each kernel of the matrix: `npm run matrix` boots them")
  for (const name of kernels) {
    it.live(`on Debian's ${name}`, () =>
      Effect.gen(function*() {
        const { bpftool } = yield* stockScx
        const cells = yield* Effect.onError(
          compareAll(name, bpftool),
          () => Effect.sync(() => rows.push([name, "", "", "", "", "see the failure"]))
        )
        rows.push([name, ...cells, 0])
      }), 900_000)
  }
})
