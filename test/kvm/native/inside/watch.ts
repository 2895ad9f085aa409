// Runs where /dev/kvm is real: watches of the memory of bare-metal guests and of a kernel. Arguments: the kernel, an initramfs.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import assert from "node:assert"
import { readFileSync, writeSync } from "node:fs"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import { assemble, type Bare, bareMachine, counters, DATA, stands } from "../support/bareMetal.ts"

const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ok: ${text}\n`)

/** Each vCPU's own place to write to, and the counts at which it does. */
const WRITTEN = DATA + 0x100
const EVERY = 0x1000
/** Longest wait for vCPUs to stand, in milliseconds: their threads take seconds to start where all is emulated. */
const LIMIT = 60_000

/** Counts, and writes every so many counts; RBX says where the instruction behind the write is. */
const writing = assemble(`
  lea ${DATA}(,%rsi,8), %rdi
  lea ${WRITTEN}(,%rsi,8), %rdx
  lea 2f(%rip), %rbx
1: incq (%rdi)
  mov (%rdi), %rax
  test $${EVERY - 1}, %rax
  jnz 1b
  mov %rax, (%rdx)
2: jmp 1b`)

const watch = ({ machine }: Bare, address: number, bytes: number) => {
  const { ended, freeze, watchWrites } = machine
  const stopped = Effect.catchTag(freeze, "MachineStopped", Effect.die)
  const over = Effect.zipRight(Effect.catchAll(ended, Effect.die), Effect.never)
  return watchWrites(stopped, over)(BigInt(address), bytes)
}
const count = (guest: Bare, id: number) => Number(counters(guest)[id])
const counts = (guest: Bare, id: number, until: number) =>
  Effect.repeat(Effect.sleep("1 millis"), { until: () => count(guest, id) >= until })

const eachWrite = Effect.gen(function*() {
  const guest = yield* bareMachine(writing, { cpus: 2, freezeMillis: LIMIT })
  const { hit } = yield* watch(guest, WRITTEN + 8, 8)
  for (let round = 0, last = 0; round < 40; round++) {
    yield* Effect.scoped(Effect.gen(function*() {
      yield* hit
      const { vcpus } = yield* guest.machine.freeze
      if (round % 10 === 0) yield* stands(guest)
      const { rbx, rip } = vcpus[1].registers.general
      assert.strictEqual(Number(guest.vm.memory.u64(WRITTEN + 8)), count(guest, 1))
      assert.strictEqual(rip, rbx)
      // there may have been writes before the watch
      if (round > 0) assert.strictEqual(count(guest, 1), last + EVERY)
      last = count(guest, 1)
    }))
  }
  say("a guest stands right after each write, and none of forty is missed")
})

const fourPlaces = Effect.gen(function*() {
  const guest = yield* bareMachine(writing, { cpus: 4, freezeMillis: LIMIT })
  const places: ReadonlyArray<readonly [number, number]> = [[0, 8], [8, 4], [16 + 1, 1], [24, 2]]
  yield* Effect.forEach(places, ([offset, bytes]) =>
    Effect.gen(function*() {
      const { hit } = yield* watch(guest, WRITTEN + offset, bytes)
      const read = () => Buffer.from(guest.vm.memory.bytes(WRITTEN + offset, bytes) ?? []).toString("hex")
      for (let changes = 0, before = read(); changes < 5;) {
        yield* Effect.scoped(hit)
        if (read() !== before) changes++
        before = read()
      }
    }).pipe(Effect.scoped), { concurrency: "unbounded" })
  const five = Effect.forEach([0, 8, 16, 24, 32], (offset) => watch(guest, WRITTEN + offset, 8))
  assert.match((yield* Effect.flip(Effect.scoped(five))).message, /4 places are watched already/)
  say("four places of any size are watched at a time")
})

const endsOfWatches = Effect.gen(function*() {
  const guest = yield* bareMachine(writing, { cpus: 2, freezeMillis: LIMIT })
  for (const hits of [0, 1, 3]) {
    const scope = yield* Scope.make()
    const { hit } = yield* Scope.extend(watch(guest, WRITTEN, 8), scope)
    yield* Effect.replicateEffect(Effect.scoped(hit), hits)
    // the next write stops it, and nobody asks for that
    let stood: number
    do {
      stood = count(guest, 0)
      yield* Effect.sleep("100 millis")
    } while (stood % EVERY !== 0 || count(guest, 0) !== stood)
    yield* Scope.close(scope, Exit.void)
    yield* counts(guest, 0, stood + 3 * EVERY)
  }
  say("a guest runs on when its watches have ended, also when it stands for one")
})

/** Single-steps itself, counts the traps at DATA, keeps DR6 behind that, and counts its turns behind that. */
const stepping = assemble(`
  lea handler(%rip), %rax
  mov $${DATA + 0x1000}, %edx
  mov %ax, 16(%rdx)
  movw $0x10, 18(%rdx)
  movw $0x8e00, 20(%rdx)
  shr $16, %rax
  mov %ax, 22(%rdx)
  shr $16, %rax
  mov %rax, 24(%rdx)
  movw $0x1f, 0x100(%rdx)
  mov %rdx, 0x102(%rdx)
  lidt 0x100(%rdx)
  pushfq
  orq $0x100, (%rsp)
  popfq
1: incq ${DATA + 16}
  jmp 1b
handler:
  push %rax
  mov %dr6, %rax
  mov %rax, ${DATA + 8}
  xor %eax, %eax
  mov %rax, %dr6
  incq ${DATA}
  pop %rax
  iretq`)

const ownSteps = Effect.gen(function*() {
  const guest = yield* bareMachine(stepping, { freezeMillis: LIMIT })
  const traps = () => count(guest, 0)
  const more = Effect.suspend(() => counts(guest, 0, traps() + 100))
  yield* more
  const BS = 0x4000n
  yield* Effect.scoped(Effect.gen(function*() {
    yield* watch(guest, WRITTEN, 8)
    yield* more
    assert.strictEqual((guest.vm.memory.u64(DATA + 8) ?? 0n) & BS, BS)
  }))
  yield* more
  yield* guest.machine.freeze
  // two instructions a turn, each with its trap
  const turns = Number(guest.vm.memory.u64(DATA + 16))
  assert.ok(Math.abs(traps() - 2 * turns) < 4, `${traps()} traps of ${turns} turns`)
  say("a guest that single-steps itself does so while it is watched")
})

const ofKernel = Effect.gen(function*() {
  const [image, initramfs] = process.argv.slice(2)
  const spec = {
    kernel: image,
    initramfs: readFileSync(initramfs),
    cpus: 2,
    memoryMib: 256,
    timeout: "5 minutes"
  } as const
  const vm = yield* bootKvm(spec, {})
  yield* vm.awaitReady
  const kernel = yield* Effect.scoped(Effect.flatMap(vm.freeze, ({ memory }) => GuestKernel.fromMemory(memory)))
  const address = kernel.symbol("panic_timeout") ?? assert.fail("no such symbol")
  const { hit } = yield* vm.watchWrites(address, 4)
  yield* vm.type(Buffer.from("2 3 -1\n"))
  for (const value of [2, 3, 0xffff_ffff]) {
    yield* Effect.scoped(Effect.gen(function*() {
      yield* hit
      const { memory, vcpus = [] } = yield* vm.freeze
      assert.strictEqual(memory.u32(yield* kernel.translate(address)), value)
      const places = vcpus.map(({ registers }) => kernel.symbolAt(registers.general.rip)?.name)
      assert.ok(places.includes("do_proc_dointvec_conv"), places.join())
    }))
  }
  assert.strictEqual(yield* vm.awaitLine(/^written/), "written -1")
  say("a kernel stands right behind each of its writes to a variable")
})

for (const check of [eachWrite, fourPlaces, endsOfWatches, ownSteps, ofKernel]) {
  await Effect.runPromise(Effect.scoped<void, unknown, Scope.Scope>(check))
}
