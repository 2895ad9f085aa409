import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { readdirSync, readFileSync, realpathSync } from "node:fs"
import { dirname, isAbsolute, join } from "node:path"
import { parsing } from "../../core/FormatError.ts"
import { type ElfFile, parseElf } from "../../core/image/Elf.ts"
import { type HostFile, IncludeError, readHostFile } from "./HostFiles.ts"

/** The system that a guest's programs are from. */
export interface GuestSystem {
  /** `e_machine` of its programs, and its name for people. */
  readonly machine: number
  readonly name: string
  /** Of its directories of libraries: `x86_64-linux-gnu`. */
  readonly triplet: string
  /** Where its `/` is: empty for this host's. */
  readonly root: string
}

/** This host as a guest's system. */
export const hostSystem: GuestSystem = { machine: 62, name: "x86", triplet: "x86_64-linux-gnu", root: "" }

/** A directory with programs of arm64, as they lie in such a system. */
export const arm64System = (root: string): GuestSystem => ({
  machine: 183,
  name: "arm64",
  triplet: "aarch64-linux-gnu",
  root
})

/** glibc's own directories, Debian's and others', after those of /etc/ld.so.conf. */
const defaultDirectories = (triplet: string): ReadonlyArray<string> => [
  `/lib/${triplet}`,
  `/usr/lib/${triplet}`,
  "/lib64",
  "/usr/lib64",
  "/lib",
  "/usr/lib",
  "/usr/local/lib"
]
const INCLUDE_DEPTH = 8

/** A library or a dynamic linker, to be put at `path` in the guest. */
export type SharedLibrary = HostFile

/**
 * All that the dynamic linker would load for `programs`: their interpreters and the closure of their DT_NEEDED entries,
 * searched as ld.so(8) says: RPATH, RUNPATH (with `$ORIGIN`), /etc/ld.so.conf, the default directories. Files that are
 * not 64-bit ELF of the guest's machine need nothing. What a program opens by itself (dlopen) is not seen.
 */
export const sharedLibraries = (
  programs: ReadonlyArray<HostFile>,
  system: GuestSystem = hostSystem
): Effect.Effect<ReadonlyArray<SharedLibrary>, IncludeError> =>
  Effect.gen(function*() {
    const { name: machineName, root, triplet } = system
    const elfOf = elfFor(system)
    const configured = [
      ...(root === "" ? configuredDirectories("/etc/ld.so.conf", INCLUDE_DEPTH) : []),
      ...defaultDirectories(triplet)
    ]
    const found = new Map<string, SharedLibrary>()
    const load = (path: string) => {
      const known = found.get(path)
      return known === undefined
        ? Effect.map(readHostFile(root + path), (file) => ({ ...file, path }))
        : Effect.succeed(known)
    }
    for (const program of programs) {
      // a name once loaded serves whoever asks for it later in this program, wherever he would look for it himself
      const loaded = new Set<string>()
      // breadth first, as the linker goes; RPATHs of those that asked for an object count for what it asks for too
      const queue: Array<{ file: HostFile; inherited: ReadonlyArray<string> }> = [{ file: program, inherited: [] }]
      for (const { file, inherited } of queue) {
        const asked = dependenciesOf(file, elfOf)
        if (asked?.interpreter !== undefined && !found.has(asked.interpreter)) {
          const why = `its interpreter ${asked.interpreter} is not there`
          const linker = yield* Effect.mapError(load(asked.interpreter), () => missing(program, why))
          // any file of the host could be named there, and would be given to the guest
          if (elfOf(linker) === undefined) {
            return yield* missing(
              program,
              `its interpreter ${asked.interpreter} is not a 64-bit ${machineName} ELF file`
            )
          }
          found.set(asked.interpreter, linker)
        }
        const expand = (paths: ReadonlyArray<string>) => paths.flatMap((path) => expanded(path, file.path, triplet))
        const rpath = asked === undefined || asked.runpath.length > 0 ? [] : [...expand(asked.rpath), ...inherited]
        for (const name of asked?.libraries ?? []) {
          if (loaded.has(name)) continue
          const directories = [...rpath, ...expand(asked?.runpath ?? []), ...configured]
          const candidates = name.includes("/") ? expand([name]) : directories.map((directory) => join(directory, name))
          const library = yield* firstLibrary(candidates.map(load), elfOf)
          if (library === undefined) {
            const why = `${name}, which ${file.path} needs, is in none of its library directories`
            return yield* missing(program, why)
          }
          loaded.add(name)
          found.set(library.path, library)
          queue.push({ file: library, inherited: rpath })
        }
      }
    }
    return [...found.values()]
  })

/** The linker skips a file that does not exist, cannot be read or is not a library for this machine. */
const firstLibrary = (
  candidates: ReadonlyArray<Effect.Effect<HostFile, IncludeError>>,
  elfOf: ElfOf
): Effect.Effect<HostFile | undefined> =>
  Effect.gen(function*() {
    for (const candidate of candidates) {
      const file = yield* Effect.option(candidate)
      if (Option.isSome(file) && elfOf(file.value) !== undefined) return file.value
    }
    return undefined
  })

const missing = (program: HostFile, why: string): IncludeError =>
  new IncludeError({ path: program.path, why, hint: "install the package that has it" })

type ElfOf = (file: HostFile) => ElfFile | undefined

const elfFor = ({ machine }: GuestSystem): ElfOf => (file) => {
  const elf = Either.getOrUndefined(parsing(() => parseElf(file.bytes, file.path)))
  return elf?.machine === machine ? elf : undefined
}

/** The requests of an object to the dynamic linker; none if it is damaged: then it would not run on the host either. */
const dependenciesOf = (file: HostFile, elfOf: ElfOf) => {
  const elf = elfOf(file)
  return elf && Either.getOrUndefined(parsing(() => ({ ...elf.needed(), interpreter: elf.interpreter })))
}

/** ld.so(8), "Dynamic string tokens". `$ORIGIN` of a program behind a link is where the file really is. */
const expanded = (path: string, object: string, triplet: string): ReadonlyArray<string> => {
  const origins = /\$\{?ORIGIN\b/.test(path) ? new Set([dirname(realpathOf(object)), dirname(object)]) : [""]
  const libs = /\$\{?LIB\b/.test(path) ? [`lib/${triplet}`, "lib64", "lib"] : [""]
  return [...origins].flatMap((origin) =>
    libs.map((lib) =>
      path.replace(/\$(\{ORIGIN\}|ORIGIN\b)/g, origin)
        .replace(/\$(\{LIB\}|LIB\b)/g, lib)
        .replace(/\$(\{PLATFORM\}|PLATFORM\b)/g, triplet.replace(/-.*/, ""))
    )
  ).filter(isAbsolute)
}

const realpathOf = (path: string): string => {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

/** The directories that ldconfig(8) reads: `include` lines may have patterns in their last part. */
const configuredDirectories = (path: string, depth: number): ReadonlyArray<string> => {
  if (depth === 0) return []
  return textOf(path).split("\n").flatMap((line) => {
    const words = line.replace(/#.*/, "").trim().split(/[\s,:]+/)
    if (words[0] !== "include") return words.filter(isAbsolute)
    return words.slice(1).flatMap((pattern) =>
      matching(isAbsolute(pattern) ? pattern : join(dirname(path), pattern))
        .flatMap((file) => configuredDirectories(file, depth - 1))
    )
  })
}

const matching = (pattern: string): ReadonlyArray<string> => {
  const [directory, name] = [dirname(pattern), pattern.slice(pattern.lastIndexOf("/") + 1)]
  const source = name.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".")
  try {
    return readdirSync(directory).filter((each) => new RegExp(`^${source}$`).test(each)).sort()
      .map((each) => join(directory, each))
  } catch {
    return []
  }
}

const textOf = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}
