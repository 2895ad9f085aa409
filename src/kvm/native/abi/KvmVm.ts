import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { errnoName, HostLacks } from "../../../core/Errors.ts"
import { GuestMemory } from "../../../memory/GuestMemory.ts"
import { type RamRange, regionsOf } from "../../spec/MemoryLayout.ts"
import { API_VERSION, Capability, type CapabilityName, Constant, Request, Struct } from "./KvmAbi.ts"
import { KvmError, kvmSync, succeeded } from "./KvmError.ts"
import type { KvmNative } from "./KvmNative.ts"

const PAGE = 4096
const GIB = 2 ** 30
/** Where RAM stops below 4 GiB: the local APICs, the I/O APIC and KVM's own pages are above it. */
const LOW_RAM = 3 * GIB
const HIGH_RAM = 4 * GIB
/** Three pages that KVM needs on Intel CPUs, and one before them: below the BIOS, as in QEMU. */
const TSS_ADDRESS = 0xfffbd000

export interface KvmVmSpec {
  /** Bytes of RAM, whole pages. */
  readonly memoryBytes: number
  /** The local APIC's id of each CPU. */
  readonly apicIds: ReadonlyArray<number>
  /** Whether KVM emulates the PICs, the I/O APIC, the local APICs and the PIT. Without, HLT leaves the guest. */
  readonly irqchip: boolean
}

/** A VM's descriptors and memory; closed with its scope. Nothing runs yet. */
export interface KvmVm {
  readonly native: KvmNative
  readonly kvm: number
  readonly vm: number
  /** Descriptors of the vCPUs, by vCPU number. */
  readonly vcpus: ReadonlyArray<number>
  /** Bytes of the area that each vCPU's descriptor shares (`struct kvm_run` and what follows it). */
  readonly runBytes: number
  /** Borrowed: touched after the scope has closed, it is a segmentation fault. */
  readonly memory: GuestMemory
}

/** Guest-physical ranges of `bytes` of RAM: below 3 GiB, and what is left from 4 GiB on. */
export const ramLayout = (bytes: number): ReadonlyArray<RamRange> => {
  const low = Math.min(bytes, LOW_RAM)
  return low === bytes
    ? [{ start: 0, length: low, offset: 0 }]
    : [{ start: 0, length: low, offset: 0 }, { start: HIGH_RAM, length: bytes - low, offset: low }]
}

/** The capabilities of KVM that the engine needs. */
const required: ReadonlyArray<CapabilityName> = [
  "KVM_CAP_USER_MEMORY",
  "KVM_CAP_SET_TSS_ADDR",
  "KVM_CAP_EXT_CPUID",
  "KVM_CAP_IRQCHIP",
  "KVM_CAP_PIT2",
  "KVM_CAP_ADJUST_CLOCK"
]

/**
 * Create a VM: memory (in pieces of 1 GiB), interrupt controllers, vCPUs as KVM resets them.
 * Fails with `HostLacks` where /dev/kvm cannot be opened or lacks a capability, with `KvmError` where a call fails.
 */
export const createKvmVm = (
  native: KvmNative,
  spec: KvmVmSpec
): Effect.Effect<KvmVm, KvmError | HostLacks, Scope.Scope> =>
  Effect.gen(function*() {
    const descriptor = (open: () => number) =>
      Effect.acquireRelease(kvmSync(open), (fd) => Effect.sync(() => native.close(fd)))

    const kvm = yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const fd = native.open("/dev/kvm")
        return fd >= 0 ? Effect.succeed(fd) : cannotOpen(-fd)
      }),
      (fd) => Effect.sync(() => native.close(fd))
    )
    const version = yield* kvmSync(() =>
      succeeded("KVM_GET_API_VERSION", native.ioctl(kvm, Request.KVM_GET_API_VERSION, 0))
    )
    if (version !== API_VERSION) return yield* lacks(`it speaks API ${version}, not ${API_VERSION}`)
    for (const name of required) {
      if (checkExtension(native, kvm, name) <= 0) return yield* lacks(`it lacks ${name}`)
    }
    const most = checkExtension(native, kvm, "KVM_CAP_MAX_VCPUS")
    const cpus = spec.apicIds.length
    if (cpus > most) return yield* lacks(`it gives a VM ${most} CPUs at most, not ${cpus}`)

    const vm = yield* descriptor(() => succeeded("KVM_CREATE_VM", native.ioctl(kvm, Request.KVM_CREATE_VM, 0)))
    yield* kvmSync(() => succeeded("KVM_SET_TSS_ADDR", native.ioctl(vm, Request.KVM_SET_TSS_ADDR, TSS_ADDRESS)))
    if (spec.irqchip) {
      yield* kvmSync(() => {
        succeeded("KVM_CREATE_IRQCHIP", native.ioctl(vm, Request.KVM_CREATE_IRQCHIP, 0))
        const pit = new DataView(new ArrayBuffer(Struct.kvm_pit_config.size))
        pit.setUint32(Struct.kvm_pit_config.fields.flags, Constant.KVM_PIT_SPEAKER_DUMMY, true)
        succeeded("KVM_CREATE_PIT2", native.ioctl(vm, Request.KVM_CREATE_PIT2, new Uint8Array(pit.buffer)))
      })
    }
    const memory = yield* createMemory(native, vm, spec.memoryBytes)
    const runBytes = yield* kvmSync(() =>
      succeeded("KVM_GET_VCPU_MMAP_SIZE", native.ioctl(kvm, Request.KVM_GET_VCPU_MMAP_SIZE, 0))
    )
    const vcpus = yield* Effect.forEach(
      spec.apicIds,
      (id) => descriptor(() => succeeded("KVM_CREATE_VCPU", native.ioctl(vm, Request.KVM_CREATE_VCPU, id)))
    )
    return { native, kvm, vm, vcpus, runBytes, memory }
  })

/** The result of KVM_CHECK_EXTENSION: 0 is no, else yes or how many. */
export const checkExtension = (native: KvmNative, kvm: number, name: CapabilityName): number =>
  native.ioctl(kvm, Request.KVM_CHECK_EXTENSION, Capability[name])

const createMemory = (
  native: KvmNative,
  vm: number,
  bytes: number
): Effect.Effect<GuestMemory, KvmError, Scope.Scope> =>
  Effect.gen(function*() {
    if (!(Number.isSafeInteger(bytes) && bytes > 0 && bytes % PAGE === 0)) {
      return yield* Effect.die(new RangeError(`${bytes} bytes of memory are not whole pages`))
    }
    const ranges = ramLayout(bytes)
    const windows = yield* Effect.acquireRelease(
      kvmSync(() => {
        const mapped: Array<{ readonly address: bigint; readonly bytes: ArrayBuffer }> = []
        try {
          for (let at = 0; at < bytes; at += GIB) {
            const mapping = native.allocate(Math.min(GIB, bytes - at))
            if (typeof mapping === "number") throw KvmError.of("mmap", -mapping)
            mapped.push(mapping)
          }
          return mapped
        } catch (error) {
          mapped.forEach(native.unmap)
          throw error
        }
      }),
      (mapped) => Effect.sync(() => mapped.forEach(native.unmap))
    )
    const regions = regionsOf(ranges, windows.map((window) => new Uint8Array(window.bytes)), GIB)
    yield* kvmSync(() =>
      regions.forEach((region, slot) => {
        const window = windows.find((each) => each.bytes === region.bytes.buffer)
        if (window === undefined) throw new TypeError("a region lies in no window")
        const at = Struct.kvm_userspace_memory_region.fields
        const argument = new DataView(new ArrayBuffer(Struct.kvm_userspace_memory_region.size))
        argument.setUint32(at.slot, slot, true)
        argument.setBigUint64(at.guest_phys_addr, BigInt(region.start), true)
        argument.setBigUint64(at.memory_size, BigInt(region.bytes.length), true)
        argument.setBigUint64(at.userspace_addr, window.address + BigInt(region.bytes.byteOffset), true)
        const result = native.ioctl(vm, Request.KVM_SET_USER_MEMORY_REGION, new Uint8Array(argument.buffer))
        succeeded("KVM_SET_USER_MEMORY_REGION", result)
      })
    )
    return yield* Effect.acquireRelease(
      Effect.orDie(GuestMemory.make(regions, { subject: "the guest", writable: true })),
      (memory) => Effect.sync(() => memory.release())
    )
  })

const lacks = (why: string) =>
  new HostLacks({ what: "/dev/kvm", why, hint: "use a current kernel, or the QEMU engine" })

const cannotOpen = (errno: number): HostLacks => {
  const code = errnoName(errno)
  const hint = code === "EACCES" || code === "EPERM"
    ? "adduser USER kvm, and log in again"
    : "switch virtualization on in the firmware and load kvm-intel or kvm-amd, or use the QEMU engine"
  return new HostLacks({ what: "/dev/kvm", why: `it cannot be opened: ${code}`, hint })
}
