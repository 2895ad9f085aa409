export { VmDied } from "../spec/VmDied.ts"
export {
  type ControlRegister,
  type GeneralRegister,
  type MsrName,
  type Segment,
  type SegmentRegister,
  type VcpuRegisters
} from "./cpu/Registers.ts"
export * as Kvm from "./Kvm.ts"
