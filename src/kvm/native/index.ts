export { VmDied } from "../spec/VmDied.ts"
export { type Segment, type VcpuRegisters } from "./cpu/Registers.ts"
export * as Kvm from "./Kvm.ts"
