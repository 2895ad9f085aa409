import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { formatRegisters, type VcpuRegisters } from "./VcpuRegisters.ts"

const isRegisters = (value: unknown): value is VcpuRegisters =>
  Predicate.hasProperty(value, "general") && Predicate.hasProperty(value, "control")

/**
 * The guest came to an end that no guest wishes for. `vcpu` is the CPU where it happened and `registers` what it held
 * (of a triple fault on an AMD host those of a reset: KVM has no others left then); `consoleTail` is what the console
 * said last.
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
    return `the guest died of ${ends[this.end]} on CPU ${this.vcpu}: ${this.detail}; its console ${
      said === undefined ? "said nothing" : `last said ${JSON.stringify(said.slice(0, 200))}`
    }${where}`
  }
}

const ends = {
  tripleFault: "a triple fault",
  halted: "a halt",
  internalError: "an internal error",
  failEntry: "a state that cannot run",
  unknownExit: "an exit nobody handles",
  failed: "a failing thread"
} as const
