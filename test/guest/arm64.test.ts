import { afterAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { HostLive } from "../support/guest.ts"
import { matrix } from "../support/kernels.ts"
import { compareSched } from "./compareSched.ts"
import { compareSteps } from "./compareSteps.ts"

/** 52 bits of addresses by LPA2, of 5 levels with pages of 4 KiB and 4 with 16 KiB. */
const KERNELS = ["debian:6.18-cloud-arm64", "debian:7.3-cloud-arm64", "debian:7.3-arm64-16k"]
/** Debian's for arm64: includes of paths that its packages have are taken from them. */
const BPFTOOL = "/usr/sbin/bpftool"

describe("of an arm64 guest, maps and programs are what bpftool says in it, and the scheduler what /proc says", () => {
  const rows: Array<ReadonlyArray<unknown>> = [["kernel", "boot s", "maps", "entries", "programs", "tasks", "domains"]]
  afterAll(() => {
    const line = (row: ReadonlyArray<unknown>) => row.map((cell) => String(cell).padEnd(24)).join(" ").trimEnd()
    if (rows.length > 1) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })
  if (matrix.length === 0) it.skip("on kernels of arm64: `npm run matrix` boots them")
  for (const kernel of matrix.length === 0 ? [] : KERNELS) {
    it.live(`on ${kernel}`, () =>
      Effect.gen(function*() {
        const { bootSeconds, entries, maps, programs } = yield* compareSteps(kernel, BPFTOOL)
        const { domains, tasks } = yield* compareSched({ kernel, cpus: 2 })
        rows.push([kernel, bootSeconds, maps, entries, programs, tasks, domains])
      }).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie), 1_200_000)
  }
})
