import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { complaints, ktstr, place } from "../../support/cli.ts"
import { needsStockScx, stockScx } from "../../support/scx.ts"

describe("ktstr monitor", () => {
  beforeEach(needsStockScx)
  it.scopedLive(
    "samples a running VM from before its scheduler comes until its script ends, and ends with its status",
    () =>
      Effect.gen(function*() {
        const { key, root, scheduler } = yield* stockScx
        const { cwd, env, leftovers, mark } = yield* place
        const script = `
        for n in 1 2 3; do (while :; do :; done) & done
        /include-files/scx_simple >/dev/null 2>&1 &
        while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
        sleep 3
        printf 'one\\ntwo \\033[2J\\n'
        sleep 1
        exit 9`
        const machine = ["--kernel", key, "--cpus", "2", "--include", scheduler("scx_simple"), "--cmdline", mark]
        const ran = yield* ktstr(["monitor", ...machine, "--exec", script, "--every", "100ms", "--ndjson"], {
          cwd,
          env: { ...env, KTSTR_CACHE_DIR: root, HOME: process.env["HOME"] }
        })
        assert.deepStrictEqual([ran.code, complaints(ran)], [9, [
          "  the script in the guest failed with exit status 9; it last said: one | two \\x1b[2J"
        ]])
        const samples = ran.stdout.trimEnd().split("\n").map((line) => JSON.parse(line))
        const loaded = samples.filter(({ scheduler }) => scheduler === "simple")
        assert.deepStrictEqual([samples[0].record, samples[0].consistency], ["sample", "racing"])
        assert.isAbove(loaded.length, 0)
        let switches = 0
        for (const { cpus, problems } of loaded) {
          assert.deepStrictEqual(cpus.map(({ cpu }: { readonly cpu: number }) => cpu), [0, 1])
          assert.deepStrictEqual(
            problems.filter(({ part }: { readonly part: string }) => !["oldest", "queues"].includes(part)),
            []
          )
          for (const { switchesPerSecond } of cpus) switches += switchesPerSecond ?? 0
        }
        assert.isAbove(switches, 0)
        assert.deepStrictEqual(leftovers(), [])
      }),
    180_000
  )
})
