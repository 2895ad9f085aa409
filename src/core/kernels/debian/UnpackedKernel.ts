import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { dirname, join } from "node:path"
import { FetchFailed, isPlatformError, platformText } from "../../Errors.ts"
import { vmlinuxOf } from "../../image/KernelImage.ts"
import type { Native } from "../../Native.ts"
import { lastLine, runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import { type KernelContents, storeKernel, type ValidEntry } from "../cache/KernelCache.ts"

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/** The name in an entry of the ELF kernel inside vmlinuz. */
export const UNPACKED = "vmlinux"

/** Unpack a kernel image to `target`; false, and no such file, where that cannot be done: then the guest unpacks itself. */
export const unpack = (image: string, target: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const vmlinux = yield* vmlinuxOf(yield* fs.readFile(image), image)
    yield* fs.writeFile(target, vmlinux)
    return true
  }).pipe(
    stage("unpack the kernel", "DebianKernel.unpackKernel"),
    Effect.catchTag("FormatError", (error) => Effect.as(Effect.logDebug(error.message), false))
  )

/** Flush a directory of some thousand files: all of the file system at once, which takes less time; why that failed, if so. */
export const flush = (directory: string) =>
  Effect.map(
    runToEnd("sync", ["-f", directory], "install coreutils"),
    ({ code, stderr }) => code === 0 ? undefined : complaintOf(stderr)
  )

/** A program's own reason for its failure: that the disk is full, if it said so, else its last line. */
export const complaintOf = (stderr: string): string =>
  /^.*No space left on device.*$/m.exec(stderr)?.[0].trim() ?? lastLine(stderr)

/**
 * An entry that has the ELF kernel inside its image too. One that was stored before that was recorded is made anew with it:
 * without, emulated guests boot slowly, and with KASLR. Where that fails it stays as it is, with a warning.
 */
export const withUnpacked = (entry: ValidEntry): Effect.Effect<ValidEntry, never, Host> => {
  const { directory, key, metadata } = entry
  return metadata.source.kind !== "debian" || metadata.unpacked !== undefined
    ? Effect.succeed(entry)
    : storeKernel(dirname(directory), key, (made) => copyInto(made, entry), { replace: true }).pipe(
      Effect.catchAll((error) =>
        Effect.as(
          Effect.logWarning(`cannot keep ${key} unpacked, so its guests start slowly and with KASLR: ${error.message}`),
          entry
        )
      )
    )
}

/** Fill a directory with the files of an entry, as links to them, and the kernel inside its image. */
const copyInto = (made: string, { directory, metadata }: ValidEntry) =>
  Effect.gen(function*() {
    const { arch: _arch, config, format: _format, image, modules, storedAt: _at, vmlinux, ...rest } = metadata
    const failed = (why: string) =>
      new FetchFailed({
        step: "store",
        subject: `${metadata.release}, unpacked`,
        why,
        hint: "check the free space of the cache's file system"
      })
    const names = [image.name, ...[vmlinux?.name, config, modules].filter((name) => typeof name === "string")]
    const linked = yield* runToEnd(
      "cp",
      ["-al", ...names.map((name) => join(directory, name)), made],
      "install coreutils"
    )
    if (linked.code !== 0) return yield* failed(complaintOf(linked.stderr))
    const target = join(made, UNPACKED)
    const unpacked = yield* Effect.mapError(
      unpack(join(directory, image.name), target),
      (error) => isPlatformError(error) ? failed(platformText(error)) : error
    )
    const unwritten = yield* flush(made)
    if (unwritten !== undefined) return yield* failed(unwritten)
    const contents: KernelContents = {
      ...rest,
      image: image.name,
      vmlinux: vmlinux?.name ?? null,
      config,
      modules,
      unpacked: unpacked ? UNPACKED : null
    }
    return contents
  })
