export * as Engine from "./Engine.ts"
export { bootCount, freezeMillis } from "./guest/BootedVm.ts"
export type { GuestModule } from "./guest/GuestModules.ts"
export { IncludeError } from "./guest/HostFiles.ts"
export type { InitSpec, ShellTerminal } from "./guest/Init.ts"
export { type InitramfsSpec, makeInitramfs, minimumMemoryMib } from "./guest/Initramfs.ts"
export { type KvmStatus, probeKvm } from "./probe/KvmProbe.ts"
export { type Emulation, type ExactEmulation, type QemuProgram } from "./qemu/Emulation.ts"
export * as Qemu from "./qemu/Qemu.ts"
export { type AttachedQemu, attachQemu, QemuAttachFailed, runningQemu } from "./qemu/QemuAttach.ts"
export type { Share } from "./spec/Share.ts"
export {
  type MemorySideCache,
  type NodeMemory,
  type NumaNode,
  parseTopology,
  type Topology,
  TopologyError,
  type TopologySpec
} from "./spec/Topology.ts"
export { type Arm64Registers, type CpuRegisters, type Segment, type VcpuRegisters } from "./spec/VcpuRegisters.ts"
export { VmDied } from "./spec/VmDied.ts"
export {
  type Acceleration,
  type ConsoleSize,
  ExecFailed,
  type ExecOptions,
  type ExecResult,
  FreezeFailed,
  type FrozenVcpu,
  type FrozenVm,
  GuestExited,
  GuestPanicked,
  InitramfsIncomplete,
  NotReady,
  NotWatched,
  Vm,
  VmBootError,
  type VmEnded,
  VmEngine,
  type VmEngineService,
  type VmExit,
  type VmSpec,
  type WriteWatch
} from "./spec/VmEngine.ts"
