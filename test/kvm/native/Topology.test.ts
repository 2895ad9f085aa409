import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { ramLayout } from "../../../src/kvm/native/abi/KvmVm.ts"
import { acpiTables, RSDP } from "../../../src/kvm/native/boot/Acpi.ts"
import { nodeRanges } from "../../../src/kvm/native/boot/Srat.ts"
import { type CpuidEntry, cpuidOf, processorOf } from "../../../src/kvm/native/cpu/Cpuid.ts"
import { resolveTopology, type TopologySpec } from "../../../src/kvm/spec/Topology.ts"
import { kernelImage } from "../../support/kernels.ts"
import { script } from "../topologyGuest.ts"
import { bundle, runInside, shared } from "./support/harness.ts"

const SECONDS = 540
const GIB = 2 ** 30

const machine = (topology: TopologySpec) => Either.getOrThrow(resolveTopology({ topology }))

describe("ACPI tables", () => {
  /** The tables that the root pointer leads to, by signature. */
  const tables = (topology: TopologySpec) => {
    const made = machine(topology)
    const bytes = acpiTables(made, ramLayout(made.memoryMib * 2 ** 20))
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const sum = (at: number, length: number) =>
      bytes.subarray(at, at + length).reduce((total, byte) => total + byte, 0) & 0xff
    const found = new Map<string, Uint8Array>()
    const visit = (address: number): Uint8Array => {
      const at = address - RSDP
      const length = view.getUint32(at + 4, true)
      assert.isAtMost(at + length, bytes.length)
      assert.strictEqual(sum(at, length), 0)
      const table = bytes.subarray(at, at + length)
      found.set(Buffer.from(table.subarray(0, 4)).toString("latin1"), table)
      return table
    }
    assert.strictEqual(Buffer.from(bytes.subarray(0, 8)).toString("latin1"), "RSD PTR ")
    assert.deepStrictEqual([sum(0, 20), sum(0, 36)], [0, 0])
    const xsdt = visit(Number(view.getBigUint64(24, true)))
    for (let at = 36; at < xsdt.length; at += 8) {
      visit(Number(new DataView(xsdt.buffer, xsdt.byteOffset).getBigUint64(at, true)))
    }
    const fadt = found.get("FACP") ?? assert.fail("no FADT")
    visit(Number(new DataView(fadt.buffer, fadt.byteOffset).getBigUint64(140, true)))
    return { bytes, found }
  }

  it("are all found from the root, with their sums right", () => {
    const { found } = tables({ nodes: 2, llcs: 4, cores: 4, threads: 2 })
    assert.deepStrictEqual([...found.keys()].sort(), ["APIC", "DSDT", "FACP", "HMAT", "SLIT", "SRAT", "XSDT"])
    assert.strictEqual(found.get("FACP")?.length, 276)
  })

  it("fit below 1 MiB for the largest machine", () => {
    const { bytes } = tables({
      nodes: 63,
      llcs: 63,
      cores: 2,
      threads: 2,
      memory: Array.from({ length: 64 }, () => ({
        mib: 64,
        cache: { bytes: 1, lineBytes: 1, associativity: "none", writePolicy: "none" }
      }))
    })
    assert.isAtMost(RSDP + bytes.length, 2 ** 20)
  })

  it("place the nodes' memory one behind the other, around the hole below 4 GiB", () => {
    const mib = [1024, 3072, 4, 1024]
    const topology = machine({ nodes: 1, llcs: 1, cores: 1, threads: 1, memory: mib.map((mib) => ({ mib })) })
    assert.deepStrictEqual(nodeRanges(topology, ramLayout(topology.memoryMib * 2 ** 20)), [
      { node: 0, start: 0, length: GIB },
      { node: 1, start: GIB, length: 2 * GIB },
      { node: 1, start: 4 * GIB, length: GIB },
      { node: 2, start: 5 * GIB, length: 2 ** 22 },
      { node: 3, start: 5 * GIB + 2 ** 22, length: GIB }
    ])
  })
})

describe("CPUID", () => {
  const entry = (leaf: number, registers: Partial<CpuidEntry> = {}): CpuidEntry => ({
    function: leaf,
    index: 0,
    flags: 0,
    eax: 0,
    ebx: 0,
    ecx: 0,
    edx: 0,
    ...registers
  })
  const named = (vendor: string, highest: number) => {
    const words = Buffer.from(vendor, "latin1")
    return entry(0, {
      eax: highest,
      ebx: words.readUInt32LE(0),
      edx: words.readUInt32LE(4),
      ecx: words.readUInt32LE(8)
    })
  }
  const intel = [named("GenuineIntel", 0x1f), entry(1, { eax: 0x50654, ebx: 0xff10_0800 }), entry(4, { eax: 0x121 })]
  const amd = [
    named("AuthenticAMD", 7),
    entry(1, { eax: 0x800f12 }),
    entry(0x80000000, { eax: 0x8000000a }),
    entry(0x80000001),
    entry(0x80000006, { eax: 1, ebx: 2, ecx: 3, edx: 4 }),
    entry(0x80000008, { eax: 0x3030, ecx: 0x1_4005 })
  ]
  /** Node 1's second LLC of three, its third core of three, its second thread: 2 * (2 * 3) * 3 … */
  const topology = machine({ nodes: 2, llcs: 6, cores: 3, threads: 2 })
  const CPU = 18 + 6 + 5
  const ID = 0b1_01_10_1
  const leaves = (supported: ReadonlyArray<CpuidEntry>) => {
    const found = cpuidOf(supported, topology, CPU, true)
    return (leaf: number, index = 0) => {
      const fitting = found.filter((each) => each.function === leaf && each.index === index)
      assert.strictEqual(fitting.length, 1, `leaf 0x${leaf.toString(16)}, ${index}`)
      const { eax, ebx, ecx, edx } = fitting[0]
      return [eax, ebx, ecx, edx].map((word) => word >>> 0)
    }
  }
  /** Sharers less one, type, level; size by ways, lines of 64 bytes and sets. */
  const cache = (
    [eax, ebx, ecx]: ReadonlyArray<number>
  ) => [eax & 31, (eax >>> 5) & 7, (eax >>> 14) & 0xfff, ((ebx >>> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1) / 1024]
  const caches = [[1, 1, 1, 32], [2, 1, 1, 32], [3, 2, 1, 1024], [3, 3, 7, 16384]]

  it("of an Intel CPU says where it is, in leaves 1, 4 and 0xb", () => {
    const leaf = leaves(intel)
    assert.strictEqual(leaf(1)[1], (ID * 2 ** 24) + (32 << 16) + 0x800)
    assert.strictEqual(leaf(1)[3] & (1 << 28), 1 << 28)
    assert.deepStrictEqual([0, 1, 2, 3].map((index) => cache(leaf(4, index))), caches)
    assert.deepStrictEqual([0, 1, 2, 3].map((index) => leaf(4, index)[0] >>> 26), [15, 15, 15, 15])
    assert.deepStrictEqual(leaf(4, 4), [0, 0, 0, 0])
    assert.deepStrictEqual(leaf(0xb, 0), [1, 2, 0x100, ID])
    assert.deepStrictEqual(leaf(0xb, 1), [5, 18, 0x201, ID])
    assert.deepStrictEqual(leaf(0xb, 2), [0, 0, 2, ID])
  })

  it("of an AMD CPU says it in leaves 1, 0xb and from 0x80000006 on, where its host has none", () => {
    const leaf = leaves(amd)
    assert.strictEqual(leaf(0)[0], 0xb)
    assert.strictEqual(leaf(1)[1], (ID * 2 ** 24) + (32 << 16))
    assert.deepStrictEqual(leaf(0xb, 1), [5, 18, 0x201, ID])
    assert.strictEqual(leaf(0x80000000)[0], 0x8000001e)
    assert.strictEqual(leaf(0x80000001)[2], 1 << 22)
    // 1 MiB and 16 MiB, each of 16 ways
    assert.deepStrictEqual(leaf(0x80000006), [1, 2, (1024 << 16) + 0x8140, (32 << 18) + 0x8140])
    assert.deepStrictEqual(leaf(0x80000008), [0x3030, 0, 0x1_5011, 0])
    assert.deepStrictEqual([0, 1, 2, 3].map((index) => cache(leaf(0x8000001d, index))), caches)
    assert.deepStrictEqual(leaf(0x8000001d, 4), [0, 0, 0, 0])
    // its core is the package's sixth of nine, its LLC the machine's fifth
    assert.deepStrictEqual(leaf(0x8000001e), [ID, 0x105, 4, 0])
  })

  it("names the processor as Linux does", () => {
    assert.deepStrictEqual(processorOf(intel), { vendor: "GenuineIntel", family: 6, model: 85 })
    assert.deepStrictEqual(processorOf(amd), { vendor: "AuthenticAMD", family: 0x17, model: 1 })
  })
})

it.scopedLive(
  "guests on real KVM see the machine that was asked for",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const initramfs = join(directory, "guest")
      writeFileSync(initramfs, yield* makeInitramfs({ script }))
      const kernels = yield* Effect.forEach(["6.12", "6.1"] as const, (series) =>
        Effect.gen(function*() {
          const image = yield* kernelImage(series)
          const vmlinux = join(directory, series)
          writeFileSync(vmlinux, yield* vmlinuxOf(readFileSync(image), image))
          return vmlinux
        }))
      const { lines, status } = yield* runInside(yield* bundle("topology", directory), [initramfs, ...kernels], SECONDS)
      assert.strictEqual(status, 0, lines.slice(-60).join("\n"))
      assert.isTrue(lines.some((line) => line.endsWith("ok: all machines")))
    }),
  (SECONDS + 30) * 1000
)
