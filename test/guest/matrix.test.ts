import * as FileSystem from "@effect/platform/FileSystem"
import { afterAll, assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { bootSeconds, parseCapture, SAY_BOOTED } from "../support/capture.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { matrix, seriesOf } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"
import { compareKinds } from "./compareKinds.ts"
import { compareMaps } from "./compareMaps.ts"
import { comparePrograms, compareProgramsAndLinks } from "./comparePrograms.ts"

interface Counts {
  readonly bootSeconds: number
  readonly maps: number
  readonly entries: number
  readonly programs: number
  readonly links: number | "none made"
}

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

/** 5.10 has neither bpf_loop nor half of the types: the maps of types.bpf.c, filled by steps, and the programs that do it. */
const compareOld = (name: string, bpftool: string): Effect.Effect<Counts> =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const consoleFile = `${directory}/console`
    const sources = new URL("../bpf-src/", import.meta.url).pathname
    const snapshot = yield* bootAndFreeze({
      kernel: `debian:${name}`,
      cpus: 2,
      includes: [bpftool, ...yield* compileBpf(directory, "steps"), `${sources}fill.sh`, `${sources}capture.sh`],
      script: `${SAY_BOOTED} && sh /include-files/fill.sh && date +%s >/tmp/capture/now &&
        cat /proc/uptime >/tmp/capture/uptime && sh /include-files/capture.sh`,
      consoleFile,
      timeout: "4 minutes"
    })
    const printed = parseCapture(yield* (yield* FileSystem.FileSystem).readFileString(consoleFile))
    const counts = yield* compareMaps(snapshot, printed)
    const { items, problems } = yield* Effect.provideService(listPrograms, GuestKernel, snapshot.kernel)
    assert.deepStrictEqual(problems, [])
    comparePrograms(items, printed, false) // kept elsewhere before 5.12: group bpf-program-stats
    return { ...counts, bootSeconds: bootSeconds(printed), programs: items.length, links: "none made" as const }
  }).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie)

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
        const compare = seriesOf(name) === "5.10" ? compareOld : compareAll
        const { bootSeconds, entries, links, maps, programs } = yield* Effect.onError(
          compare(name, bpftool),
          () => Effect.sync(() => rows.push([name, "", "", "", "", "", "see the failure"]))
        )
        rows.push([name, bootSeconds, maps, entries, programs, links, 0])
      }), 600_000)
  }
})
