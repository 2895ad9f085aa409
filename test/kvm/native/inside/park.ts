// Freezes bare-metal guests of 1, 2 and 4 spinning vCPUs over and over, and prints as JSON how long, in microseconds, the
// vCPUs took to stand. Argument: how many freezes of each.
import * as Effect from "effect/Effect"
import { writeSync } from "node:fs"
import { assemble, bareMachine, DATA } from "../support/bareMetal.ts"

const freezes = Number(process.argv[2])
const code = assemble(`
  lea ${DATA}(,%rsi,8), %rdi
1: incq (%rdi)
  jmp 1b`)

const measure = (cpus: number) =>
  Effect.scoped(Effect.gen(function*() {
    const { machine, vm } = yield* bareMachine(code, { cpus })
    const counters = () => Array.from({ length: cpus }, (_, id) => vm.memory.u64(DATA + 8 * id))
    const parks: Array<number> = []
    for (let round = 0; round < freezes; round++) {
      const before = counters()
      while (counters().some((count, id) => count === before[id])) yield* Effect.sleep("1 millis")
      const { vcpus } = yield* Effect.scoped(machine.freeze)
      parks.push(...vcpus.map(({ parkMicros }) => parkMicros))
    }
    parks.sort((a, b) => a - b)
    const at = (share: number) => parks[Math.floor(share * (parks.length - 1))]
    return { cpus, freezes, p50: at(0.5), p99: at(0.99), max: at(1) }
  }))

writeSync(1, `${JSON.stringify(await Effect.runPromise(Effect.forEach([1, 2, 4], measure)))}\n`)
