import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { join } from "node:path"
import { type CacheError, cacheRoot } from "../../core/CacheDir.ts"
import { HostLacks } from "../../core/Errors.ts"
import { findProgram } from "../../core/process/Programs.ts"
import { runToEnd } from "../../core/process/Subprocess.ts"
import type { QemuProgram } from "../../kvm/qemu/Emulation.ts"

/**
 * A QEMU of this host.
 *
 * @since 0.1.0
 * @category models
 */
export interface QemuFound {
  readonly program: QemuProgram
  /** As it says it: 10.0.2. */
  readonly version: string
  readonly from: "KTSTR_QEMU" | "PATH" | "cache"
}

/** The first QEMU in which CPUs that take turns on one thread share it fairly. */
export const EXACT_SINCE = "8.1"

/** Where in the cache QEMUs are, a directory a version. */
export const QEMU_DIRECTORY = ".qemu"

/** The version in what `qemu --version` prints. */
export const versionOf = (text: string): string | undefined => /^QEMU emulator version (\d+\.\d+\.\d+)/m.exec(text)?.[1]

/** Whether several CPUs can be emulated exactly by this version. */
export const isExact = (version: string): boolean => {
  const [major, minor] = version.split(".").map(Number)
  return major > 8 || (major === 8 && minor >= 1)
}

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem

/** The QEMUs that `fetchQemu` put into the cache, the newest first. */
export const fetchedQemus: Effect.Effect<ReadonlyArray<QemuFound>, CacheError, FileSystem.FileSystem> = Effect.gen(
  function*() {
    const fs = yield* FileSystem.FileSystem
    const root = join(yield* cacheRoot, QEMU_DIRECTORY)
    const names = yield* Effect.orElseSucceed(fs.readDirectory(root), () => [])
    return names.filter((name) => /^\d+\.\d+\.\d+$/.test(name) && isExact(name))
      .toSorted((a, b) => compare(b, a))
      .map((version): QemuFound => {
        const share = join(root, version, "usr/share")
        return {
          program: {
            path: join(root, version, "usr/bin/qemu-system-x86_64"),
            firmware: [join(share, "qemu"), join(share, "seabios")]
          },
          version,
          from: "cache"
        }
      })
  }
)

const compare = (a: string, b: string): number => {
  const [left, right] = [a, b].map((version) => version.split(".").map(Number))
  return left[0] - right[0] || left[1] - right[1] || left[2] - right[2]
}

/**
 * The QEMUs of this host in the order in which they are taken: `KTSTR_QEMU`, the one on the PATH, those in the cache.
 * Fails with `HostLacks` where `KTSTR_QEMU` is not a QEMU.
 *
 * @since 0.1.0
 * @category reading
 */
export const findQemus: Effect.Effect<ReadonlyArray<QemuFound>, CacheError | HostLacks, Host> = Effect.gen(
  function*() {
    const named = Option.getOrUndefined(
      yield* Effect.orElseSucceed(Config.option(Config.string("KTSTR_QEMU")), () => Option.none<string>())
    )
    const installed = findProgram("qemu-system-x86_64")
    const found: Array<QemuFound> = []
    for (const [path, from] of [[named, "KTSTR_QEMU"], [installed, "PATH"]] as const) {
      if (path === undefined || path === "") continue
      const { stdout } = yield* runToEnd(path, ["--version"], "set KTSTR_QEMU to the path of a qemu-system-x86_64")
      const version = versionOf(stdout)
      if (version !== undefined) found.push({ program: { path, firmware: [] }, version, from })
      else if (from === "KTSTR_QEMU") {
        return yield* new HostLacks({
          what: path,
          why: "KTSTR_QEMU names it, and it does not answer --version as QEMU does",
          hint: "set KTSTR_QEMU to the path of a qemu-system-x86_64"
        })
      }
    }
    return [...found, ...(yield* fetchedQemus)]
  }
)

/**
 * The first QEMU that can emulate several CPUs exactly. Fails with `HostLacks` where there is none.
 *
 * @since 0.1.0
 * @category reading
 */
export const findExactQemu: Effect.Effect<QemuFound, CacheError | HostLacks, Host> = Effect.flatMap(
  findQemus,
  (found) => {
    const exact = found.find(({ version }) => isExact(version))
    if (exact !== undefined) return Effect.succeed(exact)
    const there = found.at(0)
    return new HostLacks({
      what: "exact mode",
      why: there === undefined
        ? "qemu-system-x86_64 is not installed"
        : `QEMU ${there.version} on this host is too old: CPUs share turns fairly since ${EXACT_SINCE}`,
      hint: "run `ktstr qemu fetch`, or install a newer QEMU"
    })
  }
)
