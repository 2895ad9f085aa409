import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { formatRegisters, type VcpuRegisters } from "./VcpuRegisters.ts"

const isRegisters = (value: unknown): value is VcpuRegisters =>
  Predicate.hasProperty(value, "general") && Predicate.hasProperty(value, "control")

/**
 * The guest ended in a way that no guest asks for. `vcpu` is the CPU where it happened and `registers` what it held
 * (after a triple fault on an AMD host, those of a reset: KVM has no others); `consoleTail` is what the console
 * said last.
 *
 * @since 0.1.0
 * @category errors
 */
export class VmDied extends Schema.TaggedError<VmDied>("ktstr/VmDied")("VmDied", {
  end: Schema.Literal("tripleFault", "halted", "internalError", "failEntry", "unknownExit", "failed"),
  detail: Schema.String,
  vcpu: Schema.Int,
  registers: Schema.optional(Schema.declare(isRegisters)),
  consoleTail: Schema.Array(Schema.String)
}) {
  override get message() {
    const where = this.registers === undefined ? "" : `; ${formatRegisters(this.registers)}`
    const said = this.consoleTail.at(-1)
    return `CPU ${this.vcpu} stopped the guest (${ends[this.end]}): ${this.detail}; its console ${
      said === undefined ? "said nothing" : `last said ${JSON.stringify(said.slice(0, 200))}`
    }${where}`
  }
}

const ends = {
  tripleFault: "triple fault",
  halted: "halt",
  internalError: "internal error",
  failEntry: "invalid state",
  unknownExit: "unknown exit",
  failed: "thread failure"
} as const
