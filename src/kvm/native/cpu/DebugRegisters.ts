import { Constant, Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmVm } from "../abi/KvmVm.ts"

/** Bytes of virtual memory, 1, 2, 4 or 8 of them, aligned to their number. */
export interface WatchedBytes {
  readonly address: bigint
  readonly bytes: number
}

// DR7, Intel SDM volume 3, "Debug Control Register"; AMD64 APM volume 2, "Debug-Control Register"
const DR7_FIXED = 0x400
/** G0, two bits from one register to the next. */
const DR7_ENABLE = 2
/** R/W0: data writes; four bits from one register to the next. */
const DR7_WRITES = 1 << 16
/** LEN0, by bytes. */
const DR7_LENGTH: Readonly<Record<number, number>> = { 1: 0, 2: 1 << 18, 8: 2 << 18, 4: 3 << 18 }

/**
 * Have KVM leave the guest (KVM_EXIT_DEBUG) right after each write to these places, four at most, on every vCPU; none: not
 * any more. Meanwhile the guest's own debug registers match nothing. The vCPUs are outside KVM_RUN. @throws KvmError
 * @see Documentation/virt/kvm/api.rst, "KVM_SET_GUEST_DEBUG", v6.12
 */
export const setWatches = ({ native, vcpus }: KvmVm, places: ReadonlyArray<WatchedBytes>): void => {
  const at = Struct.kvm_guest_debug.fields
  const debug = new DataView(new ArrayBuffer(Struct.kvm_guest_debug.size))
  let control = DR7_FIXED
  for (const [index, { address, bytes }] of places.entries()) {
    debug.setBigUint64(at["arch.debugreg"] + 8 * index, address, true)
    control |= (DR7_ENABLE << (2 * index)) | ((DR7_WRITES | DR7_LENGTH[bytes]) << (4 * index))
  }
  debug.setBigUint64(at["arch.debugreg"] + 8 * 7, BigInt(control >>> 0), true)
  if (places.length > 0) {
    debug.setUint32(at.control, Constant.KVM_GUESTDBG_ENABLE | Constant.KVM_GUESTDBG_USE_HW_BP, true)
  }
  for (const vcpu of vcpus) {
    succeeded("KVM_SET_GUEST_DEBUG", native.ioctl(vcpu, Request.KVM_SET_GUEST_DEBUG, new Uint8Array(debug.buffer)))
  }
}
