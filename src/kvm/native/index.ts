export * as Kvm from "./Kvm.ts"
export { type Segment, type VcpuRegisters } from "./Registers.ts"
export { VmDied } from "./VmDied.ts"
