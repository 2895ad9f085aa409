/** The foundation of every stage. Nothing here loads koffi: the layer that does is `ktstr/native`. */
export { hex, Kva, kvaFrom, KvaFromHex, kvaOffset, kvaPage, Pa } from "./Address.ts"
export { CacheError, cacheRoot } from "./CacheDir.ts"
export { LockTimeout, withLock } from "./EntryLock.ts"
export { errnoName, FetchFailed, HostLacks, KernelIdInvalid, KernelNotFound, SyscallError } from "./Errors.ts"
export { FormatError, parsing } from "./FormatError.ts"
export { buildIdOf } from "./image/BuildId.ts"
export { decompress, decompressWithin } from "./image/Decompress.ts"
export {
  ElfFile,
  type ElfNeeded,
  type ElfSection,
  type ElfSegment,
  parseElf,
  SectionType,
  SegmentType
} from "./image/Elf.ts"
export { releaseOf, vmlinuxOf } from "./image/KernelImage.ts"
export {
  type BuildError,
  buildKernel,
  type BuildRequest,
  type Built,
  KconfigUnmet,
  KernelBuildFailed
} from "./kernels/build/KernelBuild.ts"
export { SourceInvalid } from "./kernels/build/KernelTree.ts"
export type { BuildSource, SourceError } from "./kernels/build/SourceTree.ts"
export {
  cacheKey,
  extraKconfigHash,
  gitKey,
  kconfigHash,
  keySuffix,
  localKey,
  mergeKconfig,
  parseTarballKey,
  tarballKey
} from "./kernels/cache/CacheKey.ts"
export { cleanCache, type Cleaned } from "./kernels/cache/CleanCache.ts"
export {
  type CacheEntry,
  type CorruptEntry,
  type CorruptKind,
  type KernelContents,
  listEntries,
  readEntry,
  storeKernel,
  type ValidEntry,
  verifyEntry
} from "./kernels/cache/KernelCache.ts"
export { KernelMetadata, KernelSource } from "./kernels/cache/KernelMetadata.ts"
export { cachedKernel, type CachedKernelId, KernelEntryCorrupt } from "./kernels/CachedKernel.ts"
export { ikconfigOf } from "./kernels/config/Ikconfig.ts"
export { KconfigInvalid, parseConfig, parseFragment, type Unmet, unmet } from "./kernels/config/Kconfig.ts"
export { TEST_KCONFIG } from "./kernels/config/TestKconfig.ts"
export { debianKernel, type DebianKernelError, fetchDebianKernel, fetchPackage } from "./kernels/debian/DebianKernel.ts"
export {
  type DebianPackage,
  findPackage,
  listPackages,
  type PackageListError
} from "./kernels/debian/DebianPackages.ts"
export { type DebianRange, packagesInRange } from "./kernels/debian/DebianRange.ts"
export { type DebianArchitecture, type DebianSelector, parseDebianSelector } from "./kernels/debian/DebianSelector.ts"
export { compareDebianVersions } from "./kernels/debian/DebianVersion.ts"
export { findKernel, type HostPlace } from "./kernels/FindKernel.ts"
export { artifactsOf, type KernelArtifacts } from "./kernels/KernelArtifacts.ts"
export { inspectKernel, type KernelFacts } from "./kernels/KernelFacts.ts"
export { type KernelId, parseKernelId, parseKernelIds } from "./kernels/KernelId.ts"
export { kernelOfId, type KernelOfIdError } from "./kernels/KernelOfId.ts"
export { kernelAtPath } from "./kernels/KernelPath.ts"
export { KernelResolver, type KernelResolverService, type ResolveError } from "./kernels/KernelResolver.ts"
export {
  compareKernelVersions,
  covers,
  inRange,
  type KernelVersion,
  parseKernelVersion
} from "./kernels/KernelVersion.ts"
export { type KernelModule, kernelModules, ModuleMissing, type ModuleSet } from "./kernels/Modules.ts"
export { type OfferedKernel, searchKernels } from "./kernels/SearchKernels.ts"
export { Losses } from "./Losses.ts"
export { Native, type NativeService } from "./Native.ts"
export { Progress, type ProgressService, stage } from "./Progress.ts"
export { formatReason, Reason, ReasonKind } from "./Reason.ts"
export { WalkProblems } from "./WalkProblems.ts"
