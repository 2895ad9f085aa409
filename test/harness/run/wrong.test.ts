import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { executeRun } from "../../../src/harness/run/ExecuteRun.ts"
import { prepareRun } from "../../../src/harness/run/PrepareRun.ts"
import { smoke } from "../../../src/harness/scenario/Scenario.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { needsScx, scx } from "../../support/scx.ts"

/** The kinds of what failed in a smoke run under a program. */
const failures = (binary: string, args: ReadonlyArray<string> = []) =>
  Effect.gen(function*() {
    const { key } = yield* scx
    const scheduler = { name: "wrong", binary, args }
    const run = yield* prepareRun({ test: "wrong", kernel: key, scheduler, scenario: smoke, mode: "exact" })
    const { verdict } = yield* executeRun(run)
    return verdict.details.filter(({ outcome }) => outcome === "fail").map(({ kind, label }) => `${kind}: ${label}`)
  })

describe("a wrong scheduler is reported as what it is", () => {
  beforeEach(needsScx)
  beforeEach(needsExactQemu)

  it.live("that dies before it attaches", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* failures("/usr/bin/false"), [
        "scheduler died: wrong died before it attached"
      ])
    }).pipe(Effect.provide(HostLive)), 300_000)

  it.live("that the kernel throws out for an error of its own", () =>
    Effect.gen(function*() {
      const { scheduler } = yield* scx
      assert.deepStrictEqual(yield* failures(scheduler("scx_qmap"), ["-e", "200"]), [
        "scheduler error: wrong was thrown out: scx_bpf_error"
      ])
    }).pipe(Effect.provide(HostLive)), 300_000)
})
