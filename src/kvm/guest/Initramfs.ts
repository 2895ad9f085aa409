import * as Effect from "effect/Effect"
import { posix } from "node:path"
import type { HostLacks } from "../../core/Errors.ts"
import { requireProgram } from "../../core/Programs.ts"
import { cpioArchive, type CpioEntry } from "./Cpio.ts"
import { moduleEntries } from "./GuestModules.ts"
import { IncludeError, INITRAMFS_LIMIT, readHostFile, readInclude } from "./HostFiles.ts"
import { INCLUDES, initDirectories, initScript, type InitSpec, SCRIPT } from "./Init.ts"
import { sharedLibraries } from "./SharedLibraries.ts"

export interface InitramfsSpec extends InitSpec {
  /** Files and directories of the host; each becomes `/include-files/NAME`, which is on the guest's PATH. */
  readonly includes?: ReadonlyArray<string> | undefined
}

/**
 * An initramfs whose init mounts the usual file systems, runs the script and reports its exit status to
 * `Vm.awaitReady`: busybox, the includes and all shared libraries they need, as an unpacked archive (unpacking costs an
 * emulated guest more than copying). The same files and script give the same bytes.
 */
export const makeInitramfs = Effect.fn("Initramfs.make")(function*(spec: InitramfsSpec) {
  const busybox = yield* requireProgram("busybox", "it is the guest's shell", "busybox-static")
  const shell = yield* readHostFile(busybox)
  const includes = yield* Effect.forEach(spec.includes ?? [], readInclude)
  const files = includes.flat().flatMap(({ file }) => file === undefined ? [] : [file])
  const libraries = yield* sharedLibraries([shell, ...files])
  const libraryDirectories = [...new Set(libraries.map(({ path }) => posix.dirname(path)))].sort()
  const script = new TextEncoder().encode(spec.script ?? "")
  const init = new TextEncoder().encode(initScript(spec, libraryDirectories))

  const tree = new Map<string, CpioEntry>()
  const add = (entry: CpioEntry): void => {
    const parent = posix.dirname(entry.path)
    if (parent !== "." && !tree.has(parent)) add({ kind: "directory", path: parent, mode: 0o755 })
    tree.set(entry.path, entry)
  }
  for (const path of initDirectories) add({ kind: "directory", path, mode: 0o755 })
  // the kernel opens /dev/console for init before anything is mounted
  add({ kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 })
  add({ kind: "character device", path: "dev/null", mode: 0o666, major: 1, minor: 3 })
  add({ kind: "character device", path: "dev/ttyS1", mode: 0o600, major: 4, minor: 65 })
  add({ kind: "file", path: "bin/busybox", mode: 0o755, bytes: shell.bytes })
  add({ kind: "file", path: "init", mode: 0o755, bytes: init })
  add({ kind: "file", path: SCRIPT, mode: 0o755, bytes: script })
  for (const entry of moduleEntries(spec.guestModules ?? [])) add(entry)
  for (const { bytes, path } of libraries) add({ kind: "file", path: path.slice(1), mode: 0o755, bytes })
  for (const [index, entries] of includes.entries()) {
    for (const { file, mode, name } of entries) {
      const path = `${INCLUDES}/${name}`
      if (tree.has(path)) {
        return yield* new IncludeError({
          path: spec.includes?.[index] ?? name,
          why: `another include is called ${name} too`,
          hint: "rename one of them"
        })
      }
      add(file === undefined ? { kind: "directory", path, mode } : { kind: "file", path, mode, bytes: file.bytes })
    }
  }
  const total = [...tree.values()].reduce((sum, entry) => sum + (entry.kind === "file" ? entry.bytes.length : 0), 0)
  if (total > INITRAMFS_LIMIT) {
    const why = `all files together are ${Math.ceil(total / 2 ** 20)} MiB, 1024 is the most`
    return yield* new IncludeError({ path: "that much", why, hint: "include only what the guest needs" })
  }
  return cpioArchive([...tree.values()])
}) satisfies (spec: InitramfsSpec) => Effect.Effect<Uint8Array, HostLacks | IncludeError>

/** MiB below which no kernel gets to its init, the initramfs' two copies during unpacking not counted (Debian's use 60). */
const KERNEL_MIB = 64

/** The least memory, in MiB, for a guest whose (unpacked) initramfs has that many bytes. */
export const minimumMemoryMib = (initramfsBytes: number): number => KERNEL_MIB + Math.ceil(2 * initramfsBytes / 2 ** 20)
