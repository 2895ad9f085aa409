import * as Effect from "effect/Effect"
import { dirname } from "node:path/posix"
import { cpioArchive, type CpioEntry } from "../../kvm/guest/Cpio.ts"
import { type HostFile, type IncludeError, readHostFile } from "../../kvm/guest/HostFiles.ts"
import { sharedLibraries } from "../../kvm/guest/SharedLibraries.ts"

/** A program of the host that the guest gets as /bin/`name`. */
export interface GuestProgram {
  readonly name: string
  readonly path: string
}

/** Directories that the agent mounts on, and those of programs. */
const DIRECTORIES = [
  "bin",
  "dev",
  "proc",
  "sys",
  "tmp",
  "etc",
  "root",
  "usr",
  "usr/bin"
]

/**
 * An initramfs whose init is the agent: its plan, the programs and the libraries that they need. The same files give the
 * same bytes. Fails with `IncludeError` where a file of the host cannot be read.
 */
export const agentInitramfs = (
  agent: string,
  plan: Uint8Array,
  programs: ReadonlyArray<GuestProgram>
): Effect.Effect<Uint8Array, IncludeError> =>
  Effect.gen(function*() {
    const init = yield* readHostFile(agent)
    const files = yield* Effect.forEach(
      programs,
      ({ name, path }) => Effect.map(readHostFile(path), (file) => ({ name, file }))
    )
    const libraries = yield* sharedLibraries(files.map(({ file }) => file))
    const entries = new Map<string, CpioEntry>()
    const directory = (path: string): void => {
      if (path === "." || path === "" || entries.has(path)) return
      directory(dirname(path))
      entries.set(path, { kind: "directory", path, mode: 0o755 })
    }
    const file = (path: string, { bytes }: Pick<HostFile, "bytes">, mode: number) => {
      directory(dirname(path))
      entries.set(path, { kind: "file", path, mode, bytes })
    }
    for (const path of DIRECTORIES) directory(path)
    // the kernel opens /dev/console for init, before devtmpfs is mounted
    entries.set("dev/console", { kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 })
    file("init", init, 0o755)
    file("plan", { bytes: plan }, 0o644)
    for (const { bytes, path } of libraries) file(path.slice(1), { bytes }, 0o755)
    const places = [...new Set(libraries.map(({ path }) => dirname(path)))].sort().join(":")
    file("libraries", { bytes: new TextEncoder().encode(places) }, 0o644)
    for (const { file: program, name } of files) file(`bin/${name}`, program, 0o755)
    return cpioArchive([...entries.values()])
  })
