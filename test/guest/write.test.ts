import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type MapAssignment, writeMaps } from "../../src/bpf/guest/write/MapWrite.ts"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { makeInitramfs } from "../../src/kvm/guest/Initramfs.ts"
import { type Vm, VmEngine } from "../../src/kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"

/** Loads and fills, then has `look` run until `seen` shows a written value, and prints it. */
const SCRIPT = `
set -e
pins=/sys/fs/bpf
dd if=/dev/zero of=/tmp/in bs=64 count=1 2>/dev/null
bpftool prog loadall /include-files/write.bpf.o $pins/w pinmaps $pins/m
bpftool prog run pinned $pins/w/fill data_in /tmp/in >/dev/null
(while :; do
  taskset -c 1 bpftool prog run pinned $pins/w/look data_in /tmp/in >/dev/null
  echo "SEEN $(bpftool -j map dump name write.bss | tr -d '\\n')"
  sleep 0.2
done) &
`

const writes: ReadonlyArray<MapAssignment> = [
  { path: "g_stat.in.a", value: 7 },
  { path: "g_stat.in", value: { big: "18446744073709551615" } },
  { path: "g_stat.cpus[2]", value: -300 },
  { path: "g_stat", value: { mode: "BUSY", low: 5 } },
  { path: "g_stat.high", value: 21 },
  { path: "g_wide.across[0]", value: "0x1122334455667788" },
  { map: "numbers", key: 999, value: 123456789 },
  { map: "table", key: { id: 17, port: 80 }, path: "big", value: 1717 },
  { map: "own", key: 3, value: 40, cpu: 0 },
  { map: "own", key: 3, value: 41, cpu: 1 },
  { map: "locked", key: 3, value: { lock: { val: 0 }, count: 9 } }
]

const refusals: ReadonlyArray<readonly [MapAssignment, string]> = [
  [{ path: "g_stat.in.b", value: 1 }, "g_stat.in.: expected one of a, big, not b"],
  [{ path: "g_stat.in.a", value: 2 ** 31 }, "expected an integer from -2147483648 to 2147483647, not 2147483648"],
  [{ path: "nothing", value: 1 }, "no map has a variable of that name"],
  [
    { path: "constant", value: 1 },
    "it is read-only for programs: the verifier may have treated its values as constants"
  ],
  [{ map: "numbers", key: 1000, value: 1 }, "it has elements 0 to 999, not 1000"],
  [{ map: "numbers", value: 1 }, "it has 1000 elements: give a key"],
  [{ map: "nowhere", key: 1, value: 1 }, "no such map"],
  [{ map: "table", key: { id: 40, port: 80 }, value: { a: 1 } }, "it has no such key"],
  [{ map: "table", key: 1, value: { a: 1 } }, "its key: expected an object, not 1"],
  [{ map: "own", key: 3, value: 1 }, "each CPU has a value of its own: say which CPU, or all"],
  [{ map: "own", key: 3, value: 1, cpu: 2 }, "CPU 2 is not possible here"],
  [{ map: "numbers", key: 1, value: 1, cpu: 1 }, "it has one value for all CPUs"],
  [
    { map: "locked", key: 3, value: { lock: { val: 1 } } },
    "it would change lock (bpf_spin_lock), which only the kernel may"
  ]
]

/** Memory as it stands, until the scope closes. */
const frozenKernel = (vm: Vm) => Effect.flatMap(vm.freeze, ({ memory }) => GuestKernel.fromMemory(memory))

const check = (kernel: string) =>
  Effect.gen(function*() {
    const { image } = yield* (yield* KernelResolver).resolve(kernel)
    const objects = yield* compileBpf(yield* scratch, "write")
    const initramfs = yield* makeInitramfs({ includes: ["/usr/sbin/bpftool", ...objects], script: SCRIPT })
    const vm = yield* (yield* VmEngine).boot({ kernel: image, initramfs, cpus: 2, timeout: "2 minutes" })
    assert.strictEqual(yield* vm.awaitReady, 0)
    yield* vm.awaitLine(/SEEN .*"a": ?-1\b/)
    yield* Effect.scoped(Effect.gen(function*() {
      const guest = yield* frozenKernel(vm)
      const write = (assignments: ReadonlyArray<MapAssignment>) =>
        Effect.provideService(writeMaps(assignments), GuestKernel, guest)
      const bytes = Buffer.concat(guest.memory.regions.map((region) => region.bytes))
      for (const [assignment, why] of refusals) {
        // one that could be written is with it: neither is
        const error = yield* Effect.flip(write([...writes, assignment]))
        assert.include(error.message, `could not be written; nothing was changed: `)
        assert.include(error.message, why)
      }
      const after = Buffer.concat(guest.memory.regions.map((region) => region.bytes))
      assert.isTrue(bytes.equals(after), "refused writes leave memory as it was")
      const written = yield* write(writes)
      assert.deepStrictEqual(
        written.map(({ after, before, cpu, mapName, path }) => [mapName, path, cpu, before, after]),
        [
          ["write.data", "g_stat.in.a", null, -1, 7],
          ["write.data", "g_stat.in", null, { a: 7, big: 1 }, { a: 7, big: "18446744073709551615" }],
          ["write.data", "g_stat.cpus[2]", null, 0, -300],
          [
            "write.data",
            "g_stat",
            null,
            { in: { a: 7, big: "18446744073709551615" }, cpus: [0, 0, -300, 0], mode: "IDLE", low: 0, high: 0 },
            { in: { a: 7, big: "18446744073709551615" }, cpus: [0, 0, -300, 0], mode: "BUSY", low: 5, high: 0 }
          ],
          ["write.data", "g_stat.high", null, 0, 21],
          ["write.bss", "g_wide.across[0]", null, 0, "1234605616436508552"],
          ["numbers", "", null, 0, 123456789],
          ["table", "big", null, 2, 1717],
          ["own", "", 0, 0, 40],
          ["own", "", 1, 0, 41],
          ["locked", "", null, { lock: { val: 0 }, count: 0 }, { lock: { val: 0 }, count: 9 }]
        ]
      )
    }))
    // The guest goes on, and its program sees it all.
    const line = yield* vm.awaitLine(/SEEN .*"count": ?9\b/)
    const seen = line.replaceAll(/\s/g, "")
    const parts = ["\"a\":7", "\"big\":18446744073709551615", "\"cpu2\":-300", "\"low\":5", "\"high\":21"]
    const others = ["\"across\":1234605616436508552", "\"element\":123456789", "\"hashed\":1717", "\"own\":41"]
    for (const part of [...parts, ...others]) assert.include(seen, part)
    assert.match(seen, /"mode":("BUSY"|5)/)
    // While it runs: nothing else writes this variable.
    const running = yield* GuestKernel.fromMemory(yield* vm.memory)
    const race = (assignments: ReadonlyArray<MapAssignment>) =>
      Effect.provideService(writeMaps(assignments, "racing"), GuestKernel, running)
    const refused = yield* Effect.flip(race([{ map: "table", key: { id: 17, port: 80 }, path: "big", value: 1 }]))
    assert.include(
      refused.message,
      "the guest runs, and may give an element of such a map to another key: freeze it first"
    )
    yield* race([{ path: "g_stat.in.a", value: 8 }])
    yield* vm.awaitLine(/SEEN .*"a": ?8\b/)
  }).pipe(Effect.scoped, Effect.provide(HostLive))

describe("what is written into the maps of a guest", () => {
  for (const kernel of ["debian:6.12-cloud", "debian:6.1-cloud", "debian:7.3-cloud"]) {
    it.effect(`is seen by its programs, frozen before or not: ${kernel}`, () => check(kernel), 240_000)
  }
})
