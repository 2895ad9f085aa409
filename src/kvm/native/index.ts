export { type Segment, type VcpuRegisters } from "./cpu/Registers.ts"
export * as Kvm from "./Kvm.ts"
export { VmDied } from "./VmDied.ts"
