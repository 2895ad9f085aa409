export {
  type ControlRegister,
  type GeneralRegister,
  type MsrName,
  type Segment,
  type SegmentRegister,
  type VcpuRegisters
} from "../spec/VcpuRegisters.ts"
export { VmDied } from "../spec/VmDied.ts"
export * as Kvm from "./Kvm.ts"
