import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { parseLogText } from "../../src/host/KernelLog.ts"
import { parseScxExits } from "../../src/host/ScxExit.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { parseCapture } from "../support/capture.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsScx, scx } from "../support/scx.ts"

describe("the log of a kernel whose schedulers ended", () => {
  beforeEach(needsScx)

  it.scopedLive(
    "tells how each did: one was killed, of one a task stalled",
    () =>
      Effect.gen(function*() {
        const built = yield* scx
        const directory = yield* scratch
        const sources = new URL("../", import.meta.url).pathname
        const consoleFile = `${directory}/console`
        yield* bootAndFreeze({
          kernel: built.key,
          cpus: 2,
          memoryMib: 512,
          cmdline: "printk.time=1",
          includes: [
            built.scheduler("scx_simple"),
            built.scheduler("scx_qmap"),
            "/usr/sbin/bpftool",
            `${sources}scx/guest.sh`,
            `${sources}bpf-src/capture.sh`
          ],
          script: `. /include-files/guest.sh
            disabled() { [ "$(cat /sys/kernel/sched_ext/state)" = disabled ]; }
            mkdir -p /tmp/capture
            start scx_simple >/dev/null
            kill $scheduler
            await disabled
            start scx_qmap -t 30 >/dev/null # every thirtieth task is forgotten
            (while enabled; do work; sleep 0.01; done) &
            await disabled
            dmesg >/tmp/capture/log
            sh /include-files/capture.sh`,
          consoleFile,
          timeout: "4 minutes"
        })
        const printed = parseCapture(yield* (yield* FileSystem.FileSystem).readFileString(consoleFile))
        const [killed, stalled, ...others] = parseScxExits(parseLogText(printed.get("log")!))
        assert.deepStrictEqual(others, [])
        assert.deepInclude(killed, {
          scheduler: "simple",
          kind: "normal",
          reason: "unregistered from user space",
          message: null,
          stalled: null,
          stack: [],
          stackIsWatchdogs: false
        })
        assert.deepInclude(stalled, {
          scheduler: "qmap",
          kind: "stall",
          reason: "runnable task stall",
          stackIsWatchdogs: true
        })
        assert.isAtLeast(stalled.stalled?.millis ?? 0, 5000, "scx_qmap asks for 5 s")
        assert.match(stalled.message ?? "", /failed to run for/)
        assert.include(stalled.stack.map(({ name }) => name), "scx_watchdog_workfn")
        assert.isBelow(killed.atMicros!, stalled.atMicros!)
      }).pipe(Effect.provide(HostLive)),
    300_000
  )
})
