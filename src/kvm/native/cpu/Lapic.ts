import { Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmNative } from "../abi/KvmNative.ts"

// arch/x86/include/asm/apicdef.h, v6.12
const APIC_LVT0 = 0x350
const APIC_LVT1 = 0x360
const DELIVERY_MODE = 0x700
const EXTINT = 0x700
const NMI = 0x400

/** Wire the local APIC as a BIOS does: LINT0 brings the PICs' interrupts, LINT1 the NMI. @throws KvmError */
export const setLapicPins = (native: KvmNative, vcpu: number): void => {
  const state = new Uint8Array(Struct.kvm_lapic_state.size)
  succeeded("KVM_GET_LAPIC", native.ioctl(vcpu, Request.KVM_GET_LAPIC, state))
  const view = new DataView(state.buffer)
  view.setUint32(APIC_LVT0, (view.getUint32(APIC_LVT0, true) & ~DELIVERY_MODE) | EXTINT, true)
  view.setUint32(APIC_LVT1, (view.getUint32(APIC_LVT1, true) & ~DELIVERY_MODE) | NMI, true)
  succeeded("KVM_SET_LAPIC", native.ioctl(vcpu, Request.KVM_SET_LAPIC, state))
}
