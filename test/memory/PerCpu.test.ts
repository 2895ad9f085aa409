import { assert, describe, it } from "@effect/vitest"
import { X86PageTable } from "../../src/memory/arch/X86PageTable.ts"
import { KernelSpace } from "../../src/memory/KernelSpace.ts"
import { perCpuOffsets } from "../../src/memory/PerCpu.ts"
import { MadeKernel, type MadeKernelOptions } from "./MadeKernel.ts"

const offsets = (options: MadeKernelOptions, without: ReadonlyArray<string> = [], maskBits = 64) => {
  const made = new MadeKernel(options)
  const space = new KernelSpace(new X86PageTable(made.memory(), made.root, 4), undefined)
  const address = (name: string) => without.includes(name) ? undefined : made.symbols.get(name)
  return perCpuOffsets(space, { address, at: () => undefined, entries: () => [] }, maskBits)
}

describe("perCpuOffsets", () => {
  it("has a place for each CPU number, filled for possible CPUs", () => {
    assert.deepStrictEqual(offsets({ possibleCpus: 0b1011, cpuOffsets: [10n, 20n, 30n, 40n] }), {
      offsets: [10n, 20n, undefined, 40n],
      problem: undefined
    })
  })

  it("never takes an offset of zero for CPU 0's area", () => {
    assert.deepStrictEqual(offsets({ possibleCpus: 0b111, cpuOffsets: [10n, 0n, 30n] }), {
      offsets: [10n, undefined, 30n],
      problem: { kind: "unreadable", text: "no per-CPU area for CPU 1" }
    })
  })

  it("gives CPU 0 the plain address in a kernel for one CPU", () => {
    assert.deepStrictEqual(offsets({}, ["__per_cpu_offset", "nr_cpu_ids"]), { offsets: [0n], problem: undefined })
  })

  it("stops at nr_cpu_ids, or at the mask's end where that is a constant", () => {
    assert.strictEqual(offsets({ possibleCpus: 0b11 }, ["nr_cpu_ids"]).offsets.length, 2)
    assert.strictEqual(offsets({ possibleCpus: 0b11 }, [], 1).offsets.length, 1)
  })

  it("says which symbols it lacks", () => {
    assert.include(offsets({}, ["__cpu_possible_mask"]).problem!.text, "CONFIG_KALLSYMS_ALL")
    assert.include(offsets({ possibleCpus: 0 }).problem!.text, "names no CPU")
  })
})
