import { afterAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { HostLive } from "../support/guest.ts"
import { arm64Matrix } from "../support/kernels.ts"
import { compareSched } from "./compareSched.ts"
import { compareTypes } from "./compareTypes.ts"

describe("of an arm64 guest", () => {
  const rows: Array<ReadonlyArray<unknown>> = [["kernel", "boot s", "maps", "entries", "programs", "tasks", "domains"]]
  afterAll(() => {
    const line = (row: ReadonlyArray<unknown>) => row.map((cell) => String(cell).padEnd(24)).join(" ").trimEnd()
    if (rows.length > 1) process.stderr.write(`${rows.map(line).join("\n")}\n`)
  })

  it.live(
    "the scheduler is what /proc and /sys say in it",
    () =>
      compareSched({ kernel: "debian:7.3-cloud-arm64", cpus: 2 }).pipe(
        Effect.scoped,
        Effect.provide(HostLive)
      ),
    600_000
  )

  if (arm64Matrix.length === 0) it.skip("all of it, on other kernels: `npm run matrix` boots them")
  for (const kernel of arm64Matrix.map((name) => `debian:${name}`)) {
    it.live(
      `on ${kernel}, maps and programs are what bpftool says, the scheduler what /proc says`,
      () =>
        Effect.gen(function*() {
          const { bootSeconds, entries, maps, programs } = yield* compareTypes(kernel, "types")
          const { domains, tasks } = yield* compareSched({ kernel, cpus: 2 })
          rows.push([kernel, bootSeconds, maps, entries, programs, tasks, domains])
        }).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie),
      1_200_000
    )
  }
})
