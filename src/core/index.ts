/** What every stage stands on. Nothing here loads koffi: that layer is `ktstr/native`. */
export { hex, Kva, kvaFrom, KvaFromHex, kvaOffset, kvaPage, Pa } from "./Address.ts"
export { CacheError, cacheKeys, cacheRoot, storeEntry } from "./CacheDir.ts"
export { DebianKernelMetadata, KernelFetchFailed, KernelPackageMissing } from "./DebianKernel.ts"
export { compareDebianVersions } from "./DebianVersion.ts"
export { decompress } from "./Decompress.ts"
export { ElfFile, type ElfNeeded, type ElfSection, type ElfSegment, parseElf, SectionType, SegmentType } from "./Elf.ts"
export { errnoName, FormatError, HostLacks, parsing, SyscallError } from "./Errors.ts"
export { type DebianSelector, type KernelId, KernelIdInvalid, parseKernelId } from "./KernelId.ts"
export { releaseOf, vmlinuxOf } from "./KernelImage.ts"
export {
  type KernelArtifacts,
  KernelNotFound,
  KernelResolver,
  layer as layerKernelResolver,
  type ResolveError
} from "./KernelResolver.ts"
export { Native } from "./Native.ts"
export { Progress, stage } from "./Progress.ts"
