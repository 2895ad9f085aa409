import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { join } from "node:path"

/**
 * The given sources are not a kernel tree that can be built.
 *
 * @since 0.1.0
 * @category errors
 */
export class SourceInvalid extends Schema.TaggedError<SourceInvalid>("ktstr/SourceInvalid")("SourceInvalid", {
  source: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `kernel source ${this.source}: ${this.why}; ${this.hint}`
  }
}

/**
 * The version that `make kernelversion` prints: the first assignments in a top Makefile (v6.12). Undefined: not a
 * kernel's.
 */
export const parseMakefile = (makefile: string): string | undefined => {
  const value = (name: string) => {
    const assigned = new RegExp(`^${name}[ \\t]*=(.*)$`, "m").exec(makefile)?.[1].trim()
    return assigned === undefined || /\s/.test(assigned) ? undefined : assigned
  }
  const [version, patchlevel, sublevel] = ["VERSION", "PATCHLEVEL", "SUBLEVEL"].map(value)
  return version && patchlevel && sublevel
    ? `${version}.${patchlevel}.${sublevel}${value("EXTRAVERSION") ?? ""}`
    : undefined
}

/** In bytes; v6.12's top Makefile has 68,000. */
export const MAKEFILE_LIMIT = 2 ** 20

/** The version of a kernel tree; any other directory is refused. Its Makefile may be a pipe without a writer, or endless. */
export const versionOf = (
  directory: string,
  hint: string
): Effect.Effect<string, SourceInvalid, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = join(directory, "Makefile")
    const makefile = yield* Effect.flatMap(
      fs.stat(path),
      ({ size, type }) => type === "File" && size <= MAKEFILE_LIMIT ? fs.readFileString(path) : Effect.succeed("")
    ).pipe(Effect.orElseSucceed(() => ""))
    const hasKconfig = yield* Effect.orElseSucceed(fs.exists(join(directory, "Kconfig")), () => false)
    const version = parseMakefile(makefile)
    if (version !== undefined && hasKconfig) return version
    return yield* new SourceInvalid({
      source: directory,
      why: version === undefined ? "it has no Makefile of a kernel" : "it has no Kconfig",
      hint
    })
  })

/** Files left by a build inside a tree, which make kbuild refuse a build elsewhere (Makefile outputmakefile, v6.12). */
const BUILT = [".config", "include/config", "arch/x86/include/generated"]

/** The first file found that a build or a configuration left in a tree; undefined in a clean tree. */
export const leftByBuild = (directory: string): Effect.Effect<string | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    for (const name of BUILT) {
      if (yield* Effect.orElseSucceed(fs.exists(join(directory, name)), () => false)) return name
    }
    return undefined
  })
