export { Arm64PageTable, type Arm64Paging } from "./arch/Arm64PageTable.ts"
export {
  type ArchName,
  findDirectMap,
  NOT_PRESENT,
  OUT_OF_MEMORY,
  PageTable,
  type PageTableShape
} from "./arch/PageTable.ts"
export { X86PageTable } from "./arch/X86PageTable.ts"
export { type Arm64VmcoreCpu, makeVmcore, type Vmcore, type VmcoreCpu, type X86VmcoreCpu } from "./cores/Vmcore.ts"
export { NoBtf, NotAKernel, Unmapped, WrongKernel } from "./Errors.ts"
export { GuestKernel, type GuestKernelService } from "./GuestKernel.ts"
export { GuestMemory, type MemoryRegion, type NextWritten, type PagedSource } from "./GuestMemory.ts"
export { Kallsyms, type KallsymsEncoding } from "./kallsyms/Kallsyms.ts"
export {
  type Fault,
  KernelSpace,
  pointerOffset,
  pointerPage,
  READ_LIMIT,
  type Translations,
  WINDOW_LIMIT
} from "./KernelSpace.ts"
export { isLocated, type KernelLocation, type KernelNotLocated, locateByVmcoreinfo } from "./LocateKernel.ts"
export { openMemoryImage } from "./MemoryImage.ts"
export { type PerCpuOffsets, perCpuOffsets } from "./PerCpu.ts"
export { type LocateKernel } from "./RawMemory.ts"
export { SaveError, saveImage, saveVmcore } from "./SaveImage.ts"
export { type SparsePiece } from "./SparsePieces.ts"
export {
  type EntryVisitor,
  type IdrLayout,
  idrLayout,
  isValueEntry,
  walkIdr,
  walkXarray,
  type XarrayLayout,
  xarrayLayout
} from "./structs/Xarray.ts"
export { type KernelSymbol, type Symbols } from "./Symbols.ts"
export { findVmcoreinfo, Vmcoreinfo } from "./Vmcoreinfo.ts"
export { locateByVmlinux, openVmlinux, parseVmlinux, type Vmlinux, VmlinuxSymbols } from "./Vmlinux.ts"
