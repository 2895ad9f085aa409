import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import assert from "node:assert"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { loadKvmNative } from "../../../../src/kvm/native/abi/Koffi.ts"
import { createKvmVm, type KvmVm } from "../../../../src/kvm/native/abi/KvmVm.ts"
import { cpuidOf, setCpuid, supportedCpuid } from "../../../../src/kvm/native/cpu/Cpuid.ts"
import { enterLongMode, writeLongMode } from "../../../../src/kvm/native/cpu/LongMode.ts"
import { startMachine } from "../../../../src/kvm/native/Machine.ts"
import type { VirtioDevice } from "../../../../src/kvm/native/virtio/VirtioDevice.ts"
import { apicIds, resolveTopology } from "../../../../src/kvm/spec/Topology.ts"

/** Where a bare-metal guest's code is, guest-physical. Its words to the test are from `DATA` on. */
export const CODE = 0x10_0000
export const DATA = 0x8_0000

/** The bytes of an assembler program (GNU syntax, AT&T operands) that starts at `CODE`. */
export const assemble = (source: string): Uint8Array => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-asm-"))
  const [text, object, program, binary] = ["guest.s", "guest.o", "guest", "guest.bin"].map((name) =>
    join(directory, name)
  )
  try {
    writeFileSync(text, `.globl _start\n_start:\n${source}\n`)
    execFileSync("as", ["--64", "-o", object, text])
    execFileSync("ld", ["-Ttext", `${CODE}`, "-o", program, object])
    execFileSync("objcopy", ["-O", "binary", "-j", ".text", program, binary])
    return readFileSync(binary)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/**
 * A VM of 2 MiB whose vCPUs all start at `CODE` in 64-bit mode, each with its number in RSI; with interrupt controllers
 * the first one alone, and the others wait to be started.
 */
export const bareVm = (code: Uint8Array, cpus = 1, irqchip = false) =>
  Effect.gen(function*() {
    const native = loadKvmNative()
    const topology = yield* resolveTopology({ cpus })
    const vm: KvmVm = yield* createKvmVm(native, { memoryBytes: 2 ** 21, apicIds: apicIds(topology), irqchip })
    const supported = supportedCpuid(native, vm.kvm)
    if (!writeLongMode(vm.memory) || !vm.memory.write(CODE, code)) throw new Error("the guest does not fit")
    for (const [id, vcpu] of vm.vcpus.entries()) {
      setCpuid(native, vcpu, cpuidOf(supported, topology, id, false))
      enterLongMode(native, vcpu, CODE, id)
    }
    return vm
  })

export interface BareOptions {
  readonly freezeMillis?: number
  readonly reboots?: boolean
  readonly irqchip?: boolean
  readonly virtio?: ReadonlyArray<VirtioDevice>
  readonly holdsSerial?: () => boolean
}

/** Run such a VM; `said` is what it has sent on its serial ports so far. */
export const startBare = (vm: KvmVm, options: BareOptions = {}) =>
  Effect.gen(function*() {
    const said = ["", ""]
    const machine = yield* startMachine(vm, {
      irqchip: options.irqchip ?? false,
      virtio: options.virtio ?? [],
      holdsSerial: options.holdsSerial ?? (() => false),
      tripleFaultResets: options.reboots ?? false,
      consoleTail: () => said[0].split("\n"),
      freezeTimeout: Duration.millis(options.freezeMillis ?? 5000),
      onSerial: (port, bytes) => {
        said[port] += Buffer.from(bytes).toString("latin1")
      }
    })
    return { vm, machine, said }
  })

/** `startBare` of a new `bareVm`. */
export const bareMachine = (code: Uint8Array, options: BareOptions & { readonly cpus?: number } = {}) =>
  Effect.flatMap(bareVm(code, options.cpus, options.irqchip), (vm) => startBare(vm, options))

export type Bare = Effect.Effect.Success<ReturnType<typeof bareMachine>>

/** What guests count at `DATA`, a number a vCPU. */
export const counters = ({ vm }: Bare) => vm.vcpus.map((_, id) => vm.memory.u64(DATA + 8 * id))

/** Fails when any vCPU counts. */
export const stands = (guest: Bare) =>
  Effect.gen(function*() {
    const before = counters(guest)
    yield* Effect.sleep("5 millis")
    assert.deepStrictEqual(counters(guest), before)
  })
