// Boots, freezes and destroys a bare-metal guest of two spinning vCPUs, over and over, and prints what this process holds
// before and after as JSON. Arguments: how many rounds, and how many first so that what is made once is there.
import * as Effect from "effect/Effect"
import assert from "node:assert"
import { readdirSync, readFileSync, writeSync } from "node:fs"
import { assemble, bareMachine, DATA } from "../support/bareMetal.ts"

const [rounds, first] = process.argv.slice(2).map(Number)
const code = assemble(`
  lea ${DATA}(,%rsi,8), %rdi
1: incq (%rdi)
  jmp 1b`)

const round = Effect.scoped(Effect.gen(function*() {
  const { machine, vm } = yield* bareMachine(code, { cpus: 2 })
  while ([0, 8].some((at) => vm.memory.u64(DATA + at) === 0n)) yield* Effect.sleep("1 millis")
  const { vcpus } = yield* Effect.scoped(machine.freeze)
  assert.strictEqual(vcpus.length, 2)
}))

/** Mappings that ask for large pages: guests' memory is the only such. */
const guestMemories = () => readFileSync("/proc/self/smaps", "latin1").match(/^VmFlags:.* hg( |$)/gm)?.length ?? 0

const held = () => {
  for (let i = 0; i < 3; i++) globalThis.gc?.() // what is unreachable holds buffers, code and stacks of ended threads
  const mappings = readFileSync("/proc/self/maps", "latin1").split("\n")
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
    mappings: mappings.length,
    guests: mappings.filter((line) => line.includes("kvm-vcpu")).length + guestMemories()
  }
}

/** Threads without a guest stay for a second. */
const settled = Effect.zipRight(Effect.sleep("2 seconds"), Effect.sync(held))
const program = Effect.gen(function*() {
  yield* Effect.repeatN(round, first - 1)
  const before = yield* settled
  yield* Effect.repeatN(round, rounds - 1)
  writeSync(1, `${JSON.stringify({ before, after: yield* settled })}\n`)
})
await Effect.runPromise(program)
