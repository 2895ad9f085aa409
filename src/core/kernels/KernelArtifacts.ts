import { join } from "node:path"
import type { ValidEntry } from "./cache/KernelCache.ts"
import type { KernelFile, KernelSource } from "./cache/KernelMetadata.ts"

/**
 * The files of one kernel; paths are absolute.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelArtifacts {
  /** `uname -r` of the kernel. */
  readonly release: string
  /** The architecture; undefined for x86-64. */
  readonly arch?: "arm64"
  /** The file that a VM boots: a bzImage, a vmlinux or an arm64 `Image`. */
  readonly image: string
  /** The ELF kernel inside `image`, known to be of the very same build, which a VM can boot without unpacking it. */
  readonly unpacked?: string
  /** The uncompressed kernel with symbols, where there is one; a distribution's image package has none. */
  readonly vmlinux?: string
  /** The build's `.config`, where it is known. */
  readonly config?: string
  /** The directory of its modules (`kernel/`, `modules.builtin`), where it is known. */
  readonly modules?: string
  /** Where the kernel came from, for people: a package and its version, or the path that was given. */
  readonly source: string
}

/**
 * The files of a cache entry.
 *
 * @since 0.1.0
 * @category reading
 */
export const artifactsOf = (
  { directory, metadata }: Pick<ValidEntry, "directory" | "metadata">
): KernelArtifacts => ({
  release: metadata.release,
  ...(metadata.arch === "aarch64" ? { arch: "arm64" as const } : {}),
  image: join(directory, metadata.image.name),
  ...unpackedOf(directory, metadata.unpacked ?? metadata.vmlinux),
  ...(metadata.vmlinux === null ? {} : { vmlinux: join(directory, metadata.vmlinux.name) }),
  ...(metadata.config === null ? {} : { config: join(directory, metadata.config) }),
  ...(metadata.modules === null ? {} : { modules: join(directory, metadata.modules) }),
  source: describeSource(metadata.source)
})

const unpackedOf = (directory: string, file: KernelFile | null): Pick<KernelArtifacts, "unpacked"> =>
  file === null ? {} : { unpacked: join(directory, file.name) }

const describeSource = (source: KernelSource): string => {
  switch (source.kind) {
    case "debian":
      return `Debian package ${source.package} ${source.version}${
        source.suite === undefined ? "" : ` of ${source.suite}`
      }`
    case "tarball":
      return `sources of ${source.version}, ${source.from}`
    case "git":
      return `${source.url}, ${source.ref}, commit ${source.commit}`
    case "local":
      return `${source.path}, commit ${source.commit}`
  }
}
