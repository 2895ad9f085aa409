import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { buildKernel } from "../../src/core/kernels/build/KernelBuild.ts"
import { parseLogText } from "../../src/host/KernelLog.ts"
import { parseScxExits } from "../../src/host/ScxExit.ts"
import { boot, recordFailure } from "../../src/Ktstr.ts"
import type { Vm } from "../../src/kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { FailureSigns } from "../../src/monitor/FailureSigns.ts"
import { watchSigns } from "../../src/monitor/FailureWatch.ts"
import {
  type Failure,
  FailureDocument,
  sealFailure,
  stuckTask,
  type TakenMoment,
  waitingLongest
} from "../../src/monitor/index.ts"
import { exitKindOf } from "../../src/sched/scx/ScxState.ts"
import { compileBpf, compilePark, HostLive, scratch } from "../support/guest.ts"
import { matrix } from "../support/kernels.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

const decode = Schema.decodeUnknown(Schema.parseJson(FailureDocument))

/** Ends of failing.bpf.c by the task that comes: the kind in memory, what the kernel logs, and where a stuck task is. */
const ERRORS = [
  {
    name: "failq1",
    kind: "ERROR_STALL",
    message: /^failq1\[\d+\] failed to run for \d+\.\d{3}s$/,
    place: "in queue 48"
  },
  {
    name: "failh1",
    kind: "ERROR_STALL",
    message: /^failh1\[\d+\] failed to run for \d+\.\d{3}s$/,
    place: "with the BPF scheduler, which has not dispatched it"
  },
  { name: "faile1", kind: "ERROR_BPF", message: /^the test said 7$/ },
  { name: "failc1", kind: "ERROR", message: /^invalid CPU 4095/ },
  { name: "failn1", kind: "ERROR", message: /^non-existent DSQ 0x99/ }
] as const

const SWITCH = "/sys/devices/system/cpu/cpu1/online"

/** Ends that are no errors: of themselves they make no dump, but a dump for another reason tells them. */
const NORMAL = [
  { way: "./park failx1", kind: "UNREG_BPF", reason: "unregistered from BPF", message: "the test said 7" },
  { way: "echo S >/proc/sysrq-trigger", kind: "SYSRQ", reason: "disabled by sysrq-S", message: "" },
  {
    way: `echo 0 >${SWITCH}`,
    kind: "UNREG_KERN",
    reason: "unregistered from the main kernel",
    message: "cpu 1 going offline, exiting scheduler"
  }
] as const

/** An end that there is while CPU 1 is offline. */
const OFFLINE = {
  name: "failp1",
  kind: "ERROR_STALL",
  message: /^failp1\[\d+\] failed to run for \d+\.\d{3}s$/,
  place: "in queue 49"
} as const

const REGISTER = "cd /include-files && bpftool struct_ops register failing.bpf.o"

/** What 6.12 needs for these ends beside our own kconfig. */
const EXTRA_KCONFIG = "CONFIG_MAGIC_SYSRQ=y\nCONFIG_SOFTLOCKUP_DETECTOR=y\n"

/** The key of such a kernel, of Debian's source: ten minutes of compiling on two cores where the cache does not have it. */
const build612 = Effect.gen(function*() {
  const source = { _tag: "Tarball", from: "/usr/src/linux-source-6.12.tar.xz" } as const
  const built = yield* buildKernel({ source, extraKconfig: EXTRA_KCONFIG })
  return built._tag === "Stored" ? built.entry.key : assert.fail(built.why)
}).pipe(Effect.provide(FetchHttpClient.layer), Effect.provide(HostLive))

/** A guest, and the signs in its memory that were not looked at before. */
interface Watched {
  readonly vm: Vm
  readonly key: string
  readonly signs: FailureSigns
  /** Does the kernel keep a scheduler that ended, for its loader? It does since v6.16. */
  readonly keepsEnded: boolean
}

const run = (vm: Vm, command: string) =>
  Effect.gen(function*() {
    const { output, status } = yield* vm.exec(command, { timeout: "3 minutes" })
    assert.strictEqual(status, 0, `${command}: ${output}`)
    return output
  })

/** The ends in what dmesg prints. */
const printedEnds = (vm: Vm) => Effect.map(run(vm, "dmesg"), (text) => parseScxExits(parseLogText(text)))

const documentOf = ({ key, vm }: Watched, failure: Failure, early?: TakenMoment) =>
  Effect.flatMap(
    recordFailure(vm, key, failure, early),
    (captured) => decode(Buffer.concat(sealFailure(captured)).toString())
  )

const asked = (text: string): Failure => ({ kind: "script", text, seenIn: "report", at: new Date().toISOString() })

const scxIn = ({ sched }: FailureDocument) =>
  "kind" in sched || "kind" in sched.scx ? assert.fail("sched_ext was not read") : sched.scx

/** The kind of exit that the scheduler's state has, of one that is loaded or whose loader holds it. */
const kindIn = (document: FailureDocument): string | undefined => {
  const { lastExit, schedulers: [scheduler] } = scxIn(document)
  return scheduler === undefined ? lastExit?.kind : exitKindOf(scheduler)
}

/** Let it fail beside the watch, and read the guest when it has. */
const failing = <A, E>(watched: Watched, fail: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const { key, signs, vm } = watched
    let early: TakenMoment | undefined
    const never = yield* Deferred.make<Failure | undefined>()
    const watch = watchSigns(vm, signs, never, { kernel: key, early: (moment) => (early = moment) })
    const [failure, output] = yield* Effect.all([watch, fail], { concurrency: 2 })
    if (failure === undefined) return assert.fail("nothing failed")
    return { failure, output, document: yield* documentOf(watched, failure, early) }
  })

const unregister = ({ signs, vm }: Watched) =>
  Effect.gen(function*() {
    yield* run(vm, "bpftool struct_ops unregister name failing")
    signs.look() // the kernel's words about the end that is known
    assert.strictEqual(signs.look(), undefined)
  })

/** On a busy host a task may wait for long before an end that is no stall: the stopped guest must show that it does. */
const compareEarly = ({ early, schema }: FailureDocument) => {
  assert.strictEqual(schema, early === undefined ? "single" : "dual")
  if (early === undefined) return
  const [, comm, pid, millis] = /^(.+)\[(\d+)\] has been runnable for (\d+) of 2000 ms$/.exec(early.text)
    ?? assert.fail(early.text)
  assert.isAbove(Number(millis), 1000)
  if ("kind" in early.reading) return assert.fail(early.reading.text)
  const waits = waitingLongest(early.reading).find(({ task }) => task.pid === Number(pid))
  assert.strictEqual(waits?.task.comm, comm, early.text)
  assert.isAtLeast(waits?.millis ?? 0, Number(millis))
}

const compareError = (watched: Watched, { kind, message, name, ...error }: typeof ERRORS[number] | typeof OFFLINE) =>
  Effect.gen(function*() {
    const { document, failure, output } = yield* failing(watched, run(watched.vm, `${REGISTER} && ./park ${name}`))
    assert.deepStrictEqual([failure.kind, document.log.problem, document.problems], ["scheduler", null, []])
    const printed = yield* printedEnds(watched.vm)
    assert.deepStrictEqual(document.log.exits, printed)
    const end = printed.at(-1)
    assert.match(end?.message ?? "", message)
    assert.strictEqual(end?.scheduler, "ktstr_failing")
    assert.include([kind, ...watched.keepsEnded ? [] : [undefined]], kindIn(document))
    if ("place" in error) {
      assert.strictEqual(document.schema, "dual")
      const { comm, early, millis, pid, place } = stuckTask(document) ?? assert.fail("no task is stuck")
      assert.deepStrictEqual({ comm, pid, millis }, end?.stalled)
      assert.include(output, `@parked ${name} ${pid}\n`)
      assert.strictEqual(place, error.place, `early: ${early}`)
    } else {
      assert.deepStrictEqual([document.degraded, stuckTask(document)], [null, undefined])
      compareEarly(document)
    }
    yield* unregister(watched)
  })

const compareNormal = (watched: Watched, { kind, message, reason, way }: typeof NORMAL[number]) =>
  Effect.gen(function*() {
    const { signs, vm } = watched
    yield* run(
      vm,
      `${REGISTER} && ${way} && until [ $(cat /sys/kernel/sched_ext/state) = disabled ]; do sleep 0.1; done`
    )
    assert.strictEqual(signs.look(), undefined)
    const document = yield* documentOf(watched, asked("it is gone"))
    assert.deepStrictEqual(document.log.exits, yield* printedEnds(vm))
    const { reason: said, scheduler } = document.log.exits.at(-1) ?? assert.fail("the kernel said nothing")
    assert.deepStrictEqual([scheduler, said], ["ktstr_failing", reason])
    if (watched.keepsEnded) {
      assert.strictEqual(kindIn(document), kind)
      assert.strictEqual(scxIn(document).lastExit?.message, message) // which the kernel does not log
    }
    yield* unregister(watched)
  })

/**
 * A task for a CPU that is offline: the kernel has it run elsewhere, counts that (since v6.14), and says nothing.
 * @see kernel/sched/ext.c `task_can_run_on_remote_rq`, v6.12 to v7.3
 */
const compareOffline = (watched: Watched) =>
  Effect.gen(function*() {
    const before = yield* printedEnds(watched.vm)
    yield* run(watched.vm, `${REGISTER} && ./park failo1`)
    assert.strictEqual(watched.signs.look(), undefined)
    const document = yield* documentOf(watched, asked("it goes on"))
    assert.deepStrictEqual(document.log.exits, before)
    const [{ events, exit_kind, name }] = scxIn(document).schedulers
    assert.deepStrictEqual([name, exit_kind], ["ktstr_failing", "NONE"])
    if ("kind" in events) assert.isFalse(watched.keepsEnded, events.text) // counters are younger than that
    else assert.strictEqual(Number(events.total["SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE"]), 1)
    yield* unregister(watched)
  })

/** A program of BPF that does not let go of its CPU; then a panic, which is the guest's last. */
const compareOthers = (watched: Watched) =>
  Effect.gen(function*() {
    const { signs, vm } = watched
    const lockup = `echo 1 >/proc/sys/kernel/watchdog_thresh && ln -s /bin/busybox /tmp/lockup &&
      bpftool prog load /include-files/lockup.bpf.o /sys/fs/bpf/lockup autoattach && { /tmp/lockup 2>/dev/null & }`
    const stuck = yield* failing(watched, run(vm, lockup))
    const { document: { failure, sched, vcpus } } = stuck
    const [, cpu, pid] = /^watchdog: BUG: soft lockup - CPU#(\d) stuck for \d+s! \[lockup:(\d+)\]$/.exec(failure.text)
      ?? assert.fail(failure.text)
    assert.strictEqual(failure.kind, "soft-lockup")
    assert.include(yield* run(vm, "dmesg"), failure.text)
    if ("kind" in sched || "kind" in sched.runQueues || "kind" in vcpus) return assert.fail("not read")
    assert.strictEqual(sched.runQueues.find((queue) => queue.cpu === Number(cpu))?.curr?.pid, Number(pid))
    assert.strictEqual(vcpus[Number(cpu)].mode, "kernel")
    yield* run(vm, `while [ -e /proc/${pid} ]; do sleep 0.1; done`)
    while (signs.look() !== undefined); // it may have been told more than once

    const panic = yield* failing(watched, Effect.ignore(vm.exec("echo c >/proc/sysrq-trigger")))
    assert.match(panic.failure.text, /^Kernel panic - not syncing: sysrq triggered crash$/)
    const { degraded, schema } = panic.document
    assert.deepStrictEqual([panic.failure.kind, degraded, schema], ["panic", null, "single"])
    assert.isTrue(panic.document.log.lines.some(({ text }) => text === panic.failure.text))
    assert.include((yield* vm.consoleTail).join("\n"), panic.failure.text)
  })

const compareAll = (key: string) =>
  Effect.gen(function*() {
    const { bpftool } = yield* stockScx
    const directory = yield* scratch
    const vm = yield* boot({
      kernel: key,
      cpus: 2,
      cmdline: "loglevel=1 panic=60 printk.time=1",
      includes: [bpftool, ...yield* compileBpf(directory, "failing", "lockup"), yield* compilePark(directory)],
      timeout: "9 minutes"
    })
    const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, "the running guest")
    const watched = { vm, key, signs: new FailureSigns(kernel), keepsEnded: kernel.symbol("scx_root") !== undefined }
    for (const error of ERRORS) yield* compareError(watched, error)
    for (const end of NORMAL) yield* compareNormal(watched, end)
    yield* compareError(watched, OFFLINE)
    yield* compareOffline(watched)
    yield* run(vm, `echo 1 >${SWITCH}`)
    yield* compareOthers(watched)
  }).pipe(Effect.scoped, Effect.provide(HostLive))

describe("a guest that fails is dumped with what the kernel says of it: each way of a scheduler, a soft lockup, a panic", () => {
  beforeEach(needsStockScx)
  it.live("on 7.3", () => Effect.flatMap(stockScx, ({ key }) => compareAll(key)), 600_000)
  if (matrix.length === 0) it.skip("on 6.18 and a built 6.12: `npm run matrix` boots them")
  else {
    it.live("on 6.18", () => compareAll("debian:6.18-cloud"), 600_000)
    it.live("on 6.12, whose scheduler is in variables", () => Effect.flatMap(build612, compareAll), 3_600_000)
  }
})
