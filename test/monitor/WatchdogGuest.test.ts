import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { parseLogText } from "../../src/host/KernelLog.ts"
import { parseScxExits } from "../../src/host/ScxExit.ts"
import { boot } from "../../src/Ktstr.ts"
import { keepWatchdogs } from "../../src/monitor/index.ts"
import type { ShortWatchdog } from "../../src/sched/index.ts"
import { compileBpf, compilePark, HostLive, scratch } from "../support/guest.ts"
import { matrix } from "../support/kernels.ts"
import { needsStockScx, scx, stockScx } from "../support/scx.ts"

/** A scheduler that asks for 2 s, with a task that it does not run, until the kernel has ended it; then it is unloaded. */
const STALL = `cd /include-files && bpftool struct_ops register failing.bpf.o && ./park failq1 &&
  while [ "$(cat /sys/kernel/sched_ext/state)" != disabled ]; do sleep 0.1; done
  bpftool struct_ops unregister name failing; killall park; true`

const LEAST = 6000

const stalls = (kernel: string) =>
  Effect.gen(function*() {
    const { bpftool } = yield* stockScx
    const directory = yield* scratch
    const includes = [bpftool, ...yield* compileBpf(directory, "failing"), yield* compilePark(directory)]
    const vm = yield* boot({ kernel, cpus: 2, includes, timeout: "9 minutes" })
    const raised: Array<ShortWatchdog> = []
    yield* Effect.forkScoped(keepWatchdogs(vm, LEAST, (watchdog) => raised.push(watchdog)))
    for (const times of [1, 2]) { // each load has a time of its own
      const { output } = yield* vm.exec(`${STALL}; dmesg`, { timeout: "3 minutes" })
      const stalled = parseScxExits(parseLogText(output)).at(-1)?.stalled ?? assert.fail(output)
      assert.strictEqual(stalled.comm, "failq1")
      assert.isAtLeast(stalled.millis, LEAST)
      assert.deepStrictEqual(
        raised.map(({ fromMillis, scheduler, toMillis }) => [scheduler, fromMillis, toMillis]),
        Array.from({ length: times }, () => ["ktstr_failing", 2000, LEAST])
      )
    }
  }).pipe(Effect.scoped, Effect.provide(HostLive))

describe("a scheduler's watchdog of 2 s that is raised to 6 s does not end it earlier, by the kernel's own words", () => {
  beforeEach(needsStockScx)
  it.live(
    "on 7.3, where each scheduler has its time",
    () => Effect.flatMap(stockScx, ({ key }) => stalls(key)),
    600_000
  )
  if (matrix.length === 0) it.skip("on 6.18 and a built 6.12, where it is a variable: `npm run matrix` boots them")
  else {
    it.live("on 6.18, where it is a variable", () => stalls("debian:6.18-cloud"), 600_000)
    it.live("on 6.12, where it is a variable", () => Effect.flatMap(scx, ({ key }) => stalls(key)), 600_000)
  }
})
