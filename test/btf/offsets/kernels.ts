import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { longestBlobIn } from "../../../src/btf/BtfHeader.ts"
import { cacheRoot } from "../../../src/core/CacheDir.ts"
import { parseElf } from "../../../src/core/image/Elf.ts"
import { isArm64Image, vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { debianImage } from "../../support/kernels.ts"

/** More files of BTF that the comparison runs on, apart by colons: those of newer kernels, which no package here has. */
export const MORE_FILES: ReadonlyArray<string> = (process.env["KTSTR_BTF_FILES"] ?? "").split(":")
  .filter((path) => path !== "")

export const HOST = "/sys/kernel/btf/vmlinux"

export const WITHOUT_SCX = [
  "scx-run-queue",
  "scx-events",
  "scx-watchdog",
  "scx-walk-rq",
  "scx-walk-scx-rq",
  "scx-walk-task",
  "scx-walk-entity",
  "scx-walk-dsq-node",
  "scx-walk-dispatch-q",
  "scx-walk-sched",
  "scx-walk-pnode",
  "scx-walk-pcpu"
]
/** sched_ext's first kernel has no struct of a scheduler and no event counters. */
export const SCX_6_12 = ["scx-events", "scx-watchdog", "scx-walk-sched", "scx-walk-pnode", "scx-walk-pcpu"]

const root = Effect.runSync(cacheRoot.pipe(Effect.orElseSucceed(() => "")))
const built: string | undefined = root !== "" && existsSync(root)
  ? readdirSync(root)
    .filter((entry) => /^6\.12[.\d]*-tarball-x86_64-kc/.test(entry))
    .map((entry) => join(root, entry, "vmlinux"))
    .find((path) => existsSync(path))
  : undefined

const fromElf = (path: string, bytes: Uint8Array): Uint8Array => {
  const elf = parseElf(bytes, path)
  const section = elf.section(".BTF")
  assert(section !== undefined)
  return new Uint8Array(elf.data(section))
}
/** The BTF in a Debian kernel, named as in the matrix. */
export const fromImage = (name: string) =>
  Effect.gen(function*() {
    const path = yield* debianImage(name)
    const bytes = readFileSync(path)
    if (isArm64Image(bytes)) return longestBlobIn(bytes)?.slice() ?? assert.fail(`no BTF in ${path}`)
    return fromElf(path, yield* vmlinuxOf(bytes, path))
  })

/** The BTF of the sched_ext kernel that was built from Debian's source; undefined where nobody built it. */
export const fromBuilt: Effect.Effect<Uint8Array> | undefined = built === undefined
  ? undefined
  : Effect.sync(() => fromElf(built, readFileSync(built)))
export const NOT_BUILT = "no 6.12 kernel with sched_ext in the cache: build one from linux-source-6.12"
