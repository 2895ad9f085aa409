import { type MadeMapOf, MadeMaps } from "./MadeMaps.ts"

/** `offsetof(struct htab_elem, key)` of the made kernel. */
const KEY = 48

const roundUp8 = (n: number): number => Math.ceil(n / 8) * 8

/** A hash map of a few buckets, whose elements a test chains by hand. */
export class MadeHash extends MadeMaps {
  readonly address: bigint
  readonly buckets: bigint
  private readonly perCpuValues: boolean

  constructor(
    private readonly of: Pick<MadeMapOf, "type" | "keySize" | "valueSize">,
    /** Where per-CPU pointers stand: on kernels before "bpf: Fix kmemleak warning for percpu hashmap" right behind the key. */
    private readonly pointers: "rounded" | "behind" = "rounded",
    count = 4
  ) {
    super()
    this.perCpuValues = of.type.includes("PERCPU")
    this.address = this.map({ ...of, maxEntries: count, bytes: 96 })
    this.buckets = this.object(count * 16)
    this.set64(this.address + 72n, this.buckets)
    this.set32(this.address + 80n, count)
    this.set32(this.address + 84n, this.elementSize)
    for (let bucket = 0; bucket < count; bucket++) this.chain(bucket, [])
  }

  get elementSize(): number {
    return KEY + roundUp8(this.of.keySize) + (this.perCpuValues ? 8 : roundUp8(this.of.valueSize))
  }

  /** Where an element keeps its value, or the pointer to it. */
  valueAt(element: bigint): bigint {
    return element + BigInt(KEY + (this.pointers === "behind" ? this.of.keySize : roundUp8(this.of.keySize)))
  }

  /** An element in no chain yet; a per-CPU one is given a value for each CPU. */
  element(key: Uint8Array, ...values: ReadonlyArray<Uint8Array>): bigint {
    const element = this.object(this.elementSize)
    this.put(element + BigInt(KEY), key)
    if (!this.perCpuValues) this.put(this.valueAt(element), values[0])
    else {
      const { copies, pointer } = this.perCpu(roundUp8(this.of.valueSize))
      copies.forEach((copy, cpu) => this.put(copy, values[cpu]))
      const word = new BigUint64Array([pointer])
      this.put(this.valueAt(element), new Uint8Array(word.buffer))
    }
    return element
  }

  /** Elements as a bucket's chain; it ends with the odd marker that the bucket's number makes. */
  chain(bucket: number, elements: ReadonlyArray<bigint>): void {
    const end = BigInt(bucket << 1 | 1)
    this.set64(this.buckets + BigInt(bucket * 16), elements[0] ?? end)
    elements.forEach((element, index) => this.set64(element, elements[index + 1] ?? end))
  }
}

export const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
export const u64 = (value: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)
