import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { Exit, Request, Struct } from "../native/abi/KvmAbi.ts"
import { KvmError, kvmSync, succeeded } from "../native/abi/KvmError.ts"
import type { KvmNative } from "../native/abi/KvmNative.ts"
import { createKvmVm, type KvmVm } from "../native/abi/KvmVm.ts"
import { setCpuid, supportedCpuid } from "../native/cpu/Cpuid.ts"
import { enterLongMode, writeLongMode } from "../native/cpu/LongMode.ts"

/**
 * The state of /dev/kvm here. `emulated`: it exists and runs a guest, but by interpreting its kernel's instructions,
 * which no stock kernel survives. `mips` is millions of guest instructions a second.
 *
 * @since 0.1.0
 * @category models
 */
export type KvmStatus =
  | { readonly kind: "hardware"; readonly why: string; readonly mips: number }
  | { readonly kind: "emulated"; readonly why: string; readonly mips: number }
  | { readonly kind: "absent"; readonly why: string; readonly hint: string }

const MEMORY = 2 ** 21
/** Guest-physical addresses of the probe guest's two pieces of code, above its tables. */
const LOOP = 0x10_0000
const ANDN = 0x10_0100
const LOOPS = 10_000
/** `mov ecx, LOOPS; 1: dec ecx; jnz 1b; out 0x10, al; jmp` to the start. */
const loopCode = Uint8Array.of(0xb9, ...bytesOf(LOOPS), 0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x10, 0xeb, 0xf3)
/** `andn eax, ebx, ecx; out 0x10, al`: BMI1, which a compiler may use and an emulating KVM does not know. */
const andnCode = Uint8Array.of(0xc4, 0xe2, 0x60, 0xf2, 0xc1, 0xe6, 0x10)

/** Take the best of N runs, since load only slows them; run more if time allows. */
const FEWEST_RUNS = 4
const MEASURE_MS = 10
/**
 * Hardware does thousands, an interpreter 4 at best. Between them is KVM on a CPU that is emulated itself (QEMU's, with
 * AMD's virtualization): Linux guests boot there, and the best of its entries are at 110 to 150, on a busy host too.
 */
const HARDWARE_MIPS = 25
const EINTR = 4
/** A signal for the process breaks KVM_RUN off; a steady stream of them may not keep us here. */
const MOST_SIGNALS = 20

/**
 * Find out by running a guest of a few instructions. Each entry into it runs 20,000 instructions and leaves by itself,
 * so the probe ends, after about 10 ms, 20 where it is interpreted. Never fails; releases all that it opened. Running it,
 * not importing it, loads koffi.
 *
 * @since 0.1.0
 * @category reading
 */
export const probeKvm: Effect.Effect<KvmStatus> = Effect.flatMap(
  Effect.promise(() => import("../native/abi/Koffi.ts")),
  ({ loadKvmNative }) => probeKvmBy(loadKvmNative())
).pipe(Effect.withSpan("KvmProbe"))

/** `probeKvm` by these system calls. */
export const probeKvmBy = (native: KvmNative): Effect.Effect<KvmStatus> =>
  createKvmVm(native, { memoryBytes: MEMORY, apicIds: [0], irqchip: false }).pipe(
    Effect.flatMap((vm) => kvmSync(() => classify(native, vm))),
    Effect.scoped,
    Effect.catchTags({
      HostLacks: ({ hint, what, why }) => Effect.succeed<KvmStatus>({ kind: "absent", why: `${what}: ${why}`, hint }),
      KvmError: ({ message }) =>
        Effect.succeed<KvmStatus>({ kind: "absent", why: `/dev/kvm: ${message}`, hint: "see the kernel's log" })
    })
  )

/** @throws KvmError */
const classify = (native: KvmNative, { kvm, memory, runBytes, vcpus: [vcpu] }: KvmVm): KvmStatus => {
  if (!(writeLongMode(memory) && memory.write(LOOP, loopCode) && memory.write(ANDN, andnCode))) {
    throw new RangeError(`the probe guest does not fit ${MEMORY} bytes`)
  }
  setCpuid(native, vcpu, supportedCpuid(native, kvm))
  const run = native.map(vcpu, 0, runBytes)
  if (typeof run === "number") throw KvmError.of("mmap", -run)
  try {
    const view = new DataView(run.bytes)
    const enter = (): number => {
      let result = -EINTR
      for (let left = MOST_SIGNALS; result === -EINTR && left > 0; left--) {
        result = native.ioctl(vcpu, Request.KVM_RUN, 0)
      }
      succeeded("KVM_RUN", result)
      return view.getUint32(Struct.kvm_run.fields.exit_reason, true)
    }
    enterLongMode(native, vcpu, LOOP, 0)
    let best = Infinity
    const end = performance.now() + MEASURE_MS
    for (let runs = 0; runs < FEWEST_RUNS || performance.now() < end; runs++) {
      const start = performance.now()
      const exit = enter()
      best = Math.min(best, performance.now() - start)
      if (exit !== Exit.KVM_EXIT_IO) return emulated(0, `a guest's first loop left it with exit ${exit}`)
    }
    const mips = Math.round(2 * LOOPS / best / 100) / 10
    if (mips < HARDWARE_MIPS) {
      return emulated(mips, "it interprets a guest kernel's instructions")
    }
    if (!/^flags\s*:.*\bbmi1\b/m.test(readFileSync("/proc/cpuinfo", "latin1"))) return hardware(mips)
    enterLongMode(native, vcpu, ANDN, 0)
    const exit = enter()
    return exit === Exit.KVM_EXIT_IO
      ? hardware(mips)
      : emulated(mips, `it left a guest with exit ${exit} at a BMI instruction that this CPU has`)
  } finally {
    native.unmap(run)
  }
}

const hardware = (mips: number): KvmStatus => ({
  kind: "hardware",
  why: `/dev/kvm runs guests at ${mips} million instructions a second`,
  mips
})

/** Without the speed: the reason is in the record of an exact run, and the host's load changes it. */
const emulated = (mips: number, why: string): KvmStatus => ({
  kind: "emulated",
  why: `/dev/kvm is not usable: ${why}`,
  mips
})

function bytesOf(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer)
}
