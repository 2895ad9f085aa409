import { assert, describe, it } from "@effect/vitest"
import { cpuList, inCpuList } from "../../src/sched/tasks/CpuList.ts"
import { niceOf, policyName, stateLetter } from "../../src/sched/tasks/TaskState.ts"

describe("cpuList", () => {
  const listOf = (...cpus: ReadonlyArray<number>): string => {
    const view = new DataView(new ArrayBuffer(16))
    for (const cpu of cpus) view.setUint8(cpu >>> 3, view.getUint8(cpu >>> 3) | (1 << (cpu & 7)))
    return cpuList(view, 0, 128)
  }

  it("is what the kernel prints", () => {
    assert.strictEqual(listOf(), "")
    assert.strictEqual(listOf(0), "0")
    assert.strictEqual(listOf(0, 1, 2, 5, 7, 8, 127), "0-2,5,7-8,127")
  })

  it("answers whether a CPU is in it", () => {
    for (const [cpu, is] of [[0, true], [2, true], [3, false], [8, true], [127, true], [12, false]] as const) {
      assert.strictEqual(inCpuList("0-2,5,7-8,127", cpu), is, String(cpu))
    }
    assert.isFalse(inCpuList("", 0))
  })
})

describe("stateLetter", () => {
  it("is what ps shows", () => {
    // include/linux/sched.h TASK_…, EXIT_…, v7.3
    const states = [[0, 0, "R"], [1, 0, "S"], [2, 0, "D"], [4, 0, "T"], [8, 0, "t"], [0x402, 0, "I"], [
      0x1000,
      0,
      "D"
    ]] as const
    const ended = [[0x80, 0x10, "X"], [0x80, 0x20, "Z"], [0x40, 0, "P"], [0x2001, 0, "S"], [0x8000, 0, "D"]] as const
    for (const [state, exit, letter] of [...states, ...ended]) assert.strictEqual(stateLetter(state, exit), letter)
  })
})

it("policies and nice values have the names that chrt and nice use", () => {
  assert.deepStrictEqual([0, 1, 2, 3, 5, 6, 7, 9].map(policyName), [
    "NORMAL",
    "FIFO",
    "RR",
    "BATCH",
    "IDLE",
    "DEADLINE",
    "EXT",
    "9"
  ])
  assert.deepStrictEqual([100, 120, 139].map(niceOf), [-20, 0, 19])
})
