import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { parseLogText } from "../../src/host/KernelLog.ts"
import { parseScxExits } from "../../src/host/ScxExit.ts"
import { prepare, recordFailure } from "../../src/Ktstr.ts"
import * as Qemu from "../../src/kvm/qemu/Qemu.ts"
import { VmEngine } from "../../src/kvm/spec/VmEngine.ts"
import { awaitFailure, FailureDocument, type Sample, sealFailure, stuckTask } from "../../src/monitor/index.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { kernelImage } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

/**
 * A scheduler of the tasks that ask for it, which never dispatches any: the kernel ends it for the one that computes
 * without an end. Then the log.
 */
const SCRIPT = `
dmesg -n 1
/include-files/scx_qmap -p -t 1 >/dev/null 2>&1 &
while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
/include-files/as-ext sh -c 'while :; do :; done' &
echo "stuck: $!"
until dmesg | grep -q 'sched_ext: BPF scheduler.*disabled'; do sleep 0.2; done
until [ -e /tmp/read ]; do sleep 0.2; done # the failure was noticed before the script ends
dmesg | sed 's/^/@/'
exit 5
`

describe("a scheduler that stalls a task of a running guest", () => {
  beforeEach(needsStockScx)
  it.live("is noticed, and its dump names the task and agrees with what dmesg printed", () =>
    Effect.gen(function*() {
      const { key, scheduler } = yield* stockScx
      const asExt = join(yield* scratch, "as-ext")
      const source = new URL("../scx/as-ext.c", import.meta.url).pathname
      yield* Effect.promise(() => promisify(execFile)("gcc", ["-o", asExt, source]))
      const { release, spec } = yield* prepare({
        kernel: key,
        cpus: 2,
        includes: [scheduler("scx_qmap"), asExt],
        script: SCRIPT,
        timeout: "4 minutes"
      })
      const vm = yield* (yield* VmEngine).boot(spec)
      const samples: Array<Sample> = []
      const failure = yield* awaitFailure(vm, { sample: (sample) => samples.push(sample) })
      if (failure === undefined) return assert.fail("nothing failed")
      assert.deepStrictEqual([failure.kind, failure.seenIn], ["scheduler", "memory"])
      const bytes = Buffer.concat(sealFailure({ ...yield* recordFailure(vm, key, failure), samples }))
      const document = yield* Schema.decodeUnknown(Schema.parseJson(FailureDocument))(bytes.toString())
      assert.strictEqual((yield* vm.exec("touch /tmp/read")).status, 0)
      assert.strictEqual(yield* vm.awaitReady, 5)

      const stuckLine = yield* vm.awaitLine(/^stuck: \d+$/)
      const printed = (yield* vm.consoleTail).filter((line) => line.startsWith("@")).map((line) => line.slice(1))
      const exits = parseScxExits(parseLogText(printed.join("\n")))
      assert.strictEqual(exits.length, 1, printed.join("\n"))
      assert.deepStrictEqual(document.log.exits, exits)
      assert.deepStrictEqual([exits[0].scheduler, exits[0].kind, document.log.problem], ["qmap", "stall", null])
      // the log that was read is a part of the one that was printed, line by line
      const all = parseLogText(printed.join("\n"))
      const from = all.findIndex(({ atMicros, text }) =>
        atMicros === document.log.lines[0].atMicros && text === document.log.lines[0].text
      )
      assert.deepStrictEqual(
        document.log.lines.filter(({ text }) => text !== ""),
        all.slice(from, from + document.log.lines.length)
      )

      assert.deepStrictEqual([document.schema, document.degraded, document.failure], ["single", null, failure])
      assert.strictEqual(document.kernel?.release, release)
      const stuck = stuckTask(document)
      const { comm, millis, pid } = exits[0].stalled ?? assert.fail("the kernel names no task")
      assert.strictEqual(stuckLine, `stuck: ${pid}`)
      assert.deepStrictEqual([stuck?.comm, stuck?.pid, stuck?.millis], [comm, pid, millis])
      assert.strictEqual(stuck?.task?.pid, pid) // its name may be another by then: it was stuck before it became sh
      assert.isNotEmpty(stuck?.place)
      // its wait was seen before it was too long
      assert.deepStrictEqual(document.samples, samples)
      const last = samples.findLast(({ scheduler }) => scheduler === "qmap") ?? assert.fail("no sample of qmap")
      assert.deepStrictEqual([last.oldest?.pid, last.consistency], [pid, "racing"])
      assert.isAbove(last.oldest?.millis ?? 0, 500)
      if ("kind" in document.vcpus || "kind" in document.sched) return assert.fail("not read")
      assert.deepStrictEqual(document.vcpus.map(({ cpu }) => cpu), [0, 1])
      for (const { mode, registers } of document.vcpus) {
        assert.match(registers["rip"], mode === "kernel" ? /^0xff/ : /^0x[0-9a-f]{1,14}$/)
      }
      assert.isTrue(document.maps.some(({ name }) => name === "qmap_ops" || name.startsWith("scx_qmap")))
      assert.deepStrictEqual(document.problems, [])
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 300_000)
})

describe("a guest that does not stop", () => {
  it.live(
    "leaves a dump that says so, with the console, and is read again as it was written",
    () =>
      Effect.gen(function*() {
        const { spec } = yield* prepare({ kernel: yield* kernelImage("6.12"), script: "echo before; exit 3" })
        const vm = yield* (yield* VmEngine).boot(spec)
        const failure = yield* awaitFailure(vm)
        if (failure === undefined) return assert.fail("nothing failed")
        assert.strictEqual(yield* vm.awaitReady, 3)
        // QEMU does not get to stop the guest
        yield* Effect.acquireRelease(
          Effect.sync(() => process.kill(vm.pid, "SIGSTOP")),
          () => Effect.sync(() => process.kill(vm.pid, "SIGCONT"))
        )
        const bytes = Buffer.concat(sealFailure(yield* recordFailure(vm, "the guest", failure)))
        const document = yield* Schema.decodeUnknown(Schema.parseJson(FailureDocument))(bytes.toString())
        assert.deepStrictEqual([document.schema, document.failure], ["degraded", failure])
        assert.match(document.degraded?.text ?? "", /^the guest did not stop within 2 s: /)
        assert.include(document.console, "before")
      }).pipe(Effect.scoped, Effect.provide(Qemu.layerWith({ freezeTimeout: "2 seconds" })), Effect.provide(HostLive)),
    120_000
  )
})
