import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { CacheError } from "../../core/CacheDir.ts"
import { HostLacks } from "../../core/Errors.ts"
import { type KvmStatus, probeKvm } from "../../kvm/probe/KvmProbe.ts"
import { findQemus, isExact, type QemuFound } from "./FindQemu.ts"

/**
 * How a run's guest is executed. `kvm`: by the hardware, in real time. `exact`: by QEMU's emulation, bit for bit the same
 * for each seed. `exact-coarse`: the same by a QEMU before 8.1, where a wake-up across busy CPUs waits for a timer.
 * `emulated`: a host thread for each CPU, so that the host's load shows.
 *
 * @since 0.1.0
 * @category schemas
 */
export const EngineMode = Schema.Literal("kvm", "exact", "exact-coarse", "emulated").annotations({
  identifier: "EngineMode"
})
/**
 * The type that the Schema `EngineMode` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type EngineMode = typeof EngineMode.Type

/**
 * The clock of an exact guest: what an instruction takes, and how long a round of its CPUs' turns is. Other numbers give
 * other schedules.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ExactClock = Schema.Struct({
  shift: Schema.Int.pipe(Schema.between(0, 10)).annotations({
    description: "an instruction takes 2^shift nanoseconds of the guest; at most what QEMU takes"
  }),
  sliceMicros: Schema.NonNegativeInt.annotations({
    description: "longest round of turns of its CPUs, in microseconds of the guest; 0: until the next timer"
  })
}).annotations({ identifier: "ExactClock" })
/**
 * The type that the Schema `ExactClock` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ExactClock = typeof ExactClock.Type

/**
 * The clock of a mode's guests; null where time is the host's. At 2 ns an instruction and rounds of 50 us the smoke test takes
 * the host 1.4 to 1.8 times the CPU time.
 */
export const clockOf = (mode: EngineMode): ExactClock | null =>
  mode === "exact" ? { shift: 2, sliceMicros: 100 } : mode === "exact-coarse" ? { shift: 2, sliceMicros: 0 } : null

/**
 * Whether this host has a mode, and why or why not; `fix` is what to do about it.
 *
 * @since 0.1.0
 * @category models
 */
export interface ModeOfHost {
  readonly mode: EngineMode
  readonly works: boolean
  readonly why: string
  readonly fix: string | null
}

/**
 * A mode that was chosen, with the QEMU that runs it, and why.
 *
 * @since 0.1.0
 * @category models
 */
export interface ChosenMode {
  readonly mode: EngineMode
  readonly why: string
  readonly qemu: QemuFound | undefined
}

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem

/** The modes of a host with that KVM and those QEMUs. */
export const modesOf = (kvm: KvmStatus, qemus: ReadonlyArray<QemuFound>): ReadonlyArray<ModeOfHost> => {
  const exact = qemus.find(({ version }) => isExact(version))
  const first = qemus.at(0)
  const named = (qemu: QemuFound) => `QEMU ${qemu.version} of ${qemu.from === "cache" ? "the cache" : qemu.from}`
  const none = { works: false, why: "qemu-system-x86_64 is not installed", fix: "apt-get install qemu-system-x86" }
  return [
    {
      mode: "kvm",
      works: kvm.kind === "hardware",
      why: kvm.why,
      fix: kvm.kind === "hardware" ? null : "use bare metal, or a VM with nested virtualization"
    },
    exact !== undefined
      ? { mode: "exact", works: true, why: named(exact), fix: null }
      : {
        mode: "exact",
        works: false,
        why: first === undefined ? none.why : `${named(first)} is older than 8.1`,
        fix: "run `ktstr qemu fetch`"
      },
    first === undefined
      ? { mode: "exact-coarse", ...none }
      : { mode: "exact-coarse", works: true, why: named(first), fix: null },
    first === undefined
      ? { mode: "emulated", ...none }
      : { mode: "emulated", works: true, why: named(first), fix: null }
  ]
}

/**
 * The modes of this host.
 *
 * @since 0.1.0
 * @category reading
 */
export const hostModes: Effect.Effect<ReadonlyArray<ModeOfHost>, CacheError | HostLacks, Host> = Effect.gen(
  function*() {
    return modesOf(yield* probeKvm, yield* findQemus)
  }
)

/**
 * The mode for a run. `auto` is `kvm` where hardware runs guests, else `exact`, else `emulated` (with one CPU
 * `exact-coarse`, in which nothing is coarse then). Fails with `HostLacks` where this host does not have the mode.
 *
 * @since 0.1.0
 * @category reading
 */
export const chooseMode = Effect.fn("EngineMode.choose")(
  function*(
    requested: EngineMode | "auto",
    cpus: number
  ): Effect.fn.Return<ChosenMode, CacheError | HostLacks, Host> {
    const kvm = yield* probeKvm
    const qemus = requested === "kvm" || (requested === "auto" && kvm.kind === "hardware") ? [] : yield* findQemus
    const exactQemu = qemus.find(({ version }) => isExact(version))
    const modes = modesOf(kvm, qemus)
    const works = (mode: EngineMode): boolean => modes.some((one) => one.mode === mode && one.works)
    const order: ReadonlyArray<EngineMode> = requested !== "auto"
      ? [requested]
      : ["kvm", "exact", cpus === 1 ? "exact-coarse" : "emulated"]
    const mode = order.find(works)
    if (mode === undefined) {
      const wanted = modes.find((one) => one.mode === order[order.length - 1])!
      return yield* new HostLacks({ what: `mode ${wanted.mode}`, why: wanted.why, hint: wanted.fix ?? "" })
    }
    const passed = modes.filter((one) => order.indexOf(one.mode) >= 0 && order.indexOf(one.mode) < order.indexOf(mode))
    return {
      mode,
      why: requested !== "auto" ? "asked for" : passed.length === 0
        ? modes.find((one) => one.mode === mode)!.why
        : passed.map((one) => `not ${one.mode}: ${one.why}`).join("; "),
      qemu: mode === "kvm" ? undefined : mode === "exact" ? exactQemu : qemus.at(0)
    }
  }
)
