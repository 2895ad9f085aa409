// Runs where /dev/kvm is real: boots a kernel on the native engine and looks at it from outside and inside.
import * as Effect from "effect/Effect"
import assert from "node:assert"
import { createHash } from "node:crypto"
import { readFileSync, writeSync } from "node:fs"
import { freezeAndAttach } from "../../../../src/Ktstr.ts"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"
import { dumpOf } from "../../../live/dumpOf.ts"

const [kernel, vmlinux, initramfs, cpus] = process.argv.slice(2)
const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ${text}\n`)
const CYCLES = 20

/** Bytes as bpftool prints them: "0x2a" each. */
const hexOf = (bytes: ReadonlyArray<string>) => bytes.map((byte) => byte.slice(2)).join("")

const program = Effect.gen(function*() {
  const vm = yield* bootKvm({
    kernel,
    initramfs: readFileSync(initramfs),
    memoryMib: 256,
    cpus: Number(cpus),
    timeout: "280 seconds"
  }, {})
  say("VM made")
  yield* Effect.forkScoped(Effect.tap(vm.awaitLine(/Linux version/), (line) => Effect.sync(() => say(line))))
  // before its init is up
  yield* Effect.scoped(
    Effect.tap(vm.freeze, ({ vcpus }) => Effect.sync(() => assert.strictEqual(vcpus?.length, Number(cpus))))
  )
  say("ok: frozen during boot")
  const status = yield* vm.awaitReady.pipe(
    Effect.tapError(() => Effect.map(vm.consoleTail, (lines) => say(lines.slice(-40).join("\n"))))
  )
  assert.strictEqual(status, 0)
  say("ok: the init's script has ended")
  const lines = yield* vm.consoleTail
  assert.ok(lines.includes(`processors ${cpus}`), lines.join("\n"))
  assert.deepStrictEqual(lines.filter((line) => /ACPI.*(Error|Could not)/.test(line)), [])

  yield* Effect.scoped(Effect.gen(function*() {
    const { kernel: attached, maps } = yield* freezeAndAttach(vm, "the guest")
    assert.strictEqual(attached.release, lines.find((line) => line.startsWith("release "))?.slice(8))
    const dumped = yield* dumpOf(maps)
    assert.deepStrictEqual(dumped.problems, [])
    const told = lines.flatMap((line) => line.startsWith("maps ") ? [JSON.parse(line.slice(5))] : [])[0]
    const ours = dumped.maps.find(({ info }) => info.name === "counts")
    const theirs = told.find(({ name }: { name: string }) => name === "counts")
    assert.strictEqual(ours?.info.id, theirs.id)
    assert.strictEqual(dumped.maps.length, told.length)
    const entries = lines.flatMap((line) => line.startsWith("counts ") ? [JSON.parse(line.slice(7))] : [])[0]
      .map((entry: { key: ReadonlyArray<string>; value: ReadonlyArray<string> }) =>
        `${hexOf(entry.key)}: ${hexOf(entry.value)}`
      )
    assert.strictEqual(entries.length, 3)
    assert.deepStrictEqual(ours?.entries.map(({ bytes }) => bytes).sort(), entries.sort())
  }))
  say("ok: the dump is what bpftool says in the guest")

  const frozenBytes = (memory: { readonly bytes: (at: number, length: number) => Uint8Array | undefined }) =>
    createHash("sha1").update(memory.bytes(0x1000000, 2 ** 23) ?? assert.fail("no memory")).digest("hex")
  const ticks = Effect.map(vm.consoleTail, (tail) => tail.filter((line) => /^tick [0-9.]+$/.test(line)))
  const parks: Array<number> = []
  for (let cycle = 0; cycle < CYCLES; cycle++) {
    const before = (yield* ticks).length
    yield* Effect.scoped(Effect.gen(function*() {
      const { memory, vcpus } = yield* vm.freeze
      parks.push(...vcpus?.map(({ parkMicros }) => parkMicros) ?? [])
      const digest = frozenBytes(memory)
      yield* Effect.sleep("200 millis")
      assert.strictEqual(frozenBytes(memory), digest)
      assert.ok(vcpus?.every(({ registers }) => registers.control.cr3 > 0n && registers.msrs.LSTAR !== undefined))
    }))
    while ((yield* ticks).length === before) yield* Effect.sleep("20 millis")
  }
  say(`ok: ${CYCLES} freezes; parked after ${Math.max(...parks)} us at most`)
  yield* Effect.scoped(Effect.zipRight(vm.freeze, Effect.sleep("3 seconds")))
  const soFar = (yield* ticks).length
  while ((yield* ticks).length < soFar + 5) yield* Effect.sleep("50 millis")
  const times = (yield* ticks).map((line) => Number(line.slice(5)))
  const gaps = times.slice(1).map((time, index) => time - times[index])
  assert.ok(Math.max(...gaps) < 2, `the guest saw a gap of ${Math.max(...gaps)} s`)
  say(`ok: the guest's clock did not jump (largest step ${Math.max(...gaps).toFixed(2)} s)`)
  const complaints = (yield* vm.consoleTail).filter((line) =>
    /soft lockup|hard LOCKUP|rcu.*stall|blocked for more than|clocksource.*unstable/.test(line)
  )
  assert.deepStrictEqual(complaints, [])

  // frozen twice, and thawed once when both are over
  yield* Effect.scoped(Effect.zipRight(vm.freeze, Effect.scoped(vm.freeze)))
  yield* vm.type(Buffer.from("good night\n"))
  assert.match(yield* vm.awaitLine(/^typed: /), /typed: good night/)
  // again and again while it switches itself off
  const error = yield* Effect.flip(Effect.forever(Effect.scoped(Effect.zipRight(vm.freeze, Effect.sleep("1 millis")))))
  assert.strictEqual(error._tag, "GuestExited")
  assert.deepStrictEqual(yield* vm.awaitExit, { status: 0, signal: undefined })
  assert.strictEqual((yield* Effect.flip(Effect.scoped(vm.freeze)))._tag, "GuestExited")
  say("ok: typed to, frozen while it switched itself off, and not any more")
})

/** The uncompressed kernel, which finds no init: it panics and resets. */
const panics = Effect.gen(function*() {
  const vm = yield* bootKvm({
    kernel: vmlinux,
    initramfs: readFileSync(initramfs),
    memoryMib: 256,
    cmdline: "rdinit=/nothing",
    timeout: "100 seconds"
  }, {})
  const error = yield* Effect.flip(vm.awaitReady)
  assert.strictEqual(error._tag, "GuestPanicked", error.message)
  assert.match(error.message, /Unable to mount root fs|No working init found/)
  assert.strictEqual((yield* vm.awaitExit).status, 0)
  say("ok: an uncompressed kernel booted, and its panic is told")
})

await Effect.runPromise(Effect.scoped(program))
await Effect.runPromise(Effect.scoped(panics))
// guests' memory is what asks for large pages
assert.deepStrictEqual(readFileSync("/proc/self/smaps", "latin1").match(/kvm-vcpu|^VmFlags:.* hg( |$)/gm), null)
say("ok: nothing is left of it")
