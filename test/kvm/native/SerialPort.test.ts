import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import { assemble, bareMachine, counters, DATA, stands } from "./support/bareMetal.ts"

/** No hardware is needed for these: an emulating KVM runs such guests too. */
const absent = !existsSync("/dev/kvm")

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
      assert.match(died.message, /^CPU 0 stopped the guest \(halt\): .* rbx=0x1234 /)
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

it.scopedLive.skipIf(absent)(
  "a guest whose bytes nobody takes waits with them, is frozen meanwhile, and loses none",
  () =>
    Effect.gen(function*() {
      const length = 80_000
      let holds = true
      const guest = yield* bareMachine(
        assemble(`
         mov $0x3f8, %dx
         xor %ebx, %ebx
      1: mov %bl, %al
         out %al, %dx
         inc %ebx
         mov %rbx, ${DATA}
         cmp $${length}, %ebx
         jne 1b
         hlt`),
        { holdsSerial: () => holds }
      )
      const RING = 65536n // and what KVM keeps before it
      while ((counters(guest)[0] ?? 0n) < RING) yield* Effect.sleep("1 millis")
      yield* Effect.sleep("50 millis")
      yield* Effect.scoped(Effect.zipRight(guest.machine.freeze, stands(guest)))
      yield* stands(guest)
      assert.strictEqual(guest.said[0], "")
      holds = false
      guest.machine.drain()
      yield* Effect.flip(guest.machine.ended)
      assert.strictEqual(guest.said[0].length, length)
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
