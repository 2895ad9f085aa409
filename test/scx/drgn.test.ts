import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { saveVmcore } from "../../src/memory/SaveImage.ts"
import { readSched } from "../../src/sched/index.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { judges } from "../support/judges.ts"
import { matrix } from "../support/kernels.ts"
import { stockScx } from "../support/scx.ts"

const GUESTS = {
  "that a scheduler schedules": `scx_simple >/dev/null 2>&1 &
    while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done`,
  "whose scheduler has ended": `scx_simple >/dev/null 2>&1 &
    while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
    kill -INT $!
    while [ "$(cat /sys/kernel/sched_ext/state)" != disabled ]; do sleep 0.1; done`
}

/** What scx_show_state.py prints of a frozen guest's core, by name; it reads debug info (scripts/judges.sh). */
const compare = (script: string) =>
  Effect.gen(function*() {
    const { key, scheduler } = yield* stockScx
    const { drgn, showState, vmlinux } = yield* judges
    const { kernel } = yield* bootAndFreeze({ kernel: key, includes: [scheduler("scx_simple")], script })
    const core = join(yield* scratch, "vmcore")
    yield* saveVmcore(kernel.memory, core)
    const stdout = yield* drgn("-c", core, "-s", vmlinux, showState)
    const theirs = Object.fromEntries(stdout.trimEnd().split("\n").map((line) => line.split(/ *: */)))
    const { scx } = readSched(kernel)
    if ("kind" in scx) return assert.fail(scx.text)
    const python = (flag: boolean | undefined) => flag === true ? "True" : "False"
    assert.deepStrictEqual(
      { ...theirs, enable_state: theirs["enable_state"].replace(/ \(\d\)$/, "") },
      {
        ops: scx.schedulers[0]?.name ?? "",
        enabled: String(Number(scx.enabled)),
        switching_all: String(Number(scx.switching_all)),
        switched_all: String(Number(scx.switched_all)),
        enable_state: scx.state,
        aborting: python(scx.schedulers[0]?.aborting),
        bypass_depth: String(scx.schedulers[0]?.bypass_depth ?? 0),
        nr_rejected: String(scx.nr_rejected),
        enable_seq: String(scx.enable_seq)
      }
    )
    return theirs["enable_state"]
  }).pipe(Effect.scoped, Effect.provide(HostLive))

describe("drgn's scx_show_state.py prints the same of a guest's core", () => {
  if (matrix.length === 0) it.skip("on 7.3-cloud: `npm run matrix` gets its debug info")
  else {
    for (const [which, script] of Object.entries(GUESTS)) {
      it.live(`on 7.3-cloud, of a guest ${which}`, () => compare(script), 300_000)
    }
  }
})
