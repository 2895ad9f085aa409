// Runs where /dev/kvm is real: freezes and thaws guests whose CPUs are all busy (load.c), over and over. Arguments: for each
// guest its kernel, initramfs, CPUs and number of freezes.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import assert from "node:assert"
import { readFileSync, writeSync } from "node:fs"
import * as GuestMapAccessor from "../../../../src/bpf/guest/GuestMapAccessor.ts"
import type { MapAccessor } from "../../../../src/bpf/MapAccessor.ts"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import type { GuestMemory } from "../../../../src/memory/GuestMemory.ts"

const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ${text}\n`)

const MIB = 2 ** 20
/** How long a freeze lasts at least, and a single long one, in milliseconds. */
const HOLD = 30
const LONG_HOLD = 3000
/** What of memory is compared at each freeze, and all of it at each 25th, so that the whole stays short. */
const WINDOW = { start: 16 * MIB, length: 8 * MIB }
const ALL_EVERY = 25
/** What the guest's clock may be off by, in milliseconds: its threads wait for their turns on busy CPUs. */
const SLACK = 700

/** `struct beat` of load.c. */
const beatOf = (bytes: Uint8Array) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const [count, monotonic, largestStep, back, apart, naps, early, pongs, wrong] = Array.from(
    { length: 9 },
    (_, index) => Number(view.getBigUint64(8 * index, true))
  )
  return { count, monotonic, largestStep, back, apart, naps, early, pongs, wrong }
}

/** One a CPU, and one more for TCP. */
const beatsOf = (maps: typeof MapAccessor.Service) =>
  Effect.gen(function*() {
    const [info, ...others] = yield* maps.find("beats")
    assert.strictEqual(others.length, 0)
    return Array.from(yield* Stream.runCollect(maps.entries(info)), (entry) => {
      assert.ok("valueBytes" in entry)
      return beatOf(entry.valueBytes)
    })
  })

const copyOf = (memory: GuestMemory, all: boolean) =>
  all
    ? memory.regions.map(({ bytes }) => Buffer.from(bytes))
    : [Buffer.from(memory.bytes(WINDOW.start, WINDOW.length) ?? assert.fail("no memory there"))]

/**
 * What the guest's clocks may go apart, in nanoseconds, while its kernel compares them, on a host whose clock is not the
 * TSC: there the two cannot be set in one instant. A freeze takes much longer.
 */
const APART = 2e7
const tscHost = readFileSync("/sys/devices/system/clocksource/clocksource0/current_clocksource", "latin1") === "tsc\n"
const bearable = (line: string) => {
  const skew = /Clocksource 'tsc' skewed (-?\d+) ns/.exec(line)
  return !tscHost && (/Marking clocksource 'tsc' as unstable/.test(line) || Math.abs(Number(skew?.[1])) < APART)
}

const complaint =
  /soft lockup|hard LOCKUP|rcu.*(stall|kthread starved)|blocked for more than|clocksource.*(unstable|skew)|BUG:|WARNING:|Oops|sched_ext.*(stall|watchdog|error)|runnable task stall/

const guest = (kernel: string, initramfs: string, cpus: number, freezes: number) =>
  Effect.gen(function*() {
    const vm = yield* bootKvm({
      kernel,
      initramfs: readFileSync(initramfs),
      memoryMib: 256,
      cpus,
      cmdline: "printk.time=1",
      timeout: "200 seconds"
    }, {})
    say(`the host's clock is ${tscHost ? "" : "not "}the TSC`)
    const status = yield* vm.awaitReady.pipe(
      Effect.tapError(() => Effect.map(vm.consoleTail, (lines) => say(lines.slice(-40).join("\n"))))
    )
    assert.strictEqual(status, 0, (yield* vm.consoleTail).slice(-20).join("\n"))
    yield* vm.awaitLine(/^seq 10$/)
    const release = (yield* vm.consoleTail).find((line) => line.startsWith("release ")) ?? "release of nothing"
    say(`${release}, ${cpus} CPUs: under load`)

    // what it takes to find the map is read once: neither moves while the guest lives. By the VM's own memory, because
    // what is attached to a freeze reads nothing after it.
    const maps = yield* Effect.scoped(Effect.gen(function*() {
      yield* vm.freeze
      const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, "the guest")
      return yield* Effect.provideService(GuestMapAccessor.make, GuestKernel, kernel)
    }))
    let ran = { least: 0, most: 0 }
    let thawed: { readonly before: number; readonly after: number } | undefined
    let first: number | undefined
    let beats = yield* Effect.scoped(Effect.zipRight(vm.freeze, beatsOf(maps)))
    const parks: Array<number> = []
    const freeze = (hold: number, all: boolean) =>
      Effect.gen(function*() {
        const asked = performance.now()
        const before = yield* Effect.scoped(Effect.gen(function*() {
          const { memory, vcpus } = yield* vm.freeze
          const parked = performance.now()
          if (thawed !== undefined) {
            ran = { least: ran.least + asked - thawed.after, most: ran.most + parked - thawed.before }
          }
          assert.strictEqual(vcpus?.length, cpus)
          parks.push(...vcpus.map(({ parkMicros }) => parkMicros))
          const then = yield* beatsOf(maps)
          first ??= Math.max(...then.map(({ monotonic }) => monotonic))
          const copies = copyOf(memory, all)
          yield* Effect.sleep(hold)
          assert.deepStrictEqual(yield* beatsOf(maps), then)
          for (const [index, copy] of copyOf(memory, all).entries()) {
            assert.ok(copy.equals(copies[index]), "memory changed while the guest was frozen")
          }
          return { beats: then, at: performance.now() }
        }))
        thawed = { before: before.at, after: performance.now() }
        for (const [index, { apart, back, count, early, naps, pongs, wrong }] of before.beats.entries()) {
          assert.deepStrictEqual(
            { back, early, wrong },
            { back: 0, early: 0, wrong: 0 },
            `freeze ${parks.length / cpus}, apart ${apart}`
          )
          assert.ok(apart < 2e6, `its clocks went ${apart} ns apart, freeze ${parks.length / cpus}`)
          assert.ok(pongs > beats[index].pongs)
          if (index < cpus) assert.ok(count > beats[index].count && naps > beats[index].naps)
        }
        beats = before.beats
      })
    /** Until every thread of the guest has gone on. */
    const moves = Effect.gen(function*() {
      for (;;) {
        yield* Effect.sleep("10 millis")
        // racing with the guest: only to wait, what is asserted is read while it is frozen
        const now = yield* beatsOf(maps)
        const all = now.every((beat, index) =>
          beat.pongs > beats[index].pongs &&
          (index === cpus || (beat.count > beats[index].count && beat.naps > beats[index].naps))
        )
        if (all) return
      }
    })
    for (let round = 0; round < freezes; round++) {
      yield* moves
      yield* freeze(HOLD, round % ALL_EVERY === 0)
    }
    yield* moves
    yield* freeze(LONG_HOLD, false)
    yield* moves
    yield* freeze(0, false)
    say(`ok: ${freezes + 2} freezes; parked after ${Math.max(...parks).toFixed(0)} us at most`)

    const passed = (Math.max(...beats.map(({ monotonic }) => monotonic)) - (first ?? 0)) / 1e6
    const step = Math.max(...beats.map(({ largestStep }) => largestStep)) / 1e6
    say(
      `ok: ${passed.toFixed(0)} ms passed in the guest, it ran ${ran.least.toFixed(0)} to ${ran.most.toFixed(0)}; ` +
        `largest step of a clock ${step.toFixed(0)}`
    )
    assert.ok(passed > ran.least - SLACK && passed < ran.most + SLACK, `${passed} ms passed in the guest`)
    assert.ok(step < LONG_HOLD / 2, `its clock jumped by ${step} ms`)

    yield* vm.type(Buffer.from("\n"))
    const end = yield* vm.awaitLine(/^seq over \d+$/)
    yield* vm.awaitLine(/^dmesg ends$/)
    const lines = yield* vm.consoleTail
    const numbers = lines.slice(0, lines.indexOf(end)).flatMap((line) => /^seq (\d+)$/.exec(line)?.[1] ?? []).map(
      Number
    )
    assert.deepStrictEqual(numbers, Array.from({ length: Number(end.slice(9)) }, (_, index) => index))
    const stamps = lines.flatMap((line) => /^\[ *(\d+\.\d+)\] seq \d+$/.exec(line)?.[1] ?? []).map(Number)
    const gaps = stamps.slice(1).map((stamp, index) => stamp - stamps[index])
    const inOrder = gaps.length > 0 && Math.min(...gaps) > 0 && Math.max(...gaps) < LONG_HOLD / 1000
    assert.ok(inOrder, `the kernel's log has these seconds between its lines: ${gaps}; ${lines.slice(-20).join("\n")}`)
    // what the kernel said while it was frozen now and then; before, it may complain about an emulated CPU's XSAVE
    const log = lines.slice(lines.findIndex((line) => /^\[ *\d+\.\d+\] seq 0$/.test(line)))
    assert.deepStrictEqual(log.filter((line) => complaint.test(line) && !bearable(line)), [])
    say(
      `ok: ${numbers.length} lines came, none is missing; ${
        lines.filter((line) => /^clock|^scx/.test(line)).join(", ")
      }`
    )
    assert.deepStrictEqual(yield* vm.awaitExit, { status: 0, signal: undefined })
  })

for (let at = 2; at < process.argv.length; at += 4) {
  const [kernel, initramfs, cpus, freezes] = process.argv.slice(at, at + 4)
  await Effect.runPromise(Effect.scoped(guest(kernel, initramfs, Number(cpus), Number(freezes))))
}
