import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { KernelNotFound } from "../Errors.ts"
import { type FormatError, parsing } from "../FormatError.ts"
import { buildIdOf } from "../image/BuildId.ts"
import { parseElf } from "../image/Elf.ts"
import { vmlinuxOf } from "../image/KernelImage.ts"
import { ikconfigOf } from "./config/Ikconfig.ts"
import type { KernelArtifacts } from "./KernelResolver.ts"

/**
 * Facts about a kernel, read from its files.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelFacts {
  /** The GNU build id in hex, the same in the guest's /sys/kernel/notes; undefined where there is none. */
  readonly buildId: string | undefined
  /** The size of the `.BTF` section in bytes; undefined: built without CONFIG_DEBUG_INFO_BTF. */
  readonly btfBytes: number | undefined
  /** Number of symbols that `.symtab` defines; 0 in a stripped kernel, which still describes itself in memory. */
  readonly symbols: number
  /** The `.config`, from the file beside the kernel or from the kernel itself (CONFIG_IKCONFIG). */
  readonly config: string | undefined
}

/**
 * The facts of a kernel, from its vmlinux, or the unpacked copy of the cache, or else from what its image decompresses to.
 *
 * @since 0.1.0
 * @category reading
 */
export const inspectKernel = Effect.fn("KernelFacts.inspectKernel")(
  function*(
    artifacts: KernelArtifacts
  ): Effect.fn.Return<KernelFacts, KernelNotFound | FormatError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const path = artifacts.vmlinux ?? artifacts.unpacked ?? artifacts.image
    const unreadable = (error: Error) => KernelNotFound.atPath(path, error.message)
    const vmlinux = yield* vmlinuxOf(yield* Effect.mapError(fs.readFile(path), unreadable), path)
    const config = artifacts.config === undefined
      ? undefined
      : yield* Effect.mapError(fs.readFileString(artifacts.config), unreadable)
    return yield* parsing((): KernelFacts => {
      const elf = parseElf(vmlinux, path)
      const btf = elf.section(".BTF")
      return {
        buildId: buildIdOf(elf),
        btfBytes: btf?.size,
        symbols: elf.symbols().size,
        config: config ?? ikconfigOf(vmlinux, path)
      }
    })
  }
)
