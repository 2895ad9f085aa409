import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { closeSync, readFileSync } from "node:fs"
import type { SyscallError } from "../core/Errors.ts"
import { Native } from "../core/Native.ts"

/**
 * What /dev/kvm is worth here. `emulated`: it exists and runs a guest, but by interpreting its kernel's instructions,
 * which no stock kernel survives. `mips` is millions of guest instructions a second.
 */
export type KvmVerdict =
  | { readonly kind: "hardware"; readonly why: string; readonly mips: number }
  | { readonly kind: "emulated"; readonly why: string; readonly mips: number }
  | { readonly kind: "absent"; readonly why: string; readonly mend: string }

// include/uapi/linux/kvm.h, v6.12; requests as the macros there give them on x86-64
const KVM_GET_API_VERSION = 0xae00
const KVM_CREATE_VM = 0xae01
const KVM_GET_VCPU_MMAP_SIZE = 0xae04
const KVM_GET_SUPPORTED_CPUID = 0xc008ae05
const KVM_CREATE_VCPU = 0xae41
const KVM_SET_USER_MEMORY_REGION = 0x4020ae46
const KVM_SET_TSS_ADDR = 0xae47
const KVM_RUN = 0xae80
const KVM_SET_REGS = 0x4090ae82
const KVM_GET_SREGS = 0x8138ae83
const KVM_SET_SREGS = 0x4138ae84
const KVM_SET_CPUID2 = 0x4008ae90
const KVM_EXIT_IO = 2
const API_VERSION = 12
const O_RDWR = 2

/** Guest-physical addresses of the probe guest's tables and code, and its size. */
const guest = { pml4: 0x1000, pdpt: 0x2000, pd: 0x3000, loop: 0x4000, andn: 0x4100, size: 0x200000 } as const
const LOOPS = 10_000
/** `mov ecx, LOOPS; 1: dec ecx; jnz 1b; out 0x10, al; jmp` to the start. */
const loopCode = [0xb9, ...littleEndian(LOOPS), 0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x10, 0xeb, 0xf3]
/** `andn eax, ebx, ecx; out 0x10, al`: BMI1, which a compiler may use and an emulating KVM does not know. */
const andnCode = [0xc4, 0xe2, 0x60, 0xf2, 0xc1, 0xe6, 0x10]

/** Longest time spent measuring, in milliseconds, after the run that crosses it. */
const MEASURE_MS = 10
const MOST_RUNS = 2000
/** Hardware does thousands, an interpreter about four. */
const HARDWARE_MIPS = 100

/**
 * Find out by running a guest of a few instructions. Each entry into it runs 20,000 instructions and leaves by itself,
 * so the probe ends, after about 10 ms. Never fails; releases all that it opened.
 */
export const probeKvm: Effect.Effect<KvmVerdict, never, Native> = Effect.suspend(() => Effect.scoped(probe)).pipe(
  Effect.catchTag("SyscallError", (error) => Effect.succeed(absent(error))),
  Effect.withSpan("KvmProbe")
)

const probe: Effect.Effect<KvmVerdict, SyscallError, Native | Scope.Scope> = Effect.gen(function*() {
  const native = yield* Native
  const kvm = yield* native.open("/dev/kvm", O_RDWR)
  const version = yield* native.ioctl(kvm, KVM_GET_API_VERSION, 0)
  if (version !== API_VERSION) {
    return { kind: "absent", why: `/dev/kvm speaks API ${version}, not ${API_VERSION}`, mend: "use a current kernel" }
  }
  const vm = yield* descriptor(native.ioctl(kvm, KVM_CREATE_VM, 0))
  const name = `ktstr-probe-${process.pid}-${kvm}`
  const memory = new Uint8Array(yield* native.mmap(yield* native.memfd(name, guest.size), 0, guest.size, "write"))
  writeGuest(new DataView(memory.buffer, memory.byteOffset), memory)
  yield* native.ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000)
  yield* native.ioctl(vm, KVM_SET_USER_MEMORY_REGION, memoryRegion(addressOf(name)))
  const vcpu = yield* descriptor(native.ioctl(vm, KVM_CREATE_VCPU, 0))
  const cpuid = new Uint8Array(8 + 40 * 256)
  new DataView(cpuid.buffer).setUint32(0, 256, true)
  yield* native.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid)
  yield* native.ioctl(vcpu, KVM_SET_CPUID2, cpuid)
  const special = new Uint8Array(312)
  yield* native.ioctl(vcpu, KVM_GET_SREGS, special)
  yield* native.ioctl(vcpu, KVM_SET_SREGS, longMode(special))
  const run = new DataView(
    yield* native.mmap(vcpu, 0, yield* native.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "write")
  )
  // a signal for the process breaks KVM_RUN off; a steady stream of them may not keep us here
  const enter = Effect.map(
    Effect.retry(native.ioctl(vcpu, KVM_RUN, 0), { times: 20, while: (error) => error.code === "EINTR" }),
    () => run.getUint32(8, true)
  )

  yield* native.ioctl(vcpu, KVM_SET_REGS, startAt(guest.loop))
  const start = performance.now()
  let elapsed = 0
  let runs = 0
  while (elapsed < MEASURE_MS && runs < MOST_RUNS) {
    const exit = yield* enter
    elapsed = performance.now() - start
    if (exit !== KVM_EXIT_IO) return emulated(0, `a guest's first loop left it with exit ${exit}`)
    runs++
  }
  const mips = Math.round(runs * 2 * LOOPS / elapsed / 100) / 10
  if (mips < HARDWARE_MIPS) {
    return emulated(mips, `it interprets a guest kernel's instructions, ${mips} million a second`)
  }
  if (!/^flags\s*:.*\bbmi1\b/m.test(readFileSync("/proc/cpuinfo", "latin1"))) return hardware(mips)
  yield* native.ioctl(vcpu, KVM_SET_REGS, startAt(guest.andn))
  const exit = yield* enter
  return exit === KVM_EXIT_IO
    ? hardware(mips)
    : emulated(mips, `it left a guest with exit ${exit} at a BMI instruction that this CPU has`)
})

const hardware = (mips: number): KvmVerdict => ({
  kind: "hardware",
  why: `/dev/kvm runs guests at ${mips} million instructions a second`,
  mips
})

const emulated = (mips: number, why: string): KvmVerdict => ({
  kind: "emulated",
  why: `/dev/kvm is no use: ${why}`,
  mips
})

const absent = (error: SyscallError): KvmVerdict => {
  if (error.syscall !== "open") {
    return { kind: "absent", why: `/dev/kvm: ${error.message}`, mend: "see the kernel's log" }
  }
  if (error.code === "EACCES" || error.code === "EPERM") {
    return { kind: "absent", why: "/dev/kvm may not be opened by this user", mend: "adduser USER kvm, and log in anew" }
  }
  const mend = "switch virtualisation on in the firmware and load kvm-intel or kvm-amd"
  return { kind: "absent", why: `/dev/kvm cannot be opened: ${error.code}`, mend }
}

const descriptor = (opened: Effect.Effect<number, SyscallError>) =>
  Effect.acquireRelease(opened, (fd) => Effect.sync(() => closeSync(fd)))

/** Where a mapping of the memfd `name` is in our address space; KVM wants to know, and a buffer does not tell. */
const addressOf = (name: string): bigint => {
  const line = readFileSync("/proc/self/maps", "latin1").split("\n").find((each) => each.includes(`/memfd:${name} `))
  if (line === undefined) throw new Error(`${name} is not in /proc/self/maps`)
  return BigInt(`0x${line.split("-")[0]}`)
}

const writeGuest = (view: DataView, bytes: Uint8Array): void => {
  view.setBigUint64(guest.pml4, BigInt(guest.pdpt | 3), true)
  view.setBigUint64(guest.pdpt, BigInt(guest.pd | 3), true)
  view.setBigUint64(guest.pd, 0x83n, true) // the first 2 MiB as one page
  bytes.set(loopCode, guest.loop)
  bytes.set(andnCode, guest.andn)
}

/** `struct kvm_userspace_memory_region`: slot 0 at physical address 0. */
const memoryRegion = (address: bigint): Uint8Array => {
  const region = new DataView(new ArrayBuffer(32))
  region.setBigUint64(16, BigInt(guest.size), true)
  region.setBigUint64(24, address, true)
  return new Uint8Array(region.buffer)
}

/**
 * `struct kvm_sregs` for 64-bit mode with the guest's page tables: eight `kvm_segment` of 24 bytes (cs ds es fs gs ss tr
 * ldt), two tables, cr0 at 224, cr3 at 240, cr4, cr8, efer at 264.
 */
const longMode = (special: Uint8Array): Uint8Array => {
  const view = new DataView(special.buffer)
  for (let segment = 0; segment < 6; segment++) {
    const code = segment === 0
    view.setBigUint64(segment * 24, 0n, true)
    view.setUint32(segment * 24 + 8, 0xffffffff, true)
    view.setUint16(segment * 24 + 12, code ? 8 : 16, true)
    // type, present, dpl, db, s, l, g
    special.set([code ? 11 : 3, 1, 0, code ? 0 : 1, 1, code ? 1 : 0, 1], segment * 24 + 14)
  }
  view.setBigUint64(224, 0x80050033n, true) // PE MP ET NE WP AM PG
  view.setBigUint64(240, BigInt(guest.pml4), true)
  view.setBigUint64(248, 0x20n, true) // PAE
  view.setBigUint64(264, 0x500n, true) // LME LMA
  return special
}

/** `struct kvm_regs`: rip at 128, rflags with its fixed bit at 136. */
const startAt = (rip: number): Uint8Array => {
  const registers = new DataView(new ArrayBuffer(144))
  registers.setBigUint64(128, BigInt(rip), true)
  registers.setBigUint64(136, 2n, true)
  return new Uint8Array(registers.buffer)
}

function littleEndian(value: number): ReadonlyArray<number> {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)
}
