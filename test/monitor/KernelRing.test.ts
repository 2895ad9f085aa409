import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { readKernelRing } from "../../src/monitor/KernelRing.ts"
import { compileC } from "../btf/compileC.ts"
import { MadeKernel } from "../memory/MadeKernel.ts"

/** Cut down to what is read, with names of kernel/printk/printk_ringbuffer.h. */
const { btf } = compileC(`
typedef unsigned int u32; typedef unsigned short u16; typedef unsigned long u64;
struct xarray { u32 pad, xa_flags; void *xa_head; };
struct xa_node { unsigned char shift, offset; void *parent; void *slots[64]; };
struct idr { struct xarray idr_rt; u32 idr_base, idr_next; };
struct cpumask { u64 bits[1]; };
struct prb_data_blk_lpos { u64 begin, next; };
struct prb_desc { u64 state_var; struct prb_data_blk_lpos text_blk_lpos; };
struct printk_info { u64 ts_nsec; u16 text_len; };
struct prb_desc_ring { u32 count_bits; struct prb_desc *descs; struct printk_info *infos; u64 head_id, tail_id; };
struct prb_data_ring { u32 size_bits; char *data; };
struct printk_ringbuffer { struct prb_desc_ring desc_ring; struct prb_data_ring text_data_ring; };
struct all { struct idr idr; struct xa_node node; struct cpumask mask; struct printk_ringbuffer ring; struct printk_info info; struct prb_desc desc; } all;
`)
const [RING, DESCRIPTOR, INFO] = [56, 24, 16]
const [COMMITTED, FINALIZED] = [1n << 62n, 2n << 62n]

/** A ring of `count` records whose descriptors, facts and texts are given each. */
class MadeRing {
  readonly made: MadeKernel
  readonly #at: (name: string) => number
  constructor(readonly countBits: number, readonly sizeBits: number, head: bigint, tail: bigint) {
    const count = 2 ** countBits
    const objects = { prb: 8, ring: RING, descs: count * DESCRIPTOR, infos: count * INFO, data: 2 ** sizeBits * 2 }
    this.made = new MadeKernel({ btf, encoding: "relative to the base", objects })
    this.#at = (name) => this.made.physical(name)
    const { made } = this
    const address = (name: string) => made.symbols.get(name)!
    made.set64(this.#at("prb"), address("ring"))
    const ring = [BigInt(countBits), address("descs"), address("infos"), head, tail, BigInt(sizeBits), address("data")]
    for (const [index, word] of ring.entries()) made.set64(this.#at("ring") + index * 8, word)
  }

  /** A record whose text lies at `begin` of the data. */
  record(id: bigint, text: string, begin: number, state = FINALIZED, length = text.length): void {
    const slot = Number(id) & (2 ** this.countBits - 1)
    const descriptor = this.#at("descs") + slot * DESCRIPTOR
    this.made.set64(descriptor, state | id)
    this.made.set64(descriptor + 8, BigInt(begin))
    this.made.set64(descriptor + 16, BigInt(begin + 8 + length))
    this.made.set64(this.#at("infos") + slot * INFO, id * 1_000_000n)
    this.made.set64(this.#at("infos") + slot * INFO + 8, BigInt(length))
    const data = this.#at("data") + begin % 2 ** this.sizeBits
    this.made.set64(data, id)
    this.made.bytes.set(Buffer.from(text), data + 8 - MadeKernel.base)
  }

  get kernel(): typeof GuestKernel.Service {
    return Effect.runSync(GuestKernel.fromMemory(this.made.memory()))
  }
}

describe("readKernelRing", () => {
  it("gives the lines oldest first, and goes on where it ended, up to a record that is not finished", () => {
    const ring = new MadeRing(2, 8, 5n, 3n)
    ring.record(3n, "three", 0)
    ring.record(4n, "four\nmore", 32)
    ring.record(5n, "five", 64, COMMITTED)
    const all = readKernelRing(ring.kernel)
    assert.deepStrictEqual(all, {
      lines: [
        { atMicros: 3000, text: "three" },
        { atMicros: 4000, text: "four" },
        { atMicros: 4000, text: "more" },
        { atMicros: 5000, text: "five" }
      ],
      next: 6n,
      problem: null
    })
    const finished = readKernelRing(ring.kernel, 4n)
    assert.deepStrictEqual([finished.lines.map(({ text }) => text), finished.next], [["four", "more"], 5n])
    ring.record(5n, "five!", 64)
    assert.deepStrictEqual(readKernelRing(ring.kernel, finished.next), {
      lines: [{ atMicros: 5000, text: "five!" }],
      next: 6n,
      problem: null
    })
    assert.deepStrictEqual(readKernelRing(ring.kernel, 6n), { lines: [], next: 6n, problem: null })
  })

  it("reads 4 MiB of text at most, however many records have the same", () => {
    const ring = new MadeRing(10, 16, 1023n, 0n)
    // texts of 30,000 bytes that lie over one another, each behind an id of its own
    for (let id = 0n; id < 1024n; id++) ring.record(id, "", Number(id) * 8, FINALIZED, 30_000)
    const { lines, next, problem } = readKernelRing(ring.kernel)
    assert.deepStrictEqual([lines[0]?.atMicros, lines.at(-1)?.atMicros, next], [884_000, 1_023_000, 1024n])
    assert.deepStrictEqual(problem, {
      kind: "truncated",
      text: "the kernel's log: its 884 oldest records are left out"
    })
    ring.made.set64(ring.made.physical("ring"), 26n)
    assert.strictEqual(readKernelRing(ring.kernel).problem?.kind, "corrupted")
  })
})
