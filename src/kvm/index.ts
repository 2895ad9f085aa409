export * as Engine from "./Engine.ts"
export { IncludeError } from "./guest/HostFiles.ts"
export type { InitSpec, ShellTerminal } from "./guest/Init.ts"
export { type InitramfsSpec, makeInitramfs, minimumMemoryMib } from "./guest/Initramfs.ts"
export { type KvmVerdict, probeKvm } from "./native/KvmProbe.ts"
export * as Qemu from "./qemu/Qemu.ts"
export {
  type MemorySideCache,
  type NodeMemory,
  type NumaNode,
  parseTopology,
  type Topology,
  TopologyError,
  type TopologySpec
} from "./spec/Topology.ts"
export { VmDied } from "./spec/VmDied.ts"
export {
  type Acceleration,
  type ConsoleSize,
  FreezeTimeout,
  type FrozenVcpu,
  type FrozenVm,
  GuestExited,
  GuestPanicked,
  NotReady,
  type Vm,
  VmBootError,
  VmEngine,
  type VmExit,
  type VmSpec
} from "./spec/VmEngine.ts"
