import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { existsSync } from "node:fs"
import { posix, resolve } from "node:path"
import type { HostLacks } from "../../core/Errors.ts"
import { parsing } from "../../core/FormatError.ts"
import { parseElf } from "../../core/image/Elf.ts"
import { requireProgram } from "../../core/process/Programs.ts"
import { cpioArchive, type CpioEntry } from "./Cpio.ts"
import { moduleEntries } from "./GuestModules.ts"
import { type HostFile, type Included, IncludeError, INITRAMFS_LIMIT, readHostFile, readInclude } from "./HostFiles.ts"
import {
  COMPLETE,
  INCLUDES,
  initDirectories,
  initScript,
  type InitSpec,
  isUnderMount,
  PORTS,
  SCRIPT,
  UNDER
} from "./Init.ts"
import { checkInterpreter } from "./ScriptInterpreter.ts"
import { arm64System, type GuestSystem, hostSystem, sharedLibraries } from "./SharedLibraries.ts"

/** `e_type` of programs; BPF objects and modules have another. */
const ET_EXEC = 2
const ET_DYN = 3

/**
 * Contents of a guest's initramfs.
 *
 * @since 0.1.0
 * @category models
 */
export interface InitramfsSpec extends InitSpec {
  /** Files and directories of the host; each becomes `/include-files/NAME`, which is on the guest's PATH. */
  readonly includes?: ReadonlyArray<string> | undefined
  /**
   * For an arm64 guest: a directory with its busybox and libraries as they lie in such a system. An include of a path that
   * is in it, such as `/usr/sbin/bpftool`, is taken from there.
   */
  readonly arm64Programs?: string | undefined
}

/**
 * An initramfs whose init mounts the usual file systems, runs the script and reports its exit status to
 * `Vm.awaitReady`: busybox, the includes and all shared libraries they need, as an unpacked archive (unpacking costs an
 * emulated guest more than copying). The same files and script give the same bytes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeInitramfs = Effect.fn("Initramfs.make")(
  function*(spec: InitramfsSpec): Effect.fn.Return<Uint8Array, HostLacks | IncludeError> {
    const system = spec.arm64Programs === undefined ? hostSystem : arm64System(spec.arm64Programs)
    const busybox = spec.arm64Programs === undefined
      ? yield* requireProgram("busybox", "it is the guest's shell", "busybox-static")
      : `${spec.arm64Programs}/bin/busybox`
    const shell = yield* readHostFile(busybox)
    const ports = PORTS[spec.arm64Programs === undefined ? "x86-64" : "arm64"]
    const includes = yield* Effect.forEach(spec.includes ?? [], (path) => readInclude(systemPath(system, path)))
    const files = includes.flat().flatMap(({ file }) => file === undefined ? [] : [file])
    for (const file of [shell, ...files]) yield* checkMachine(file, system)
    const libraries = yield* sharedLibraries([shell, ...files], system)

    const tree = new InitramfsTree()
    // the kernel opens /dev/console for init before anything is mounted
    tree.add({ kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 })
    tree.add({ kind: "character device", path: "dev/null", mode: 0o666, major: 1, minor: 3 })
    tree.add({
      kind: "character device",
      path: `dev/${ports.report}`,
      mode: 0o600,
      major: 4,
      minor: 64 + Number(ports.report.slice(4))
    })
    tree.add({ kind: "file", path: "bin/busybox", mode: 0o755, bytes: shell.bytes })
    tree.add({ kind: "file", path: "init", mode: 0o755, bytes: new Uint8Array(0) })
    tree.add({ kind: "file", path: SCRIPT, mode: 0o755, bytes: new TextEncoder().encode(spec.script ?? "") })
    for (const entry of moduleEntries(spec.guestModules ?? [])) tree.add(entry)
    for (const { bytes, path } of libraries) {
      tree.add({ kind: "file", path: isUnderMount(path) ? `${UNDER}${path}` : path.slice(1), mode: 0o755, bytes })
    }
    for (const [index, entries] of includes.entries()) {
      for (const { file, mode, name } of entries) {
        const path = `${INCLUDES}/${name}`
        if (tree.has(path)) {
          return yield* new IncludeError({
            path: spec.includes?.[index] ?? name,
            why: `another include is also called ${name}`,
            hint: "rename one of them"
          })
        }
        tree.add(
          file === undefined ? { kind: "directory", path, mode } : { kind: "file", path, mode, bytes: file.bytes }
        )
      }
    }
    tree.add({ kind: "file", path: COMPLETE, mode: 0o644, bytes: new TextEncoder().encode("complete") })
    yield* checkScripts(spec.script ?? "", includes, (path) => tree.has(path))
    const total = tree.bytes
    if (total > INITRAMFS_LIMIT) {
      const why = `the included files total ${Math.ceil(total / 2 ** 20)} MiB; the limit is 1024`
      return yield* new IncludeError({ path: "all of them", why, hint: "include only what the guest needs" })
    }
    const init = initScript(spec, {
      ports,
      libraryDirectories: [...new Set(libraries.map(({ path }) => posix.dirname(path)))].sort(),
      hidden: libraries.map(({ path }) => path).filter(isUnderMount),
      files: tree.files - 1,
      bytes: total
    })
    tree.add({ kind: "file", path: "init", mode: 0o755, bytes: new TextEncoder().encode(init) })
    return cpioArchive(tree.entries)
  }
)

/**
 * Scripts that the guest could not start: its own, and executable files that were named. Not what a directory holds: in a
 * tree of tools there may be many that nobody runs.
 */
const checkScripts = (
  script: string,
  includes: ReadonlyArray<ReadonlyArray<Included>>,
  has: (path: string) => boolean
): Effect.Effect<void, IncludeError> => {
  const named = includes.flatMap(([{ file, mode }]) => file === undefined || (mode & 0o111) === 0 ? [] : [file])
  const scripts = [{ path: "the script", bytes: new TextEncoder().encode(script) }, ...named]
  return Effect.forEach(scripts, ({ bytes, path }) => checkInterpreter(path, bytes, has), { discard: true })
}

/** Where a path of the guest's system is on this host; a path that its system does not have is one of the host's. */
const systemPath = ({ root }: GuestSystem, path: string): string => {
  const inRoot = root + resolve(path)
  return root !== "" && existsSync(inRoot) ? inRoot : path
}

/** A program of this host in a guest that is not like it: the kernel would only say `No such file or directory`. */
const checkMachine = (file: HostFile, { machine, name, root }: GuestSystem): Effect.Effect<void, IncludeError> =>
  Effect.suspend(() => {
    if (root === "") return Effect.void // the host's own system: nothing to look at
    const elf = Either.getOrUndefined(parsing(() => parseElf(file.bytes, file.path)))
    return elf === undefined || elf.machine === machine || (elf.type !== ET_EXEC && elf.type !== ET_DYN)
      ? Effect.void
      : new IncludeError({
        path: file.path,
        why: `it is a program for machine ${elf.machine}, and the guest is ${name}, machine ${machine}`,
        hint: "build it for the guest"
      })
  })

/** The contents of a guest's root, directories before their contents. */
class InitramfsTree {
  readonly #entries = new Map<string, CpioEntry>()

  constructor() {
    for (const path of initDirectories) this.add({ kind: "directory", path, mode: 0o755 })
  }

  /** Add an entry with its parents, in place of one of that path. */
  add(entry: CpioEntry): void {
    const parent = posix.dirname(entry.path)
    if (parent !== "." && !this.#entries.has(parent)) this.add({ kind: "directory", path: parent, mode: 0o755 })
    this.#entries.set(entry.path, entry)
  }

  has(path: string): boolean {
    return this.#entries.has(path)
  }

  get entries(): ReadonlyArray<CpioEntry> {
    return [...this.#entries.values()]
  }

  get files(): number {
    return this.entries.filter(({ kind }) => kind === "file").length
  }

  /** In all files. */
  get bytes(): number {
    return this.entries.reduce((sum, entry) => sum + (entry.kind === "file" ? entry.bytes.length : 0), 0)
  }
}

/** Minimum MiB to reach init, excluding the initramfs (Debian's kernels use 60). */
const KERNEL_MIB = 64
/** The initramfs is there twice while it is unpacked; the rest is what the kernel needs to keep track of that memory. */
const COPIES = 2.2

/**
 * The least memory, in MiB, for a guest whose (unpacked) initramfs has that many bytes.
 *
 * @since 0.1.0
 * @category utilities
 */
export const minimumMemoryMib = (initramfsBytes: number): number =>
  KERNEL_MIB + Math.ceil(COPIES * initramfsBytes / 2 ** 20)
