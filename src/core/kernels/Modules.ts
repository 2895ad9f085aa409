import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { basename, join } from "node:path"
import { type FormatError, parsing } from "../FormatError.ts"
import { decompressWithin, isCompressed } from "../image/Decompress.ts"
import { parseElf } from "../image/Elf.ts"
import type { KernelArtifacts } from "./KernelArtifacts.ts"

/**
 * A module that a kernel does not have, or whose file cannot be read.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModuleMissing extends Schema.TaggedError<ModuleMissing>("ktstr/ModuleMissing")("ModuleMissing", {
  module: Schema.String,
  release: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `module ${this.module} of kernel ${this.release}: ${this.why}; ${this.hint}`
  }
}

/**
 * A module to load: the ELF file, decompressed, its signature still behind it.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelModule {
  /** As in /proc/modules, with `_` for `-`. */
  readonly name: string
  readonly bytes: Uint8Array
}

/**
 * Modules in an order in which they can be loaded, and those of the asked ones that the kernel has built in.
 *
 * @since 0.1.0
 * @category models
 */
export interface ModuleSet {
  readonly modules: ReadonlyArray<KernelModule>
  readonly builtIn: ReadonlyArray<string>
}

/** The largest module of a distribution (amdgpu, with no debug info) has 30 MiB. */
const MODULE_LIMIT = 128 * 2 ** 20
/** A module of Linux has a handful of dependencies; hostile ones could name each other for ever. */
const MODULES_LIMIT = 256

/** The kernel's name of a module: it has `_` where the file's name may have `-`. */
const canonical = (name: string): string => name.replaceAll("-", "_")

const FILE = /^([A-Za-z0-9_-]+)\.ko(?:\.(?:xz|zst|gz))?$/

/**
 * Modules of a kernel with all that they depend on, each behind its dependencies, as `modprobe --show-depends` orders
 * them. Dependencies are those that the files themselves name, so that no depmod is needed.
 * @param names with `-` or `_`
 * @param options.optional skip names that the kernel does not have
 * @see scripts/mod/modpost.c add_depends, v6.12: `depends=a,b` in the section .modinfo; include/linux/module.h
 * MODULE_SOFTDEP: `softdep=pre: a b post: c`
 *
 * @since 0.1.0
 * @category utilities
 */
export const kernelModules = Effect.fn("Modules.kernelModules")(
  function*(
    { modules: directory, release }: Pick<KernelArtifacts, "modules" | "release">,
    names: ReadonlyArray<string>,
    options: { readonly optional: boolean }
  ): Effect.fn.Return<ModuleSet, ModuleMissing | FormatError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const refused = (module: string, why: string, hint: string) => new ModuleMissing({ module, release, why, hint })
    if (names.length === 0 || (directory === undefined && options.optional)) return { modules: [], builtIn: [] }
    if (directory === undefined) {
      return yield* refused(
        names[0],
        "its modules are not known",
        "get a Debian kernel (again) with `ktstr kernel fetch ID`, or build the module in (CONFIG_…=y)"
      )
    }
    const unreadable = (module: string) => (error: Error) =>
      refused(module, error.message, `remove ${directory} and get the kernel again`)
    const listed = yield* Effect.mapError(
      fs.readDirectory(join(directory, "kernel"), { recursive: true }),
      unreadable(names[0])
    )
    const files = new Map(listed.flatMap((path) => {
      const name = FILE.exec(basename(path))?.[1]
      return name === undefined ? [] : [[canonical(name), join(directory, "kernel", path)]]
    }))
    const builtins = new Set(
      (yield* Effect.orElseSucceed(fs.readFileString(join(directory, "modules.builtin")), () => "")).split("\n")
        .map((path) => canonical(basename(path, ".ko")))
    )

    const loaded = new Map<string, KernelModule>()
    const builtIn: Array<string> = []
    const visiting = new Set<string>()
    const visit = (written: string, neededBy: string | undefined): Effect.Effect<void, ModuleMissing | FormatError> =>
      Effect.gen(function*() {
        const name = canonical(written)
        if (loaded.has(name) || visiting.has(name)) return
        if (builtins.has(name)) {
          if (neededBy === undefined) builtIn.push(name)
          return
        }
        const file = files.get(name)
        if (file === undefined) {
          if (neededBy === undefined && options.optional) return
          return yield* refused(
            name,
            neededBy === undefined
              ? "the kernel has no module of that name"
              : `${neededBy} needs it, and it is not there`,
            "`ktstr kernel show ID --config` says what the kernel was built with"
          )
        }
        if (visiting.size >= MODULES_LIMIT) {
          return yield* refused(name, "its dependencies do not end", "use another kernel")
        }
        visiting.add(name)
        const bytes = yield* moduleBytes(fs, file, unreadable(name))
        const { depends, soft } = yield* parsing(() => dependenciesOf(bytes, file))
        for (const dependency of soft) {
          if (files.has(canonical(dependency))) yield* visit(dependency, name)
        }
        for (const dependency of depends) yield* visit(dependency, name)
        loaded.set(name, { name, bytes })
      })
    for (const name of names) yield* visit(name, undefined)
    return { modules: Array.from(loaded.values()), builtIn }
  }
)

const moduleBytes = (
  fs: FileSystem.FileSystem,
  file: string,
  unreadable: (error: Error) => ModuleMissing
): Effect.Effect<Uint8Array, ModuleMissing | FormatError> =>
  Effect.flatMap(
    Effect.mapError(fs.readFile(file), unreadable),
    (bytes) => isCompressed(bytes) ? decompressWithin(bytes, MODULE_LIMIT, file) : Effect.succeed(bytes)
  )

/** The modules that a module's .modinfo requires to be loaded first, and those it prefers first if they exist. */
const dependenciesOf = (
  bytes: Uint8Array,
  subject: string
): { readonly depends: ReadonlyArray<string>; readonly soft: ReadonlyArray<string> } => {
  const section = parseElf(bytes, subject).section(".modinfo")
  if (section === undefined) return { depends: [], soft: [] }
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset + section.offset, section.size).toString("latin1").split(
    "\0"
  )
  const values = (key: string) =>
    lines.flatMap((line) => line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : [])
  return {
    depends: values("depends").flatMap((text) => text.split(",")).filter((name) => name !== ""),
    soft: values("softdep").flatMap(loadedBefore)
  }
}

/** The modules of a soft dependency that are loaded before the one that has it: those between `pre:` and `post:`. */
const loadedBefore = (softdep: string): ReadonlyArray<string> => {
  const words = softdep.split(/\s+/).filter((word) => word !== "")
  const from = words.indexOf("pre:")
  if (from < 0) return []
  const to = words.indexOf("post:", from)
  return words.slice(from + 1, to < 0 ? undefined : to)
}
