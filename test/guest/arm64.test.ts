import { afterAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { HostLive } from "../support/guest.ts"
import { arm64Matrix } from "../support/kernels.ts"
import { compareKinds } from "./compareKinds.ts"
import { compareProgramsAndLinks } from "./comparePrograms.ts"
import { compareSched } from "./compareSched.ts"
import { compareTypes } from "./compareTypes.ts"

/** Its maps of every type, programs, links and scheduler. The maps of some types are of sizes that pages of 16 KiB do not divide. */
const compareAll = (kernel: string) =>
  Effect.gen(function*() {
    const { bootSeconds, entries, maps } = kernel.endsWith("16k")
      ? yield* compareTypes(kernel, "types")
      : yield* compareKinds({ kernel, ops: "congestion", arch: "arm64" })
    const { links, programs } = kernel.endsWith("16k")
      ? { links: "not compared", programs: "not compared" }
      // fentry and its like of kernel functions came to arm64 with v6.4
      : yield* compareProgramsAndLinks({
        kernel,
        cpus: 2,
        kindsOfLinks: kernel.startsWith("debian:6.1-") ? 12 : 19,
        arch: "arm64"
      })
    const { domains, tasks } = yield* compareSched({ kernel, cpus: 2 })
    return [kernel, bootSeconds, maps, entries, programs, links, tasks, domains]
  })

describe("an arm64 guest", () => {
  const rows: Array<ReadonlyArray<unknown>> = [
    ["kernel", "boot s", "maps", "entries", "programs", "links", "tasks", "domains"]
  ]
  afterAll(() => {
    const line = (row: ReadonlyArray<unknown>) => row.map((cell) => String(cell).padEnd(24)).join(" ").trimEnd()
    if (rows.length > 1) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })

  for (const kernel of ["debian:7.3-cloud-arm64", "debian:6.1-cloud-arm64"]) {
    it.live(
      `of ${kernel} has the scheduler that /proc and /sys say`,
      () => compareSched({ kernel, cpus: 2 }).pipe(Effect.scoped, Effect.provide(HostLive)),
      600_000
    )
  }

  if (arm64Matrix.length === 0) it.skip("of other kernels, all of it: `npm run matrix` boots them")
  for (const name of arm64Matrix) {
    const kernel = `debian:${name}`
    it.live(
      `of ${kernel} has the maps, programs and links that bpftool says, and the scheduler that /proc says`,
      () =>
        compareAll(kernel).pipe(
          Effect.map((row) => rows.push(row)),
          Effect.scoped,
          Effect.provide(HostLive),
          Effect.orDie
        ),
      1_800_000
    )
  }
})
