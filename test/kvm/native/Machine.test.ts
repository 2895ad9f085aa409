import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Request } from "../../../src/kvm/native/abi/KvmAbi.ts"
import { Virtio } from "../../../src/kvm/native/abi/VirtioAbi.ts"
import { makeVirtioBlock } from "../../../src/kvm/native/virtio/VirtioBlock.ts"
import { openDisks } from "../../../src/kvm/spec/Disks.ts"
import {
  assemble,
  type Bare,
  bareMachine,
  bareVm,
  CODE,
  counters,
  DATA,
  stands,
  startBare
} from "./support/bareMetal.ts"
import { bundle, shared } from "./support/harness.ts"

/** No hardware is needed for these: an emulating KVM runs such guests too. */
const absent = !existsSync("/dev/kvm")

const spinning = assemble(`
  lea ${DATA}(,%rsi,8), %rdi
1: incq (%rdi)
  jmp 1b`)

/** Waits until every vCPU has counted on. */
const moves = (guest: Bare) =>
  Effect.gen(function*() {
    const before = counters(guest)
    while (counters(guest).some((count, id) => count === before[id])) yield* Effect.sleep("1 millis")
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
      const error = yield* Effect.flip(guest.machine.freeze) // lets go at once, not when this scope closes
      if (error._tag !== "FreezeFailed") return assert.fail(error.message)
      assert.strictEqual(error.vcpu, 0)
      assert.match(`${error.state}`, /^(starting|running)$/)
      assert.match(error.message, /^the guest did not stop within 0.1 s: vCPU 0 is (starting|running) \(thread \d+\)/)
      yield* Scope.close(first, Exit.void)
      yield* moves(guest)
      yield* Effect.scoped(Effect.zipRight(guest.machine.freeze, stands(guest)))
    })
)

it.scopedLive.skipIf(absent)(
  "four vCPUs stand as long as any of many holders has them frozen, and go on after the last",
  () =>
    Effect.gen(function*() {
      const guest = yield* bareMachine(spinning, { cpus: 4 })
      yield* moves(guest)
      const hold = (round: number) =>
        Effect.scoped(Effect.gen(function*() {
          const { vcpus } = yield* guest.machine.freeze
          assert.strictEqual(vcpus.length, 4)
          const before = counters(guest)
          yield* Effect.sleep(`${round % 4} millis`)
          assert.deepStrictEqual(counters(guest), before)
          if (round % 5 === 0) yield* Effect.interrupt
        }))
      const fibers = yield* Effect.forEach(Array.from({ length: 30 }, (_, round) => round), (round) =>
        Effect.zipLeft(Effect.fork(hold(round)), Effect.sleep("1 millis")))
      yield* Effect.forEach(
        fibers.filter((_, index) =>
          index % 7 === 0
        ),
        Fiber.interrupt
      )
      yield* Effect.forEach(fibers, Fiber.await)
      const failures = (yield* Effect.forEach(fibers, Fiber.await)).filter((exit) =>
        Exit.isFailure(exit) && !Exit.isInterrupted(exit)
      )
      assert.deepStrictEqual(failures, [])
      yield* moves(guest)
    })
)

it.scopedLive.skipIf(absent)(
  "a frozen vCPU stands between two instructions: what it sent is sent, and what it did not is not",
  () =>
    Effect.gen(function*() {
      const [SENDS, SENT] = [BigInt(CODE + 8), BigInt(CODE + 9)]
      const { machine, said } = yield* bareMachine(assemble(`
         mov $0x2f8, %edx
      1: inc %rbx
         out %al, %dx
         jmp 1b`))
      for (let round = 0; round < 30; round++) {
        yield* Effect.sleep("2 millis")
        yield* Effect.scoped(Effect.gen(function*() {
          const [{ registers: { general } }] = (yield* machine.freeze).vcpus
          yield* Effect.sleep("2 millis") // until all has been read
          if (general.rip === SENT) assert.strictEqual(said[1].length, Number(general.rbx))
          if (general.rip === SENDS) assert.strictEqual(said[1].length, Number(general.rbx) - 1)
        }))
      }
      assert.isAbove(said[1].length, 0)
    })
)

it.scopedLive.skipIf(absent)(
  "a guest whose clock cannot be set back goes on, and that is said",
  () =>
    Effect.gen(function*() {
      const vm = yield* bareVm(spinning)
      const ioctl: typeof vm.native.ioctl = (fd, request, argument) =>
        request === Request.KVM_SET_CLOCK ? -22 : vm.native.ioctl(fd, request, argument)
      const guest = yield* startBare({ ...vm, native: { ...vm.native, ioctl } })
      yield* moves(guest)
      const logged: Array<string> = []
      yield* Effect.scoped(Effect.zipRight(guest.machine.freeze, stands(guest))).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => logged.push(`${message}`))))
      )
      assert.strictEqual(logged.length, 1)
      assert.match(logged[0], /^the guest sees how long it was frozen: KVM_SET_CLOCK: EINVAL/)
      yield* moves(guest)
    })
)

it.scopedLive.skipIf(absent)(
  "a VM that was closed has ended, is not frozen, and may be let go late",
  () =>
    Effect.gen(function*() {
      const [scope, late] = [yield* Scope.make(), yield* Scope.make()]
      const { machine } = yield* Scope.extend(bareMachine(spinning), scope)
      yield* Scope.extend(machine.freeze, late)
      const ended = yield* Effect.fork(machine.ended)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Fiber.join(ended), { end: "closed", detail: "the VM is closed" })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(machine.freeze)))._tag, "MachineStopped")
      assert.strictEqual(yield* machine.receive(0, Buffer.from("gone")), 4)
      yield* Scope.close(late, Exit.void)
    })
)

it.scopedLive.skipIf(absent)(
  "CPUs that halted with their interrupts off, or were never started, are a death; those that idle are not",
  () =>
    Effect.gen(function*() {
      const idle = yield* bareMachine(
        assemble(`sti
 1: hlt
 jmp 1b`),
        { cpus: 2, irqchip: true }
      )
      const { machine } = yield* bareMachine(
        assemble(`mov $0x1234, %ebx
 cli
 1: hlt
 jmp 1b`),
        {
          cpus: 2,
          irqchip: true
        }
      )
      yield* Effect.scoped(machine.freeze) // freezes one that waits to be started, too
      const died = yield* Effect.flip(machine.ended)
      assert.strictEqual(died.end, "halted")
      assert.strictEqual(died.registers?.general.rbx, 0x1234n)
      assert.match(died.message, /^CPU 0 stopped the guest \(halt\): /)
      assert.strictEqual(yield* Effect.flip(Effect.scoped(machine.freeze)), died)
      const { vcpus } = yield* Effect.scoped(idle.machine.freeze)
      assert.strictEqual(vcpus.length, 2)
      assert.strictEqual(vcpus[0].registers.general.rflags & 0x200n, 0x200n)
    }),
  20_000
)

const WINDOW = 0xd0000000
const RINGS = 0x9_0000

it.scopedLive.skipIf(absent)(
  "a guest reads a disk through virtio registers; while it is frozen the disk leaves its memory alone",
  () =>
    Effect.gen(function*() {
      const [TABLE, AVAILABLE, USED, HEAD, BUFFER] = [0, 0x100, 0x200, 0x300, 0x400].map((at) => RINGS + at)
      const REGISTERS = DATA + 0x1000
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-disk-"))),
        (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
      )
      const path = join(directory, "image")
      const sector = (fill: number) => new Uint8Array(512).fill(fill)
      writeFileSync(path, sector(1))
      const [disk] = yield* openDisks({ kernel: "none", initramfs: new Uint8Array(0), disks: [{ path }] })
      const device = makeVirtioBlock(disk, "disk", (error) => assert.fail(error.message))

      // sets the registers of a table, then reads sector 0 for ever, a request at a time
      const vm = yield* bareVm(assemble(`
         mov $${WINDOW}, %ebx
         mov $${REGISTERS}, %esi
      1: mov (%rsi), %eax
         cmp $-1, %eax
         je 2f
         mov 4(%rsi), %ecx
         mov %ecx, (%rbx, %rax)
         add $8, %rsi
         jmp 1b
      2: incw ${AVAILABLE + 2}
         movl $0, ${Virtio.VIRTIO_MMIO_QUEUE_NOTIFY}(%rbx)
      3: pause
         mov ${USED + 2}, %ax
         cmp ${AVAILABLE + 2}, %ax
         jne 3b
         incq ${DATA}
         jmp 2b`))
      const u32 = (...values: ReadonlyArray<number>) => new Uint8Array(Uint32Array.from(values).buffer)
      const next = Virtio.VRING_DESC_F_NEXT
      const both = Virtio.VRING_DESC_F_NEXT | Virtio.VRING_DESC_F_WRITE
      vm.memory.write(TABLE, u32(HEAD, 0, 16, next | (1 << 16), BUFFER, 0, 512, both | (2 << 16)))
      vm.memory.write(TABLE + 32, u32(BUFFER + 512, 0, 1, Virtio.VRING_DESC_F_WRITE))
      const settings = [
        [Virtio.VIRTIO_MMIO_STATUS, 3],
        [Virtio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1],
        [Virtio.VIRTIO_MMIO_DRIVER_FEATURES, 1],
        [Virtio.VIRTIO_MMIO_STATUS, 11],
        [Virtio.VIRTIO_MMIO_QUEUE_NUM, 8],
        [Virtio.VIRTIO_MMIO_QUEUE_DESC_LOW, TABLE],
        [Virtio.VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAILABLE],
        [Virtio.VIRTIO_MMIO_QUEUE_USED_LOW, USED],
        [Virtio.VIRTIO_MMIO_QUEUE_READY, 1],
        [Virtio.VIRTIO_MMIO_STATUS, 15],
        [0xffffffff, 0]
      ]
      vm.memory.write(REGISTERS, u32(...settings.flat()))
      const guest = yield* startBare(vm, { virtio: [device] })
      const digest = () => createHash("sha1").update(vm.memory.bytes(0, 2 ** 21) ?? assert.fail()).digest("hex")
      for (let round = 1; round <= 20; round++) {
        yield* moves(guest)
        writeFileSync(path, sector(round))
        yield* moves(guest)
        yield* moves(guest)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* guest.machine.freeze
          const before = digest()
          assert.deepStrictEqual(vm.memory.bytes(BUFFER, 512), sector(round))
          writeFileSync(path, sector(99))
          yield* Effect.sleep("5 millis")
          assert.strictEqual(digest(), before)
        }))
      }
    })
)

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
  // vCPUs', and guests' memory, which alone asks for large pages
  mappings: readFileSync("/proc/self/smaps", "latin1").match(/kvm-vcpu|^VmFlags:.* hg( |$)/gm)?.length ?? 0,
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
