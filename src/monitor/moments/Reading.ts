import * as Schema from "effect/Schema"
import { Link } from "../../bpf/Link.ts"
import { Freeze, Kernel, MapDump, ProgramInfo, Source } from "../../bpf/Report.ts"
import { Reason } from "../../core/Reason.ts"
import { SchedDocument } from "../../sched/SchedDocument.ts"

/**
 * A CPU of the guest when it was stopped. `place` is the function that `rip` (arm64: `pc`) is in; null in user space, in a
 * module and in BPF programs. `callers` are the functions that its kernel stack returns to, the innermost first; on x86-64
 * stale ones may be among them. None of a CPU in user space.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailedCpu = Schema.Struct({
  cpu: Schema.Int,
  mode: Schema.Literal("kernel", "user"),
  place: Schema.NullOr(Schema.String),
  callers: Schema.optionalWith(Schema.Array(Schema.String), { default: () => [] }),
  registers: Schema.Record({ key: Schema.String, value: Schema.String }).annotations({ description: "hexadecimal" })
}).annotations({ identifier: "FailedCpu" })
/**
 * The type that the Schema `FailedCpu` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type FailedCpu = typeof FailedCpu.Type

/**
 * All that was read of a guest while it stood still. What could not be read is a `Reason` in its place.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Reading = Schema.Struct({
  source: Source,
  kernel: Schema.NullOr(Kernel),
  freeze: Schema.NullOr(Freeze),
  vcpus: Schema.Union(Schema.Array(FailedCpu), Reason),
  sched: Schema.Union(SchedDocument, Reason),
  links: Schema.Union(Schema.Array(Link), Reason),
  maps: Schema.Array(MapDump),
  programs: Schema.Array(ProgramInfo),
  problems: Schema.Array(Reason),
  losses: Schema.Int.annotations({ description: "how many parts could not be read whole" })
}).annotations({ identifier: "Reading" })
/**
 * The type that the Schema `Reading` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Reading = typeof Reading.Type
