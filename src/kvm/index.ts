export { IncludeError } from "./HostFiles.ts"
export { type InitramfsSpec, makeInitramfs } from "./Initramfs.ts"
export { type KvmVerdict, probeKvm } from "./KvmProbe.ts"
export * as Qemu from "./Qemu.ts"
export {
  type Acceleration,
  FreezeTimeout,
  type FrozenVm,
  GuestExited,
  GuestPanicked,
  NotReady,
  type Topology,
  type Vm,
  VmBootError,
  VmEngine,
  type VmExit,
  type VmSpec
} from "./VmEngine.ts"
