import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { totalmem } from "node:os"
import { resolveTopology, type Topology } from "./Topology.ts"
import { VM_DEFAULTS } from "./VmDefaults.ts"
import { VmBootError, type VmSpec } from "./VmEngine.ts"

const MIB = 2 ** 20
/** Guest memory per memory of the host: a guest costs only what it touches, so it may have more than there is. */
const OVERCOMMIT = 4

/** Most disks and shares of a VM: QEMU's PCI bus has 32 slots, of which the machine takes three. */
const MOST_DEVICES = 24
/** Bytes of the longest command line that any kernel takes (x86's COMMAND_LINE_SIZE is 2048), with room to spare. */
const LONGEST_CMDLINE = 2 ** 16

/** Settings of a VM that were found to be possible. */
export interface CheckedSpec {
  readonly topology: Topology
  readonly limits: ReadyLimits
  readonly freezeTimeout: Duration.Duration
}

/** How long a guest may take to report: in all, and without printing anything. */
export interface ReadyLimits {
  readonly whole: Duration.Duration
  readonly silence: Duration.Duration
}

/**
 * Check every setting of a VM before any work is done for it.
 * @param least MiB of memory that a guest of this initramfs needs
 */
export const checkSpec = (
  spec: VmSpec,
  options: { readonly freezeTimeout?: Duration.DurationInput | undefined },
  least: number
): Effect.Effect<CheckedSpec, VmBootError> =>
  Effect.gen(function*() {
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const topology = yield* Either.mapLeft(resolveTopology(spec), ({ hint, why }) => broken(why, hint))
    const { memoryMib } = topology
    const most = OVERCOMMIT * Math.floor(totalmem() / MIB)
    if (memoryMib > most) {
      return yield* broken(
        `${memoryMib} MiB of memory are more than ${OVERCOMMIT} times this host's (${most} MiB)`,
        "lower memoryMib"
      )
    }
    if (memoryMib < least) {
      return yield* broken(
        `${memoryMib} MiB of memory cannot hold a kernel and its initramfs`,
        `set memoryMib to ${least} or more`
      )
    }
    const disks = spec.disks?.length ?? 0
    const shares = spec.shares?.length ?? 0
    if (disks + shares > MOST_DEVICES) {
      const given = shares === 0 ? `disks, not ${disks}` : `disks and shares, not ${disks + shares}`
      return yield* broken(`a VM takes ${MOST_DEVICES} ${given}`, `give it fewer ${disks === 0 ? "shares" : "disks"}`)
    }
    if ((spec.cmdline?.length ?? 0) > LONGEST_CMDLINE) {
      return yield* broken(`a kernel's command line of ${spec.cmdline?.length} characters`, "shorten cmdline")
    }
    const limit = (name: string, given: Duration.DurationInput | undefined, otherwise: Duration.DurationInput) =>
      Option.match(Option.filter(Duration.decodeUnknown(given ?? otherwise), isLimit), {
        onNone: () =>
          Effect.fail(broken(`${name} is ${String(given)}, not a time`, `set ${name} to "30 seconds", say`)),
        onSome: Effect.succeed
      })
    const whole = yield* limit("timeout", spec.timeout, Duration.seconds(VM_DEFAULTS.timeoutSeconds))
    const silence = yield* limit(
      "silenceTimeout",
      spec.silenceTimeout,
      spec.timeout ?? Duration.seconds(VM_DEFAULTS.silenceSeconds)
    )
    const freezeTimeout = yield* limit("freezeTimeout", options.freezeTimeout, "10 seconds")
    return { topology, limits: { whole, silence }, freezeTimeout }
  })

const isLimit = (duration: Duration.Duration): boolean => Duration.toMillis(duration) > 0
