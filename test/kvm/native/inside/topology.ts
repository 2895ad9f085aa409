// Runs where /dev/kvm is real: guests of several machines say what they see of theirs.
import * as Effect from "effect/Effect"
import assert from "node:assert"
import { readFileSync, writeSync } from "node:fs"
import { freezeAndAttach } from "../../../../src/Ktstr.ts"
import { bootKvm } from "../../../../src/kvm/native/Kvm.ts"
import type { TopologySpec } from "../../../../src/kvm/spec/Topology.ts"
import { assertSees, waysIn, waysOfThree } from "../../topologyGuest.ts"

const [initramfs, newer, older] = process.argv.slice(2)
const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ${text}\n`)

const guest = (name: string, kernel: string, topology: TopologySpec, cmdline = "") =>
  Effect.scoped(Effect.gen(function*() {
    const vm = yield* bootKvm(
      {
        kernel,
        initramfs: readFileSync(initramfs),
        topology,
        memoryMib: topology.memory === undefined ? 256 : undefined,
        cmdline,
        timeout: "150 seconds"
      },
      {}
    )
    const status = yield* vm.awaitReady.pipe(
      Effect.tapError(() => Effect.map(vm.consoleTail, (lines) => say(lines.slice(-40).join("\n"))))
    )
    assert.strictEqual(status, 0)
    const lines = yield* vm.consoleTail
    assertSees(lines, vm.topology, "core")
    const { kernel: attached } = yield* freezeAndAttach(vm, name)
    assert.strictEqual(attached.perCpuOffsets.filter((offset) => offset !== undefined).length, vm.topology.cpus)
    say(`ok: ${name}`)
    return lines
  }))

const program = Effect.gen(function*() {
  yield* guest("4 cores", newer, { nodes: 1, llcs: 1, cores: 4, threads: 1 })
  yield* guest("2 LLCs of 2 cores of 2 threads", older, { nodes: 1, llcs: 2, cores: 2, threads: 2 })
  yield* guest("2 nodes of 2 LLCs of 2 cores", newer, { nodes: 2, llcs: 4, cores: 2, threads: 1 })
  const lines = yield* guest("2 nodes of a core of 2 threads, and a third of memory", newer, {
    nodes: 2,
    llcs: 2,
    cores: 1,
    threads: 2,
    memory: [
      { mib: 192, latencyNs: 90 },
      { mib: 128 },
      {
        mib: 256,
        latencyNs: 260,
        bandwidthMibs: 20_000,
        cache: { bytes: 2 ** 26, lineBytes: 64, associativity: "complex", writePolicy: "write-through" }
      }
    ],
    distances: [[10, 21, 40], [21, 10, 30], [40, 30, 10]]
  })
  assert.deepStrictEqual(waysIn(lines), waysOfThree)
  // the second node's memory is on both sides of the hole below 4 GiB; no pages set aside for old devices
  yield* guest("3 cores with 5 GiB on 3 nodes", newer, {
    nodes: 3,
    llcs: 3,
    cores: 1,
    threads: 1,
    memory: [{ mib: 2048 }, { mib: 2048 }, { mib: 1024 }]
  }, "swiotlb=noforce")
})

await Effect.runPromise(program)
say("ok: all machines")
