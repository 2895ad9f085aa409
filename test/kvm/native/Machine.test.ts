import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { assemble, bareMachine, bareVm, DATA, startBare } from "./support/bareMetal.ts"
import { bundle, shared } from "./support/harness.ts"

/** No hardware is needed for these: an emulating KVM runs such guests too. */
const absent = !existsSync("/dev/kvm")

const spinning = assemble(`
  lea ${DATA}(,%rsi,8), %rdi
1: incq (%rdi)
  jmp 1b`)

type Bare = Effect.Effect.Success<ReturnType<typeof bareMachine>>
const counters = ({ vm }: Bare) => vm.vcpus.map((_, id) => vm.memory.u64(DATA + 8 * id))
/** Waits until every vCPU has counted on. */
const moves = (guest: Bare) =>
  Effect.gen(function*() {
    const before = counters(guest)
    while (counters(guest).some((count, id) => count === before[id])) yield* Effect.sleep("1 millis")
  })
/** Fails when any vCPU counts. */
const stands = (guest: Bare) =>
  Effect.gen(function*() {
    const before = counters(guest)
    yield* Effect.sleep("5 millis")
    assert.deepStrictEqual(counters(guest), before)
  })

it.scopedLive.skipIf(absent)(
  "spinning vCPUs stand still while frozen and go on after, a hundred times",
  () =>
    Effect.gen(function*() {
      const guest = yield* bareMachine(spinning, { cpus: 2 })
      for (let round = 0; round < 100; round++) {
        yield* moves(guest)
        yield* Effect.scoped(Effect.gen(function*() {
          const { vcpus } = yield* guest.machine.freeze
          yield* stands(guest)
          assert.deepStrictEqual(vcpus.map(({ id }) => id), [0, 1])
          for (const { id, parkMicros, registers } of vcpus) {
            assert.isAtLeast(parkMicros, 0)
            assert.strictEqual(registers.general.rsi, BigInt(id))
            assert.strictEqual(registers.general.rdi, BigInt(DATA + 8 * id))
          }
        }))
      }
    })
)

it.scopedLive.skipIf(absent)(
  "a guest moves on when the last of several freezes is over, and after interruption and defects",
  () =>
    Effect.gen(function*() {
      const guest = yield* bareMachine(spinning, { cpus: 2 })
      yield* moves(guest)
      const [first, second] = [yield* Scope.make(), yield* Scope.make()]
      const taken = yield* Scope.extend(guest.machine.freeze, first)
      assert.strictEqual((yield* Scope.extend(guest.machine.freeze, second)).takenAt, taken.takenAt)
      yield* Scope.close(first, Exit.void)
      yield* stands(guest)
      yield* Scope.close(second, Exit.void)
      yield* moves(guest)
      yield* Effect.exit(Effect.scoped(Effect.zipRight(guest.machine.freeze, Effect.die("a defect"))))
      yield* moves(guest)
      const holding = yield* Effect.fork(Effect.scoped(Effect.zipRight(guest.machine.freeze, Effect.never)))
      yield* Effect.sleep("10 millis")
      yield* Fiber.interrupt(holding)
      yield* moves(guest)
      for (let round = 0; round < 20; round++) {
        const fiber = yield* Effect.fork(Effect.scoped(guest.machine.freeze))
        yield* Fiber.interrupt(fiber)
      }
      yield* moves(guest)
    })
)

it.scopedLive.skipIf(absent)(
  "a vCPU that does not come out in time is named, and then goes on as before",
  () =>
    Effect.gen(function*() {
      const vm = yield* bareVm(spinning)
      // two threads for one vCPU: the second waits in the kernel for the first, where no signal wakes it
      const first = yield* Scope.make()
      yield* moves(yield* Scope.extend(startBare(vm), first))
      const guest = yield* startBare(vm, { freezeMillis: 100 })
      const error = yield* Effect.flip(Effect.scoped(guest.machine.freeze))
      if (error._tag !== "FreezeTimeout") return assert.fail(error.message)
      assert.strictEqual(error.vcpu, 0)
      assert.match(`${error.state}`, /^(starting|running)$/)
      assert.match(error.message, /^the guest did not stop within 0.1 s: vCPU 0 is (starting|running) \(thread \d+\)/)
      yield* Scope.close(first, Exit.void)
      yield* moves(guest)
      yield* Effect.scoped(Effect.zipRight(guest.machine.freeze, stands(guest)))
    })
)

it.scopedLive.skipIf(absent)(
  "what a guest sends on its ports arrives, and a halt is told with the registers",
  () =>
    Effect.gen(function*() {
      const { machine, said } = yield* bareMachine(assemble(`
      mov $0x3f8, %dx
      lea text(%rip), %rsi
      mov $text_end - text, %ecx
      rep outsb
      mov $0x2f8, %dx
      mov $'!', %al
      out %al, %dx
      mov $0x1234, %ebx
      hlt
    text: .ascii "hello from the guest\\n"
    text_end:`))
      const died = yield* Effect.flip(machine.ended)
      assert.strictEqual(died.end, "halted")
      assert.deepStrictEqual(said, ["hello from the guest\n", "!"])
      assert.strictEqual(died.registers?.general.rbx, 0x1234n)
      assert.deepStrictEqual(died.consoleTail, ["hello from the guest", ""])
      assert.match(died.message, /^the guest died of a halt on CPU 0: .* rbx=0x1234 /)
      const error = yield* Effect.flip(Effect.scoped(machine.freeze))
      assert.strictEqual(error, died)
    })
)

it.scopedLive.skipIf(absent)(
  "every byte arrives from a guest that sends faster than we read, and it freezes meanwhile",
  () =>
    Effect.gen(function*() {
      const length = 150_000
      const guest = yield* bareMachine(assemble(`
      mov $0x3f8, %dx
      xor %ebx, %ebx
    1: mov %bl, %al
      out %al, %dx
      inc %ebx
      cmp $${length}, %ebx
      jne 1b
      hlt`))
      for (let round = 0; round < 3; round++) {
        const end = performance.now() + 30
        while (performance.now() < end); // the event loop takes nothing, so the ring fills
        yield* Effect.scoped(guest.machine.freeze).pipe(Effect.catchTag("VmDied", () => Effect.void))
      }
      yield* Effect.flip(guest.machine.ended)
      const bytes = Buffer.from(guest.said[0], "latin1")
      assert.strictEqual(bytes.length, length)
      assert.isTrue(bytes.every((byte, index) => byte === (index & 0xff)))
    })
)

it.scopedLive.skipIf(absent)("a guest hears what is typed at its serial port", () =>
  Effect.gen(function*() {
    const { machine, said } = yield* bareMachine(assemble(`
    1: mov $0x3fd, %dx
      in %dx, %al
      test $1, %al
      jz 1b
      mov $0x3f8, %dx
      in %dx, %al
      cmp $'.', %al
      je 2f
      xor $0x20, %al
      out %al, %dx
      jmp 1b
    2: hlt`))
    assert.strictEqual(yield* machine.receive(0, Buffer.from("Hello.")), 6)
    yield* Effect.flip(machine.ended)
    assert.strictEqual(said[0], "hELLO")
  }))

it.scopedLive.skipIf(absent)(
  "what is not there reads as all ones, and writes there go nowhere",
  () =>
    Effect.gen(function*() {
      const { machine } = yield* bareMachine(assemble(`
      mov $0x5678, %dx
      mov $0, %eax
      out %eax, %dx
      in %dx, %eax
      mov %eax, %ebx
      mov $0xd0000000, %esi
      movl $1, (%rsi)
      mov (%rsi), %ecx
      mov $0xcf8, %dx
      mov $0xffffffff, %eax
      out %eax, %dx
      hlt`))
      const { end, registers } = yield* Effect.flip(machine.ended)
      assert.strictEqual(end, "halted")
      assert.deepStrictEqual([registers?.general.rbx, registers?.general.rcx], [0xffffffffn, 0xffffffffn])
    })
)

const tripleFault = assemble(`
  lidt none(%rip)
  ud2
none: .skip 10`)

it.scopedLive.skipIf(absent)(
  "a triple fault is a death, or a reset where the guest says so",
  () =>
    Effect.gen(function*() {
      const died = yield* Effect.flip((yield* bareMachine(tripleFault)).machine.ended)
      assert.strictEqual(died.end, "tripleFault")
      const reset = yield* (yield* bareMachine(tripleFault, { reboots: true })).machine.ended
      assert.deepStrictEqual(reset, { end: "reset", detail: "by a triple fault" })
    })
)

it.scopedLive.skipIf(absent)(
  "a guest resets and switches off by ports, and is then not frozen",
  () =>
    Effect.gen(function*() {
      for (
        const [port, value, end] of [[0x64, 0xfe, "reset"], [0xcf9, 6, "reset"], [0x604, 0x3400, "powerOff"]] as const
      ) {
        const out = value > 0xff ? "out %ax, %dx" : "out %al, %dx"
        const { machine } = yield* bareMachine(assemble(`mov $${port}, %dx\n mov $${value}, %eax\n ${out}\n hlt`))
        assert.strictEqual((yield* machine.ended).end, end)
        assert.strictEqual((yield* Effect.flip(Effect.scoped(machine.freeze)))._tag, "MachineStopped")
      }
    })
)

const held = () => ({
  descriptors: readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return [] // readdir's own
    }
  }).filter((target) => /memfd|kvm/.test(target)).length,
  mappings: readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) => /memfd:ktstr|kvm-vcpu/.test(line))
    .length,
  threads: readdirSync("/proc/self/task").length
})

it.live.skipIf(absent)("nothing is left of VMs that were booted, frozen and thrown away", () =>
  Effect.gen(function*() {
    const round = Effect.scoped(Effect.gen(function*() {
      const guest = yield* bareMachine(spinning, { cpus: 2 })
      yield* moves(guest)
      yield* guest.machine.freeze
    }))
    yield* round
    const before = held()
    for (let count = 0; count < 20; count++) yield* round
    assert.deepStrictEqual(held(), before)
    assert.strictEqual(before.mappings + before.descriptors, 0)
  }))

it.scopedLive.skipIf(absent)(
  "a program that calls process.exit while its guest spins ends",
  () =>
    Effect.gen(function*() {
      const program = yield* bundle("spin", yield* shared)
      const { signal, status, stdout } = spawnSync(process.execPath, [program], { encoding: "utf8", timeout: 30_000 })
      assert.deepStrictEqual({ signal, status, stdout }, { signal: null, status: 7, stdout: "spins\n" })
    })
)
