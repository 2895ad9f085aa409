import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Resolver from "../core/KernelResolver.ts"
import * as NativeKoffi from "../core/NativeKoffi.ts"
import { bootAndFreeze, openImage } from "../Ktstr.ts"
import * as Qemu from "../kvm/Qemu.ts"
import type { Output, Target } from "./commands.ts"
import { FileUnreadable, UsageError } from "./exit.ts"
import { targetWords } from "./words.ts"

/** What only a VM that we boot has. */
const OF_A_VM = [
  "kernel",
  "include",
  "exec",
  "execFile",
  "engine",
  "cpus",
  "memoryMib",
  "cmdline",
  "console",
  "timeout"
] as const

/** Get the kernel that the options name to stand still, ready to be read, until the scope closes. */
export const openTarget = (target: Target) =>
  Effect.gen(function*() {
    const given = (name: (typeof OF_A_VM)[number]): boolean =>
      name === "include" ? target.include.length > 0 : target[name]._tag === "Some"
    if (Option.isSome(target.image)) {
      if (given("kernel")) {
        return yield* new UsageError({
          problem: "give --kernel, which boots one, or --image, which reads one; not both"
        })
      }
      const misplaced = OF_A_VM.find(given)
      if (misplaced !== undefined) {
        return yield* new UsageError({
          problem: `--${targetWords[misplaced].name} goes with --kernel, not with --image`
        })
      }
      const vmlinux = Option.match(target.vmlinux, { onNone: () => ({}), onSome: (vmlinux) => ({ vmlinux }) })
      return yield* openImage(target.image.value, vmlinux)
    }
    if (Option.isNone(target.kernel)) {
      return yield* new UsageError({
        problem: "say which kernel to read: --kernel ID boots one, --image FILE reads one"
      })
    }
    if (Option.isSome(target.vmlinux)) {
      return yield* new UsageError({ problem: "--vmlinux goes with --image, not with --kernel" })
    }
    const { cpus, memoryMib, timeout } = targetWords
    return yield* bootAndFreeze({
      kernel: target.kernel.value,
      includes: target.include,
      ...(yield* scriptOf(target)),
      memoryMib: Option.getOrElse(target.memoryMib, () => memoryMib.otherwise),
      cpus: Option.getOrElse(target.cpus, () => cpus.otherwise),
      cmdline: Option.getOrElse(target.cmdline, () => ""),
      timeout: `${Option.getOrElse(target.timeout, () => timeout.otherwise)} seconds`,
      consoleFile: Option.getOrUndefined(target.console)
    })
  })

const scriptOf = (target: Target) =>
  Effect.gen(function*() {
    if (Option.isSome(target.exec) && Option.isSome(target.execFile)) {
      return yield* new UsageError({ problem: "give --exec or --exec-file, not both" })
    }
    if (Option.isSome(target.exec)) return { script: target.exec.value }
    if (Option.isNone(target.execFile)) return {}
    const path = target.execFile.value
    const files = yield* FileSystem.FileSystem
    const script = yield* Effect.mapError(files.readFileString(path), (error) =>
      new FileUnreadable({
        what: `the script ${path}`,
        why: (error._tag === "SystemError" ? error.description?.replace(/, .*$/, "") : undefined) ?? error.message,
        mend: "give --exec-file a file that you can read"
      }))
    return { script }
  })

/** Is the answer for a program? */
export const format = ({ json, ndjson }: Output): Effect.Effect<"text" | "json" | "ndjson", UsageError> =>
  json && ndjson
    ? new UsageError({ problem: "give --json or --ndjson, not both" })
    : Effect.succeed(json ? "json" : ndjson ? "ndjson" : "text")

/** What the stages need, on a host with Node. */
export const Live = Layer.mergeAll(Qemu.layer, Resolver.layer).pipe(Layer.provideMerge(NativeKoffi.layer))
