import type * as Either from "effect/Either"
import { FormatError, parsing } from "../../core/FormatError.ts"
import { type Arm64Registers, type CpuRegisters, generalNames, segmentNames } from "../spec/VcpuRegisters.ts"

/** `RAX=0000000000000001`, `R8 =…`, `CR0=80050033`, `EFER=…`, `ES =0010 0000000000000000 ffffffff 00cf9300`. */
const WORD = /\b(R[A-Z]{2}|R\d{1,2}|CR[0-4]|EFER|[C-GLST][SRD]T?) *=([0-9a-f]{4,16})(?: ([0-9a-f]{16}) )?/g

/**
 * The CPUs' registers, in order, out of what QEMU's monitor prints for `info registers -a`.
 * @see QEMU target/i386/cpu-dump.c `x86_cpu_dump_state`, target/arm/cpu.c `aarch64_cpu_dump_state`, 7.2
 */
export const parseRegisters = (
  text: string
): Either.Either<ReadonlyArray<CpuRegisters | Arm64Registers>, FormatError> =>
  parsing(() =>
    text.split(/^CPU#\d+\s*$/m).slice(1).map((part, cpu) =>
      part.includes("PSTATE=") ? arm64Of(part, cpu) : registersOf(part, cpu)
    )
  )

/** `PC=ffff…`, `X07=…`, `SP=…`, `PSTATE=600000c5`. */
const ARM64_WORD = /\b(PC|X\d\d|SP|PSTATE)=([0-9a-f]{8,16})/g

const arm64Of = (text: string, cpu: number): Arm64Registers => {
  const word = finder(new Map([...text.matchAll(ARM64_WORD)].map(([, name, value]) => [name, hexOf(value)])), cpu)
  return {
    x: Array.from({ length: 31 }, (_, index) => word(`X${String(index).padStart(2, "0")}`)),
    sp: word("SP"),
    pc: word("PC"),
    pstate: word("PSTATE")
  }
}

const registersOf = (text: string, cpu: number): CpuRegisters => {
  const word = finder(
    new Map(
      [...text.matchAll(WORD)].map(([, name, value, base]) => [name, { value: hexOf(value), base: hexOf(base ?? "0") }])
    ),
    cpu
  )
  const segment = (name: string) => {
    const { base, value } = word(name.toUpperCase())
    return { base, selector: Number(value) }
  }
  const record = <Name extends string, A>(names: ReadonlyArray<Name>, of: (name: Name) => A) =>
    Object.fromEntries(names.map((name) => [name, of(name)])) as Record<Name, A>
  return {
    general: record(generalNames, (name) => word(name === "rflags" ? "RFL" : name.toUpperCase()).value),
    segments: record(segmentNames, segment),
    control: record(["cr0", "cr2", "cr3", "cr4", "efer"], (name) => word(name.toUpperCase()).value)
  }
}

/** A register's value by its name, which must be there. */
const finder = <A>(words: ReadonlyMap<string, A>, cpu: number) => (name: string): A => {
  const found = words.get(name)
  if (found !== undefined) return found
  throw new FormatError({
    format: "registers",
    subject: `QEMU's info registers -a, CPU ${cpu}`,
    offset: 0,
    expected: `${name}=…`
  })
}

const hexOf = (digits: string): bigint => BigInt(`0x${digits}`)
