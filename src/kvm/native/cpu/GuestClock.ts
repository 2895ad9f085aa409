import { Constant, Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmVm } from "../abi/KvmVm.ts"

/** The clocks of a VM at one instant. */
export interface ClockReading {
  /** KVM's clock, in nanoseconds. */
  readonly nanos: bigint
  /** The host's TSC at the same instant; undefined where KVM cannot tell, because its clock is not made of the TSC. */
  readonly hostTsc: bigint | undefined
  /** The host's CLOCK_REALTIME then, in nanoseconds; with `hostTsc`. */
  readonly realtime: bigint
}

const at = Struct.kvm_clock_data.fields

/** Read a VM's clock. @throws KvmError */
export const readClock = ({ native, vm }: KvmVm): ClockReading => {
  const clock = new DataView(new ArrayBuffer(Struct.kvm_clock_data.size))
  succeeded("KVM_GET_CLOCK", native.ioctl(vm, Request.KVM_GET_CLOCK, new Uint8Array(clock.buffer)))
  const paired = Constant.KVM_CLOCK_HOST_TSC | Constant.KVM_CLOCK_REALTIME
  const hasTsc = (clock.getUint32(at.flags, true) & paired) === paired
  return {
    nanos: clock.getBigUint64(at.clock, true),
    hostTsc: hasTsc ? clock.getBigUint64(at.host_tsc, true) : undefined,
    realtime: clock.getBigUint64(at.realtime, true)
  }
}

/**
 * Set the clocks of a VM whose vCPUs stand back to a reading, so that the guest does not see the time since.
 *
 * KVM's clock alone would not do. A vCPU's page of it changes only when that vCPU runs again, which an idle one does not
 * for long, and the guest's vDSO reads the boot CPU's page on all of them: until then it shows the time since, and then
 * goes back. So the TSCs, which the pages count from, are set back by as much, and the old pages stay right. (Seen with
 * Linux 6.12 as guest and as host: CLOCK_MONOTONIC went back by the length of a freeze, one in fifty.)
 * Where KVM's clock is not made of the TSC, how far the TSC has gone is told by the clock and the TSC's rate.
 * @see Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET; arch/x86/kvm/x86.c kvm_vm_ioctl_set_clock, v6.12
 * @throws KvmError
 */
export const setClockBack = (vm: KvmVm, reading: ClockReading): void => {
  const now = readClock(vm)
  const clock = new DataView(new ArrayBuffer(Struct.kvm_clock_data.size))
  const exact = reading.hostTsc !== undefined && now.hostTsc !== undefined ? now.hostTsc - reading.hostTsc : undefined
  if (vm.vcpus.every((vcpu) => hasTscOffset(vm, vcpu))) {
    for (const vcpu of vm.vcpus) {
      const passed = exact ?? (now.nanos - reading.nanos) * tscKhz(vm, vcpu) / 1_000_000n
      const offset = tscOffset(vm, vcpu, Request.KVM_GET_DEVICE_ATTR, 0n)
      tscOffset(vm, vcpu, Request.KVM_SET_DEVICE_ATTR, BigInt.asUintN(64, offset - passed))
    }
  }
  // the TSCs have gone on since `now`: the same time is added to the clock, by KVM where it can
  if (exact !== undefined) {
    clock.setUint32(at.flags, Constant.KVM_CLOCK_REALTIME, true)
    clock.setBigUint64(at.realtime, now.realtime, true)
    clock.setBigUint64(at.clock, reading.nanos, true)
  } else clock.setBigUint64(at.clock, reading.nanos + readClock(vm).nanos - now.nanos, true)
  succeeded("KVM_SET_CLOCK", vm.native.ioctl(vm.vm, Request.KVM_SET_CLOCK, new Uint8Array(clock.buffer)))
}

/** A vCPU's TSC goes on by as many thousand ticks in a second. */
const tscKhz = ({ native }: KvmVm, vcpu: number): bigint =>
  BigInt(succeeded("KVM_GET_TSC_KHZ", native.ioctl(vcpu, Request.KVM_GET_TSC_KHZ, 0)))

/** Since Linux 5.16. */
const hasTscOffset = ({ native }: KvmVm, vcpu: number): boolean =>
  native.ioctl(vcpu, Request.KVM_HAS_DEVICE_ATTR, attribute(0n)) === 0

/** Get or set what KVM adds to the host's TSC for a vCPU; gives it. */
const tscOffset = (
  { native }: KvmVm,
  vcpu: number,
  request: typeof Request.KVM_GET_DEVICE_ATTR | typeof Request.KVM_SET_DEVICE_ATTR,
  value: bigint
): bigint => {
  const offset = new BigUint64Array(new ArrayBuffer(8))
  offset[0] = value
  const name = request === Request.KVM_GET_DEVICE_ATTR ? "KVM_GET_DEVICE_ATTR" : "KVM_SET_DEVICE_ATTR"
  succeeded(name, native.ioctl(vcpu, request, attribute(native.addressOf(offset.buffer))))
  return offset[0]
}

const attribute = (address: bigint): Uint8Array => {
  const bytes = new DataView(new ArrayBuffer(Struct.kvm_device_attr.size))
  const { addr, attr, group } = Struct.kvm_device_attr.fields
  bytes.setUint32(group, Constant.KVM_VCPU_TSC_CTRL, true)
  bytes.setBigUint64(attr, BigInt(Constant.KVM_VCPU_TSC_OFFSET), true)
  bytes.setBigUint64(addr, address, true)
  return new Uint8Array(bytes.buffer)
}
