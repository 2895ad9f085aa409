import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { openLive } from "../../bpf/live/OpenLive.ts"
import { kernelVariable } from "../../core/kernels/FindKernel.ts"
import { KernelResolver } from "../../core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { readForeignText } from "../../core/process/ForeignText.ts"
import { LiveHost } from "../../host/LiveHost.ts"
import { boot, type BootOptions, freezeAndAttach, openImage, openQemu } from "../../Ktstr.ts"
import * as Engine from "../../kvm/Engine.ts"
import { FileUnreadable, UsageError } from "../terminal/exit.ts"
import { holding } from "../terminal/signals.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"
import type { Machine, Output, Script, Target } from "./options.ts"

/** Options that only a VM booted by this command has, by the names of their values. */
const VM_ONLY_OPTIONS = {
  kernel: "kernel",
  include: "include",
  exec: "exec",
  execFile: "exec-file",
  engine: "engine",
  cpus: "cpus",
  topology: "topology",
  memoryMib: "memory-mib",
  disk: "disk",
  share: "share",
  module: "module",
  kaslr: "kaslr",
  cmdline: "cmdline",
  console: "console"
} as const

const SAY_WHICH =
  "say which kernel to read: --kernel ID (or KTSTR_KERNEL) boots one, --image FILE and --qemu PID read one, --live this host"

/** The value of an option that the command may not have. */
const valueOf = <A>(option: Option.Option<A> | undefined): A | undefined =>
  option === undefined ? undefined : Option.getOrUndefined(option)

const givenOfAVm = (target: Target) =>
  (Object.keys(VM_ONLY_OPTIONS) as Array<keyof typeof VM_ONLY_OPTIONS>).filter((name) => {
    const value = target[name]
    if (typeof value === "boolean") return value
    return "length" in value ? value.length > 0 : Option.isSome<unknown>(value)
  })

/** The maps of the kernel that the options name, and what the lists say of it, until the scope closes. */
export const openMaps = (target: Target) =>
  Effect.gen(function*() {
    if (target.live !== true) return yield* openTarget(target)
    const given = [
      ...givenOfAVm(target).map((name) => VM_ONLY_OPTIONS[name]),
      ...(["image", "qemu", "vmlinux"] as const).filter((name) => valueOf(target[name]) !== undefined),
      ...(target.racy === true ? ["racy"] : [])
    ]
    if (given.length > 0) return yield* new UsageError({ problem: `--${given[0]} does not go with --live` })
    return yield* Effect.provide(openLive(), yield* Layer.build(LiveHost.layer))
  })

/** Get the kernel that the options name to stand still, ready to be read, until the scope closes. */
export const openTarget = (target: Target) =>
  Effect.gen(function*() {
    const qemu = yield* qemuOf(target)
    if (qemu !== undefined) return yield* openQemu(qemu, target)
    if (target.racy === true) return yield* new UsageError({ problem: "--racy goes with --qemu" })
    const image = yield* imageOf(target)
    if (image !== undefined) return yield* openImage(image.path, image)
    const options = yield* bootOptions(target)
    const vm = yield* bootWithin(options, target)
    return yield* freezeAndAttach(vm, options.kernel)
  })

/** The QEMU that the options name: its monitor's socket or its process; undefined where they name none. */
export const qemuOf = (target: Target) =>
  Effect.gen(function*() {
    const given = valueOf(target.qemu)
    if (given === undefined) return undefined
    const other = [
      ...givenOfAVm(target).map((name) => VM_ONLY_OPTIONS[name]),
      ...(["image", "vmlinux"] as const).filter((name) => valueOf(target[name]) !== undefined)
    ].at(0)
    if (other !== undefined) return yield* new UsageError({ problem: `--${other} does not go with --qemu` })
    return /^\d{1,10}$/.test(given) ? Number(given) : given
  })

/** The image that the options name; undefined where they name a VM to boot. */
export const imageOf = (target: Target) =>
  Effect.gen(function*() {
    const [path, vmlinux] = [valueOf(target.image), valueOf(target.vmlinux)]
    if (path === undefined) {
      if (vmlinux === undefined) return undefined
      return yield* new UsageError({ problem: "--vmlinux goes with --image" })
    }
    if (Option.isSome(target.kernel)) {
      return yield* new UsageError({
        problem: "give --kernel, which boots one, or --image, which reads one; not both"
      })
    }
    const given = givenOfAVm(target)
    if (given.length > 0) {
      return yield* new UsageError({ problem: `--${VM_ONLY_OPTIONS[given[0]]} goes with --kernel, not with --image` })
    }
    return { path, vmlinux }
  })

/** The VM that the options name, booted and its script run, until the scope closes; what its kernel was called. */
export const bootTarget = (target: Machine & Script) =>
  Effect.gen(function*() {
    const options = yield* bootOptions(target)
    return { vm: yield* bootWithin(options, target), name: options.kernel }
  })

/** Getting a kernel and packing its initramfs may take this long before the guest's own time limit counts. */
export const PREPARE_MILLIS = 10_000

/**
 * Boot. Meanwhile signals interrupt; they end the process once the guest is only read, which may be one long synchronous
 * walk: the kernel ends QEMU with us (`runChild`), and nothing else needs to be put back in order.
 */
const bootWithin = (options: BootOptions, target: Machine) =>
  holding(Effect.provide(boot(options), engineOf(target))).pipe(
    (booting) => Effect.zipRight(restartTimeLimit(PREPARE_MILLIS), booting),
    Effect.tap(() => restartTimeLimit())
  )

/** The engine that the options ask for. */
export const engineOf = ({ engine }: Pick<Machine, "engine">) =>
  Engine.layerWith(Option.getOrElse(engine, () => "auto" as const))

/** The settings of a VM that the options name. */
export const bootOptions = (target: Machine & Script, notGiven = SAY_WHICH) =>
  Effect.gen(function*() {
    const kernel = Option.isSome(target.kernel) ? target.kernel : yield* kernelVariable
    if (Option.isNone(kernel)) {
      return yield* new UsageError({ problem: notGiven })
    }
    const options: BootOptions = {
      kernel: kernel.value,
      includes: target.include,
      ...(yield* scriptOf(target)),
      memoryMib: Option.getOrUndefined(target.memoryMib),
      cpus: Option.getOrUndefined(target.cpus),
      topology: Option.getOrUndefined(target.topology),
      disks: target.disk.map((word) => {
        const path = word.replace(/,ro$/, "")
        return { path, readOnly: path !== word }
      }),
      shares: target.share.map((word) => {
        const path = word.replace(/,rw$/, "")
        return { path, writable: path !== word }
      }),
      modules: target.module,
      kaslr: target.kaslr,
      cmdline: Option.getOrUndefined(target.cmdline),
      timeout: Option.getOrUndefined(Option.map(target.timeout, Duration.seconds)),
      consoleFile: Option.getOrUndefined(target.console)
    }
    return options
  })

const scriptOf = (target: Script) =>
  Effect.gen(function*() {
    if (Option.isSome(target.exec) && Option.isSome(target.execFile)) {
      return yield* new UsageError({ problem: "give --exec or --exec-file, not both" })
    }
    if (Option.isSome(target.exec)) return { script: target.exec.value }
    if (Option.isNone(target.execFile)) return {}
    const path = target.execFile.value
    const script = yield* Effect.mapError(readForeignText(path), (why) =>
      new FileUnreadable({
        what: `the script ${path}`,
        why,
        hint: "give --exec-file a file that you can read"
      }))
    return { script }
  })

/** Is the answer for a program? */
export const format = ({ json, ndjson }: Output): Effect.Effect<"text" | "json" | "ndjson", UsageError> =>
  json && ndjson
    ? new UsageError({ problem: "give --json or --ndjson, not both" })
    : Effect.succeed(json ? "json" : ndjson ? "ndjson" : "text")

/** The services that the stages need, on a host with Node. */
export const Live = Layer.provideMerge(KernelResolver.layer, NativeKoffi.layer)
