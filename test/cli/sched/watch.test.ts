import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ktstr, place } from "../../support/cli.ts"
import { needsStockScx, stockScx } from "../../support/scx.ts"

/** Samples that are waited for. */
const SAMPLES = 4

describe("ktstr sched watch", () => {
  beforeEach(needsStockScx)
  it.scopedLive(
    "tells of a VM, time and again, the scheduler, each CPU's switches and the queues, until Ctrl-C",
    () =>
      Effect.gen(function*() {
        const { key, root, scheduler } = yield* stockScx
        const { cwd, env, leftovers, mark } = yield* place
        const script = `
        /include-files/scx_simple >/dev/null 2>&1 &
        while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
        for n in 1 2 3; do (while :; do :; done) & done`
        const machine = ["--kernel", key, "--cpus", "2", "--include", scheduler("scx_simple"), "--cmdline", mark]
        const watched = yield* ktstr(["sched", "watch", ...machine, "--exec", script, "--every", "300ms", "--ndjson"], {
          cwd,
          env: { ...env, KTSTR_CACHE_DIR: root, HOME: process.env["HOME"] },
          meanwhile: async (child) => {
            let seen = ""
            await new Promise<void>((resolve) => {
              child.stdout?.on("data", (data: Buffer) => {
                seen += data.toString()
                if (seen.split("\n").length > SAMPLES) resolve()
              })
              child.on("close", () => resolve())
            })
            child.kill("SIGINT")
          }
        })
        assert.strictEqual(watched.code, 130, watched.stderr)
        const [first, ...samples] = watched.stdout.trimEnd().split("\n").map((line) => JSON.parse(line))
        assert.deepStrictEqual([first.record, first.seconds, first.eventsPerSecond], ["sample", null, null])
        assert.isAtLeast(samples.length, SAMPLES - 1)
        let switches = 0
        for (const { cpus, queues, scheduler, seconds } of samples) {
          assert.strictEqual(scheduler, "simple")
          assert.isAbove(seconds, 0)
          assert.deepStrictEqual(cpus.map(({ cpu }: { readonly cpu: number }) => cpu), [0, 1])
          for (const { switchesPerSecond } of cpus) switches += switchesPerSecond
          assert.strictEqual(queues.filter(({ name }: { readonly name: string }) => name === "queue 0").length, 1)
        }
        assert.isAbove(switches, 0)
        assert.deepStrictEqual(leftovers(), [])
      }),
    180_000
  )
})
