import { afterAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { matrix, seriesOf } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"
import { compareKinds } from "./compareKinds.ts"
import { compareProgramsAndLinks } from "./comparePrograms.ts"
import { compareTypes, type Counts } from "./compareTypes.ts"

/** The ways of attaching that `attach.c` finds from this series on. */
const waysOf = (name: string): number => seriesOf(name) === "6.1" ? 15 : 19

const compareAll = (name: string, bpftool: string): Effect.Effect<Counts> =>
  Effect.gen(function*() {
    const kernel = `debian:${name}`
    const counts = yield* compareKinds({ kernel, ops: "congestion", bpftool })
    return {
      ...counts,
      ...yield* compareProgramsAndLinks({ kernel, cpus: 2, kindsOfLinks: waysOf(name), bpftool })
    }
  }).pipe(Effect.orDie)

describe("maps, programs and links are what bpftool says in the guest", () => {
  const rows: Array<ReadonlyArray<unknown>> = [
    ["kernel", "boot s", "maps", "entries", "programs", "links", "differences"]
  ]
  beforeEach(needsStockScx)
  afterAll(() => {
    const line = (row: ReadonlyArray<unknown>) => row.map((cell) => String(cell).padEnd(11)).join(" ").trimEnd()
    if (matrix.length > 0) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })
  if (matrix.length === 0) it.skip("on each kernel of the matrix: `npm run matrix` boots them")
  for (const name of matrix) {
    it.live(`on Debian's ${name}`, () =>
      Effect.gen(function*() {
        const { bpftool } = yield* stockScx
        const { bootSeconds, entries, links, maps, programs } = yield* Effect.onError(
          seriesOf(name) === "5.10" ? compareTypes(`debian:${name}`, "steps", bpftool) : compareAll(name, bpftool),
          () => Effect.sync(() => rows.push([name, "", "", "", "", "", "see the failure"]))
        )
        rows.push([name, bootSeconds, maps, entries, programs, links, 0])
      }), 600_000)
  }
})
