import * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { release } from "node:os"
import type { Btf } from "../btf/Btf.ts"
import { BtfLoader } from "../btf/BtfLoader.ts"
import { HostLacks } from "../core/Errors.ts"
import type { Symbols } from "../memory/Symbols.ts"
import { HostSymbols } from "./HostSymbols.ts"
import { type LogLine, readKernelLog } from "./KernelLog.ts"
import { possibleCpus } from "./PossibleCpus.ts"
import { parseScxExits, type ScxExitEvent } from "./ScxExit.ts"

/**
 * The service behind the tag `LiveHost`.
 *
 * @since 0.1.0
 * @category models
 */
export interface LiveHostService {
  /** `uname -r` */
  readonly release: string
  /** The CPUs that can exist, ascending. */
  readonly possibleCpus: ReadonlyArray<number>
  /** The types of vmlinux, from `btfPath`. */
  readonly btf: Btf
  readonly btfPath: string
  /** A module's types, on those of vmlinux. */
  readonly moduleBtf: (module: string) => Effect.Effect<Btf, HostLacks>
  /** `/proc/kallsyms` as it is now; empty where the kernel hides addresses, which is not an error. */
  readonly symbols: Effect.Effect<Symbols & { readonly size: number }>
  /** The kernel's log as it is now. */
  readonly log: Effect.Effect<ReadonlyArray<LogLine>, HostLacks>
  /** The ends of sched_ext schedulers that the log still has. */
  readonly scxExits: Effect.Effect<ReadonlyArray<ScxExitEvent>, HostLacks>
}

/**
 * The running kernel, as this host tells of it.
 *
 * @since 0.1.0
 * @category services
 */
export class LiveHost extends Context.Tag("ktstr/host/LiveHost")<LiveHost, LiveHostService>() {
  static readonly layer: Layer.Layer<LiveHost, HostLacks, FileSystem.FileSystem> = Layer.suspend(() =>
    Layer.effect(LiveHost, makeLiveHost)
  )
}

/**
 * Where the running kernel's types may be, best first: itself; its build; Debian's and Fedora's debug packages.
 *
 * @since 0.1.0
 * @category reading
 */
export const btfPaths = (release: string): ReadonlyArray<string> => [
  "/sys/kernel/btf/vmlinux",
  `/lib/modules/${release}/build/vmlinux`,
  `/usr/lib/debug/boot/vmlinux-${release}`,
  `/usr/lib/debug/lib/modules/${release}/vmlinux`
]

const makeLiveHost = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const loader = yield* BtfLoader
  const name = release()
  const there = yield* Effect.filter(btfPaths(name), (path) => Effect.orElseSucceed(files.exists(path), () => false))
  const lacksBtf = (why: string) =>
    new HostLacks({
      what: `types (BTF) of the running kernel ${name}`,
      why,
      hint: "run a kernel with CONFIG_DEBUG_INFO_BTF=y, or install the debug package of this one"
    })
  if (there.length === 0) return yield* lacksBtf(`neither ${btfPaths(name).join(" nor ")} is there`)
  const [btfPath] = there
  const btf = yield* Effect.mapError(loader.load(btfPath), (error) => lacksBtf(error.message))
  const log = Effect.try({
    try: readKernelLog,
    catch: (error) =>
      new HostLacks({
        what: "the kernel's log",
        why: error instanceof Error ? error.message : String(error),
        hint: "run this as root, or set kernel.dmesg_restrict=0"
      })
  })
  return {
    release: name,
    possibleCpus: possibleCpus(),
    btf,
    btfPath,
    moduleBtf: (module: string) =>
      Effect.mapError(loader.load(`/sys/kernel/btf/${module}`, btf), (error) =>
        new HostLacks({
          what: `types of the module ${module}`,
          why: error.message,
          hint: "load the module, on a kernel with CONFIG_DEBUG_INFO_BTF_MODULES=y"
        })),
    symbols: Effect.sync(HostSymbols.read),
    log,
    scxExits: Effect.map(log, parseScxExits)
  }
}).pipe(Effect.provide(BtfLoader.layer))
