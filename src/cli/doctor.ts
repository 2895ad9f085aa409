import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { dirname } from "node:path"
import { cacheRoot } from "../core/CacheDir.ts"
import { HostLacks, isPlatformError, platformText } from "../core/Errors.ts"
import { findProgram } from "../core/process/Programs.ts"
import { runToEnd } from "../core/process/Subprocess.ts"
import { EngineMode, type ModeOfHost, modesOf } from "../harness/engine/EngineMode.ts"
import { findQemus } from "../harness/engine/FindQemu.ts"
import { type KvmStatus, probeKvm } from "../kvm/probe/KvmProbe.ts"
import { findVirtiofsd, VIRTIOFSD_PACKAGE } from "../kvm/qemu/ShareServer.ts"
import { bold, green, red, yellow } from "./terminal/Color.ts"
import { escapeLine } from "./terminal/escapeControls.ts"
import { writeText } from "./terminal/Output.ts"

/** One look at the host. `limited`: something works less well; `lacking`: no guest can be booted. */
export const Check = Schema.Struct({
  name: Schema.String,
  state: Schema.Literal("ok", "limited", "lacking"),
  found: Schema.String.annotations({ description: "what there is" }),
  means: Schema.NullOr(Schema.String).annotations({ description: "what that means; null: nothing to know" }),
  hint: Schema.NullOr(Schema.String).annotations({ description: "what the user can do; null: nothing to do" })
}).annotations({ identifier: "Check" })
export type Check = typeof Check.Type

/** The document of `ktstr doctor --json`. */
export const DoctorReport = Schema.Struct({
  canBoot: Schema.Boolean.annotations({ description: "guests can be booted; false goes with exit code 3" }),
  engine: Schema.NullOr(Schema.Literal("kvm", "qemu")).annotations({
    description:
      "what --engine auto takes: ktstr itself on /dev/kvm, or QEMU by emulation; null: no guest can be booted"
  }),
  modes: Schema.Array(Schema.Struct({
    mode: EngineMode,
    works: Schema.Boolean,
    why: Schema.String,
    fix: Schema.NullOr(Schema.String).annotations({ description: "what the user can do; null: nothing to do" })
  })).annotations({ description: "how `ktstr run` can execute a guest here" }),
  checks: Schema.Array(Check)
}).annotations({ identifier: "DoctorReport" })

const NO_BOOT = "no guest can be booted; --image still works"
const NO_DEBIAN = "no debian: kernel can be fetched; those in the cache, and a kernel's path, still work"

/** `version` is the argument that makes the program tell its own, if it has one; `find` is for one that is not on the PATH. */
const program = (
  name: string,
  debianPackage: string,
  without: { readonly state: "limited" | "lacking"; readonly means: string },
  { find, version }: { readonly version?: string; readonly find?: () => string | undefined } = {}
) =>
  Effect.gen(function*() {
    const path = find === undefined ? findProgram(name) : find()
    if (path === undefined) {
      const found = find === undefined ? "not on the PATH" : "not installed"
      return { name, ...without, found, hint: `apt-get install ${debianPackage}` }
    }
    const said = version === undefined ? "" : yield* runToEnd(path, [version], "").pipe(
      Effect.timeout("5 seconds"),
      Effect.match({ onFailure: () => "", onSuccess: ({ stdout }) => stdout })
    )
    const number = /\bv?(\d+\.\d+[\w.~+-]*)/.exec(said)?.[1]
    return {
      name,
      state: "ok",
      found: number === undefined ? path : `${path}, version ${number}`,
      means: null,
      hint: null
    } satisfies Check
  })

const kvmCheck = (verdict: KvmStatus): Check => {
  const name = "kvm"
  const means = "guests run by QEMU's software emulation, several times slower"
  switch (verdict.kind) {
    case "hardware":
      return { name, state: "ok", found: verdict.why, means: null, hint: null }
    case "emulated":
      return {
        name,
        state: "limited",
        found: verdict.mips === 0 ? verdict.why : `${verdict.why} (${verdict.mips} million instructions a second)`,
        means,
        hint: "use bare metal, or a VM with nested virtualization"
      }
    case "absent":
      return { name, state: "limited", found: verdict.why, means, hint: verdict.hint }
  }
}

const cache = Effect.gen(function*() {
  const root = yield* cacheRoot
  const files = yield* FileSystem.FileSystem
  const nearest = yield* existing(root)
  yield* files.access(nearest, { writable: true })
  const found = nearest === root ? root : `${root}, to be made when a kernel is fetched`
  return { name: "kernel cache", state: "ok", found, means: null, hint: null } satisfies Check
}).pipe(Effect.catchAll((error) =>
  Effect.succeed(
    {
      name: "kernel cache",
      state: "limited",
      found: isPlatformError(error) ? platformText(error) : error.why,
      means: NO_DEBIAN,
      hint: "set KTSTR_CACHE_DIR to a directory that you can write"
    } satisfies Check
  )
))

/** The path, or the nearest directory above it that exists: a look at the host makes nothing. */
const existing = (path: string): Effect.Effect<string, never, FileSystem.FileSystem> =>
  Effect.flatMap(
    FileSystem.FileSystem,
    (files) =>
      Effect.flatMap(Effect.orElseSucceed(files.exists(path), () => true), (there) =>
        there ? Effect.succeed(path) : existing(dirname(path)))
  )

/** Memory in MiB that a guest of the default size takes, including QEMU and ktstr. */
const COMFORTABLE_MIB = 768

const memory = Effect.sync((): Check => {
  const mib = Math.floor(process.availableMemory() / 2 ** 20)
  const base = { name: "memory", found: `${mib} MiB available` }
  return mib >= COMFORTABLE_MIB
    ? { ...base, state: "ok", means: null, hint: null }
    : {
      ...base,
      state: "limited",
      means: "a guest of 512 MiB may not fit",
      hint: "free some, or give a smaller --memory-mib"
    }
})

/** QEMU, and what ties its life to ours, are needed where /dev/kvm is not usable. */
const look = Effect.gen(function*() {
  const verdict = yield* probeKvm
  const withoutQemu = verdict.kind === "hardware"
    ? { state: "limited", means: "guests are booted on /dev/kvm; --engine qemu does not work" } as const
    : { state: "lacking", means: NO_BOOT } as const
  const checks = yield* Effect.all([
    program("qemu-system-x86_64", "qemu-system-x86", withoutQemu, { version: "--version" }),
    Effect.succeed(kvmCheck(verdict)),
    program("busybox", "busybox-static", { state: "lacking", means: NO_BOOT }, { version: "--help" }),
    program("setpriv", "util-linux", withoutQemu, { version: "--version" }),
    program("virtiofsd", VIRTIOFSD_PACKAGE, { state: "limited", means: "--share does not work" }, {
      version: "--version",
      find: findVirtiofsd
    }),
    program("qemu-system-aarch64", "qemu-system-arm", { state: "limited", means: "no arm64 kernel can be booted" }, {
      version: "--version"
    }),
    program("apt-get", "apt", { state: "limited", means: NO_DEBIAN }, { version: "--version" }),
    program("dpkg-deb", "dpkg", { state: "limited", means: NO_DEBIAN }, { version: "--version" }),
    cache,
    memory
  ])
  // a cache that cannot be found, or a wrong KTSTR_QEMU, is said by its own check, or by `ktstr run`
  const qemus = yield* Effect.orElseSucceed(findQemus, () => [])
  return { checks, modes: modesOf(verdict, qemus), verdict }
})

const marks = { ok: green("ok     "), limited: yellow("limited"), lacking: red("lacking") }

const text = (checks: ReadonlyArray<Check>): string => {
  const width = Math.max(...checks.map(({ name }) => name.length))
  const indent = " ".repeat("limited".length + 2 + width + 2)
  return checks.map(({ found, means, hint, name, state }) =>
    [
      `${marks[state]}  ${bold(name.padEnd(width))}  ${escapeLine(found)}`,
      ...(means === null ? [] : [`${indent}${escapeLine(means)}`]),
      ...(hint === null ? [] : [`${indent}fix: ${escapeLine(hint)}`])
    ].join("\n") + "\n"
  ).join("")
}

const modesText = (modes: ReadonlyArray<ModeOfHost>): string =>
  [
    "Modes of ktstr run:",
    ...modes.map(({ fix, mode, why, works }) =>
      `  ${works ? green("yes") : yellow("no ")}  ${bold(mode.padEnd(12))}  ${escapeLine(why)}${
        fix === null ? "" : `; fix: ${escapeLine(fix)}`
      }`
    )
  ].join("\n") + "\n"

export const doctor = ({ json }: { readonly json: boolean }) =>
  Effect.gen(function*() {
    const { checks, modes, verdict } = yield* look
    const lacking = checks.filter(({ state }) => state === "lacking")
    const canBoot = lacking.length === 0
    const engine = !canBoot ? null : verdict.kind === "hardware" ? "kvm" as const : "qemu" as const
    const takes = engine === "kvm" ? "kvm" : "qemu, by software emulation"
    yield* writeText(
      json
        ? `${JSON.stringify(yield* Schema.encode(DoctorReport)({ canBoot, engine, modes, checks }))}\n`
        : `${text(checks)}${
          canBoot ? `\nThis host can boot guests: --engine auto takes ${takes}, because ${verdict.why}.\n` : ""
        }\n${modesText(modes)}`
    )
    if (!canBoot) {
      return yield* new HostLacks({
        what: lacking.map(({ name }) => name).join(", "),
        why: `missing, so ${NO_BOOT}`,
        hint: lacking.flatMap(({ hint }) => hint ?? []).join(" && ")
      })
    }
  })
