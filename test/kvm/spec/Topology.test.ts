import { assert, beforeEach, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { findExactQemu } from "../../../src/harness/engine/FindQemu.ts"
import { freezeAndAttach } from "../../../src/Ktstr.ts"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { ramLayout } from "../../../src/kvm/native/abi/KvmVm.ts"
import { madt } from "../../../src/kvm/native/boot/Acpi.ts"
import { hmat } from "../../../src/kvm/native/boot/Hmat.ts"
import { slit, srat } from "../../../src/kvm/native/boot/Srat.ts"
import * as Qemu from "../../../src/kvm/qemu/Qemu.ts"
import { qemuTopology } from "../../../src/kvm/qemu/QemuTopology.ts"
import {
  apicIds,
  apicShifts,
  memoryAccess,
  parseTopology,
  resolveTopology,
  showsLlcs,
  type TopologySpec
} from "../../../src/kvm/spec/Topology.ts"
import { VmEngine } from "../../../src/kvm/spec/VmEngine.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { kernelImage } from "../../support/kernels.ts"
import { engine } from "../support.ts"
import { assertSees, script, tableIn, waysIn, waysOfThree } from "../topologyGuest.ts"

const machine = (topology: TopologySpec, memoryMib?: number) =>
  Either.getOrThrow(resolveTopology({ topology, memoryMib }))

const whyNot = (spec: Parameters<typeof resolveTopology>[0]): string =>
  Either.match(resolveTopology(spec), {
    onLeft: ({ message }) => message,
    onRight: () => "it is a machine"
  })

const flat = { nodes: 1, llcs: 1, cores: 1, threads: 1 }

describe("a machine", () => {
  it("of N CPUs is one node with one LLC", () => {
    const topology = Either.getOrThrow(resolveTopology({ cpus: 3, memoryMib: 193 }))
    assert.deepStrictEqual(topology, machine({ nodes: 1, llcs: 1, cores: 3, threads: 1 }, 193))
    assert.deepStrictEqual(topology.nodes, [
      { cpus: [0, 1, 2], mib: 193, latencyNs: 100, bandwidthMibs: 51_200, cache: undefined, nearest: 0 }
    ])
    assert.strictEqual(Either.getOrThrow(resolveTopology({})).memoryMib, 512)
  })

  it("shares memory out to its nodes in pieces that a kernel takes", () => {
    const topology = machine({ nodes: 3, llcs: 3, cores: 2, threads: 1 }, 512)
    assert.deepStrictEqual(topology.nodes.map(({ mib }) => mib), [168, 168, 176])
    assert.deepStrictEqual(topology.nodes.map(({ cpus }) => cpus), [[0, 1], [2, 3], [4, 5]])
    assert.deepStrictEqual(topology.distances, [[10, 20, 20], [20, 10, 20], [20, 20, 10]])
  })

  it("may have nodes of memory alone, behind those with CPUs", () => {
    const topology = machine({
      ...flat,
      nodes: 2,
      llcs: 2,
      memory: [{ mib: 128 }, { mib: 64 }, { mib: 256, latencyNs: 300 }],
      distances: [[10, 20, 40], [20, 10, 30], [40, 30, 10]]
    })
    assert.strictEqual(topology.memoryMib, 448)
    assert.deepStrictEqual(topology.nodes.map(({ nearest }) => nearest), [0, 1, 1])
    const { bandwidthMibs, latencyNs } = memoryAccess(topology)
    assert.deepStrictEqual(latencyNs, [[100, 200, 400], [200, 100, 300]])
    assert.deepStrictEqual(bandwidthMibs, [[51_200, 25_600, 15_360], [25_600, 51_200, 20_480]])
  })

  it("has bandwidths that HMAT can say", () => {
    const memory = [{ mib: 64, bandwidthMibs: 400_001 }, { mib: 64, bandwidthMibs: 3 }]
    const { bandwidthMibs, unit } = memoryAccess(machine({ ...flat, nodes: 2, llcs: 2, memory }))
    assert.strictEqual(unit, 8)
    assert.deepStrictEqual(bandwidthMibs, [[400_000, 8], [200_000, 8]])
  })

  it("that cannot be is refused with what to do", () => {
    const two = { ...flat, nodes: 2, llcs: 2 }
    const cases: ReadonlyArray<readonly [Parameters<typeof resolveTopology>[0], string]> = [
      [{ cpus: 0 }, "a VM cannot have 0 CPUs and 512 MiB of memory; give whole numbers, 1 to 254 CPUs"],
      [{ cpus: 1.5 }, "a VM cannot have 1.5 CPUs and 512 MiB of memory; give whole numbers, 1 to 254 CPUs"],
      [{ cpus: 255 }, "a VM cannot have 255 CPUs and 512 MiB of memory; give whole numbers, 1 to 254 CPUs"],
      [{ memoryMib: 0.5 }, "a VM cannot have 1 CPUs and 0.5 MiB of memory; give whole numbers, 1 to 254 CPUs"],
      [
        { topology: { ...flat, cores: 0 } },
        "a VM cannot have the topology 1,1,0,1; give whole numbers of NUMA nodes, LLCs, cores per LLC and threads per core, 1 or more"
      ],
      [
        { topology: { ...flat, nodes: 2, llcs: 3 } },
        "3 LLCs cannot be shared out evenly to 2 NUMA nodes; give as many LLCs as nodes, or a multiple: topology 2,4,1,1"
      ],
      [
        { topology: two, cpus: 4 },
        "4 CPUs and a topology of 2,2,1,1, which has 2, contradict each other; give the topology alone"
      ],
      [
        { topology: { nodes: 1, llcs: 17, cores: 5, threads: 2 } },
        "the 170 CPUs of topology 1,17,5,2 do not fit into APIC ids of 8 bits, which take each count rounded up to a power of two; give fewer CPUs, or counts that are powers of two"
      ],
      [{ topology: { nodes: 1e9, llcs: 1e9, cores: 1e9, threads: 1e9 } }, "do not fit into APIC ids"],
      [
        { topology: { ...two, memory: [{ mib: 64 }] } },
        "memory is given for 1 nodes, but 2 have CPUs; give the memory of 2 to 64 nodes"
      ],
      [
        { topology: { ...two, memory: [{ mib: 64 }, { mib: 66 }] } },
        "node 1: a node's memory cannot be 66 MiB; give each node a multiple of 4 MiB"
      ],
      [{ topology: { ...flat, memory: [{ mib: -1 }] } }, "node 0: a node's memory cannot be -1 MiB; give whole MiB"],
      [
        { topology: two, memoryMib: 250 },
        "node 1: a node's memory cannot be 126 MiB; give each node a multiple of 4 MiB"
      ],
      [
        { topology: { ...two, memory: [{ mib: 64 }, { mib: 64 }] }, memoryMib: 512 },
        "512 MiB of memory and nodes with 128 MiB contradict each other; give the nodes' memory alone"
      ],
      [
        { topology: { ...flat, memory: [{ mib: 64, latencyNs: 0 }] } },
        "node 0: a latency of 0 ns; give a whole number, 1 to 65534"
      ],
      [
        { topology: { ...flat, memory: [{ mib: 64, bandwidthMibs: 2 ** 32 }] } },
        "node 0: a bandwidth of 4294967296 MiB a second; give a whole number, 1 to 4294967295"
      ],
      [
        {
          topology: {
            ...flat,
            memory: [{
              mib: 64,
              cache: { bytes: 1024, lineBytes: 65536, associativity: "none", writePolicy: "none" }
            }]
          }
        },
        "node 0: a cache of 1024 bytes with lines of 65536; give whole numbers, and lines of at most 65535 bytes"
      ],
      [
        { topology: { ...two, distances: [[10, 20]] } },
        "the distances are not a table of 2 by 2; give each node a row with every node"
      ],
      [{ topology: { ...two, distances: [[11, 20], [20, 10]] } }, "node 0 is 11 from itself; give 10"],
      [
        { topology: { ...two, distances: [[10, 10], [10, 10]] } },
        "node 0 is 10 from node 1; give whole numbers, 11 to 254"
      ],
      [
        { topology: { ...two, distances: [[10, 255], [255, 10]] } },
        "node 0 is 255 from node 1; give whole numbers, 11 to 254"
      ],
      [
        { topology: { ...two, distances: [[10, 20], [21, 10]] } },
        "node 0 is 20 from node 1, and 21 the other way; give the same distance both ways"
      ]
    ]
    for (const [spec, message] of cases) {
      if (message.includes(";")) assert.strictEqual(whyNot(spec), message)
      else assert.include(whyNot(spec), message)
    }
  })

  it("is read from NODES,LLCS,CORES,THREADS", () => {
    assert.deepStrictEqual(Either.getOrThrow(parseTopology("2,4,8,2")), { nodes: 2, llcs: 4, cores: 8, threads: 2 })
    assert.match(Either.getOrThrow(Either.flip(parseTopology("4,2,1,1"))).message, /^2 LLCs cannot be shared out/)
    for (const text of ["", "1", "1,1,1", "1,1,1,1,1", "1,1,1,x", "1,1,1,-1", "1, 1,1,1", "1,1,1,99999"]) {
      const error = Either.getOrThrow(Either.flip(parseTopology(text)))
      assert.strictEqual(
        error.message,
        `not a topology: ${
          JSON.stringify(text)
        }; give NODES,LLCS,CORES,THREADS, as in 2,4,8,2: LLCs in all, cores per LLC, threads per core`
      )
    }
  })

  it("has LLCs that Linux finds on the processor, or is refused there", () => {
    const zen = { vendor: "AuthenticAMD", family: 0x17, model: 1 }
    const shows = (text: string, processor = zen) =>
      showsLlcs(machine(Either.getOrThrow(parseTopology(text))), processor)
    assert.deepStrictEqual(
      ["1,1,4,1", "1,2,4,2", "2,2,5,1", "1,2,2,1", "2,2,2,2", "1,1,16,1"].map((text) => shows(text)),
      [true, true, true, false, false, false]
    )
    assert.isTrue(shows("1,2,2,1", { ...zen, model: 0x31 }))
    assert.isTrue(shows("1,2,2,1", { ...zen, family: 0x19 }))
    assert.isFalse(shows("1,2,2,1", { vendor: "HygonGenuine", family: 0x18, model: 0 }))
    assert.isTrue(shows("1,2,2,1", { vendor: "GenuineIntel", family: 6, model: 85 }))
  })
})

const counts = FastCheck.tuple(...[3, 4, 5, 3].map((max) => FastCheck.integer({ min: 1, max })))

it.prop(
  "APIC ids count up, and give the CPU's place back by shifting",
  [counts],
  ([[nodes, perNode, cores, threads]]) => {
    const made = resolveTopology({ topology: { nodes, llcs: nodes * perNode, cores, threads } })
    if (Either.isLeft(made)) {
      assert.match(made.left.message, /APIC ids/)
      return
    }
    const ids = apicIds(made.right)
    assert.strictEqual(ids.length, nodes * perNode * cores * threads)
    const shifts = apicShifts({ nodes, llcs: nodes * perNode, cores, threads })
    ids.forEach((id, cpu) => {
      assert.isTrue(cpu === 0 ? id === 0 : id > ids[cpu - 1] && id < 255)
      const core = Math.floor(cpu / threads)
      const llc = Math.floor(core / cores)
      assert.deepStrictEqual(
        [id & ((1 << shifts.core) - 1), (id & ((1 << shifts.llc) - 1)) >> shifts.core],
        [cpu % threads, core % cores]
      )
      assert.deepStrictEqual(
        [(id & ((1 << shifts.package) - 1)) >> shifts.llc, id >> shifts.package],
        [llc % perNode, Math.floor(llc / perNode)]
      )
      assert.isTrue(made.right.nodes[id >> shifts.package].cpus.includes(cpu))
    })
  }
)

it("QEMU's CPU changes its vendor only where who shares what is to be seen", () => {
  const cpu = (text: string) => {
    const parameters = qemuTopology(machine(Either.getOrThrow(parseTopology(text))), "max,-la57", "emulation", 7)
    return parameters[parameters.indexOf("-cpu") + 1]
  }
  assert.deepStrictEqual(
    ["1,1,4,1", "2,2,4,1", "1,2,1,1", "1,1,1,2"].map(cpu),
    [
      "max,-la57",
      "max,-la57",
      "max,-la57,vendor=GenuineIntel,level=0x20",
      "max,-la57,vendor=GenuineIntel"
    ]
  )
})

/** Machines, some with everything that can be said of one. */
const machines: ReadonlyArray<readonly [string, "6.1" | "6.12", TopologySpec]> = [
  ["4 cores", "6.12", { nodes: 1, llcs: 1, cores: 4, threads: 1 }],
  ["2 LLCs of 2 cores of 2 threads", "6.1", { nodes: 1, llcs: 2, cores: 2, threads: 2 }],
  ["2 nodes of 2 LLCs of 2 cores", "6.12", {
    nodes: 2,
    llcs: 4,
    cores: 2,
    threads: 1,
    memory: [{ mib: 128 }, { mib: 384 }]
  }],
  ["2 nodes of a core of 2 threads, and a third of memory", "6.12", {
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
        cache: { bytes: 2 ** 26, lineBytes: 64, associativity: "direct", writePolicy: "write-back" }
      }
    ],
    distances: [[10, 21, 40], [21, 10, 30], [40, 30, 10]]
  }],
  ["3 nodes of a core, emulated as AMD's", "6.12", { nodes: 3, llcs: 3, cores: 1, threads: 1 }]
]

const bodyOf = (table: Uint8Array) => Buffer.from(table.subarray(36))

/** The structures of a table's body that start with a type and a length, from byte `start` on. */
const structures = (body: Uint8Array, start: number): ReadonlyArray<Uint8Array> => {
  const found: Array<Uint8Array> = []
  for (let at = start; at < body.length; at += body[at + 1]) {
    assert.isAbove(body[at + 1], 1)
    found.push(body.subarray(at, at + body[at + 1]))
  }
  return found
}

const localApics = (madt: Uint8Array) => structures(madt, 8).filter(([type]) => type === 0)

/** What an SRAT says of CPUs, and of memory; the hole below 1 MiB, which QEMU leaves out, is filled. */
const affinities = (srat: Uint8Array) => {
  const memory: Array<{ node: number; start: number; end: number }> = []
  for (const each of structures(srat, 12).filter(([type]) => type === 1)) {
    const view = new DataView(each.buffer, each.byteOffset, each.byteLength)
    if ((view.getUint32(28, true) & 1) === 0) continue
    const node = view.getUint32(2, true)
    const start = Number(view.getBigUint64(8, true))
    const end = start + Number(view.getBigUint64(16, true))
    const last = memory.at(-1)
    if (last?.node === node && start === 2 ** 20) last.end = end
    else memory.push({ node, start, end })
  }
  return { cpus: structures(srat, 12).filter(([type]) => type === 0), memory }
}

/** A guest that has said what it sees, and its lines. */
const seen = (series: "6.1" | "6.12", topology: TopologySpec) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage(series)
    const initramfs = yield* makeInitramfs({ script })
    const memoryMib = topology.memory === undefined ? 384 : undefined
    const vm = yield* (yield* VmEngine).boot({ kernel, initramfs, topology, memoryMib, timeout: "100 seconds" })
    assert.strictEqual(yield* vm.awaitReady, 0)
    return { vm, lines: yield* vm.consoleTail }
  })

layer(engine, { excludeTestServices: true })("a guest of QEMU", (it) => {
  for (const [name, series, topology] of machines) {
    it.scoped(`sees ${name} (${series})`, () =>
      Effect.gen(function*() {
        const { lines, vm } = yield* seen(series, topology)
        assertSees(lines, vm.topology, "thread")
        if (topology.distances !== undefined) {
          assert.deepStrictEqual(waysIn(lines), waysOfThree)
        }
        // the native engine's tables for it say what QEMU's say
        const ram = ramLayout(vm.topology.memoryMib * 2 ** 20)
        assert.deepStrictEqual(tableIn(lines, "SLIT"), bodyOf(slit(vm.topology)))
        assert.deepStrictEqual(affinities(tableIn(lines, "SRAT")), affinities(bodyOf(srat(vm.topology, ram))))
        assert.deepStrictEqual(localApics(tableIn(lines, "APIC")), localApics(bodyOf(madt(vm.topology))))
        // QEMU's unit is the largest that fits; with odd numbers it is ours
        if (topology.distances !== undefined) {
          assert.deepStrictEqual(tableIn(lines, "HMAT"), bodyOf(hmat(vm.topology)))
        }
        // the nodes' memory is where the guest has it
        const { kernel: attached } = yield* freezeAndAttach(vm, "the guest")
        assert.strictEqual(attached.memory.size, vm.topology.memoryMib * 2 ** 20)
      }), 120_000)
  }
})

describe("a guest of a QEMU that emulates exactly", () => {
  beforeEach(needsExactQemu)
  for (const [name, series, topology] of machines.filter(([, , { llcs, nodes }]) => llcs > nodes)) {
    it.live(`sees ${name} (${series})`, () =>
      Effect.gen(function*() {
        const { program } = yield* findExactQemu
        const exact = Qemu.layerWith({
          program,
          emulation: { seed: 1, shift: 1, sliceMicros: 50 },
          accelerate: "emulation"
        })
        const { lines, vm } = yield* Effect.provide(seen(series, topology), exact)
        assertSees(lines, vm.topology, "core")
      }).pipe(Effect.scoped, Effect.provide(HostLive)), 200_000)
  }
})
