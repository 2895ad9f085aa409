import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { parseRegisters } from "../../../src/kvm/qemu/QemuRegisters.ts"

/** As QEMU 7.2 prints an arm64 CPU, the second running in user space. */
const arm64 = (cpu: number, pstate: string, first: bigint): string => {
  const word = (value: bigint) => value.toString(16).padStart(16, "0")
  const words = Array.from(
    { length: 31 },
    (_, index) => `X${String(index).padStart(2, "0")}=${word(first + BigInt(index))}`
  )
  return `CPU#${cpu}\n PC=${word(first + 100n)} ${words.join(" ")} SP=${
    word(first + 200n)
  }\nPSTATE=${pstate} -ZC- EL1h     BTYPE=0 FPU disabled\n`
}

describe("parseRegisters", () => {
  it("reads those of arm64", () => {
    const first = 0xffff_8000_0801_0000n
    const registers = (from: bigint, pstate: bigint) => ({
      x: Array.from({ length: 31 }, (_, index) => from + BigInt(index)),
      sp: from + 200n,
      pc: from + 100n,
      pstate
    })
    assert.deepStrictEqual(
      Either.getOrThrow(parseRegisters(`\n${arm64(0, "600000c5", first)}\n${arm64(1, "20001000", 7n)}`)),
      [registers(first, 0x600000c5n), registers(7n, 0x20001000n)]
    )
  })

  it("says which one a CPU lacks", () => {
    const text = arm64(0, "600000c5", 1n) + arm64(1, "600000c5", 1n).replace("X30=", "")
    assert.strictEqual(
      Either.getOrThrow(Either.flip(parseRegisters(text))).message,
      "QEMU's info registers -a, CPU 1: registers at byte 0: expected X30=…"
    )
  })
})
