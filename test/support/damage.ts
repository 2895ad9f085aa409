import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import type { KernelSpace } from "../../src/memory/KernelSpace.ts"

/** A number from 0 on and below `below`. */
export type Dice = (below: number) => number

/** A small generator of pseudo-random numbers (mulberry32), so that a seed repeats what was done. */
export const random = (seed: number): Dice => (below) => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * below)
}

/** Bytes that were read at once: `len` bytes at physical address `pa`. */
export interface Look {
  readonly pa: number
  readonly len: number
}

/** Memory that remembers what is read of it while a watch is on. */
export class WatchedMemory extends GuestMemory {
  private seen: Map<number, number> | undefined

  /** What `read` looks at, each place once and as long as the longest look at it. */
  watch(read: () => void): ReadonlyArray<Look> {
    const seen = this.seen = new Map<number, number>()
    read()
    this.seen = undefined
    return Array.from(seen, ([pa, len]) => ({ pa, len }))
  }

  private note(pa: number, len: number): void {
    if (this.seen !== undefined && len > (this.seen.get(pa) ?? 1)) this.seen.set(pa, len)
  }

  override seek(pa: number, len: number): boolean {
    const there = super.seek(pa, len)
    if (there) this.note(pa, len)
    return there
  }

  override copy(pa: number, out: Uint8Array): boolean {
    const there = super.copy(pa, out)
    if (there) this.note(pa, out.length)
    return there
  }
}

/** Numbers that lie at an edge, in any width: none, few, all, the most that is positive, one more; and errors as pointers. */
const EDGES = [0n, 1n, 2n, 3n, 0x3fn, 0x40n, 0xfffn, 0x1000n, -1n, -2n, -12n, -4096n]
const HALVES = [7n, 8n, 15n, 16n, 20n, 24n, 30n, 31n, 32n, 40n, 47n, 52n, 63n]
/** What a freed object is left as: zeros, `POISON_FREE` and `POISON_INUSE` (include/linux/poison.h, v6.12), ones. */
const FREED = [0, 0x6b, 0x5a, 0xff]
/** Addresses that lead out: user space's first and last, in the hole between the halves, the kernel's last. */
const NOWHERE = [0x1000n, 0x7fff_ffff_f000n, 0x8000_0000_0000n, 0xdead_beef_0000_0000n, 0xffff_ffff_ffff_fff8n]
/** The most bytes of an object that are overwritten at once. */
const MOST = 4096

/**
 * Damages memory as hostile or torn kernels leave it: counts that are huge, off by one or gone; pointers that lead to
 * themselves, to one another, or nowhere; objects that are freed or are another one.
 */
export class Damage {
  private readonly undone: Array<{ readonly at: number; readonly before: Uint8Array }> = []
  private readonly bytes: Uint8Array
  private readonly view: DataView

  /** `space` is that of a kernel whose memory is one region that starts at 0. */
  constructor(private readonly space: KernelSpace) {
    this.bytes = space.memory.regions[0].bytes
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength)
  }

  /** Do one damage to one of these looks; says what it did. */
  do(looks: ReadonlyArray<Look>, pick: Dice): string {
    const look = looks[pick(looks.length)]
    const other = looks[pick(looks.length)]
    if (pick(16) === 0) return this.replace(look, other, pick)
    const width = [8, 8, 8, 4, 4, 2, 1][pick(7)]
    if (look.len < width) return this.replace(look, other, pick)
    const at = look.pa + pick(Math.floor(look.len / width)) * width
    const before = this.number(at, width)
    const after = BigInt.asUintN(width * 8, this.changed(before, look, other, at, width, pick))
    this.keep(at, width)
    for (let i = 0; i < width; i++) this.bytes[at + i] = Number(after >> BigInt(i * 8) & 0xffn)
    return `${width} bytes at 0x${at.toString(16)}: 0x${before.toString(16)} became 0x${after.toString(16)}`
  }

  private changed(before: bigint, look: Look, other: Look, at: number, width: number, pick: Dice): bigint {
    if (width < 8 || pick(2) === 0) {
      switch (pick(4)) {
        case 0:
          return before ^ 1n << BigInt(pick(width * 8))
        case 1:
          return EDGES[pick(EDGES.length)]
        case 2:
          return (1n << HALVES[pick(HALVES.length)]) - BigInt(pick(2))
        default:
          return before + BigInt(pick(2) === 0 ? 1 - pick(2) * 2 : pick(512) * 8 - 2048)
      }
    }
    switch (pick(5)) {
      case 0:
        return this.addressOf(at)
      case 1:
        return this.addressOf(look.pa)
      case 2:
        return this.addressOf(other.pa)
      case 3:
        return this.number(other.pa + pick(Math.floor(Math.max(other.len, 8) / 8)) * 8, 8)
      default:
        return NOWHERE[pick(NOWHERE.length)]
    }
  }

  /** Make of an object a freed one, or a copy of another. */
  private replace(look: Look, other: Look, pick: Dice): string {
    const len = Math.min(look.len, MOST)
    const how = pick(FREED.length + 1)
    this.keep(look.pa, len)
    if (how < FREED.length) this.bytes.fill(FREED[how], look.pa, look.pa + len)
    else this.bytes.copyWithin(look.pa, other.pa, other.pa + len)
    return `${len} bytes at 0x${look.pa.toString(16)} became ${
      how < FREED.length ? `0x${FREED[how].toString(16)} each` : `those at 0x${other.pa.toString(16)}`
    }`
  }

  /** Where the kernel's direct map has a physical address. */
  private addressOf(pa: number): bigint {
    return BigInt(this.space.directBase ?? 0) * 4096n + BigInt(pa)
  }

  private number(at: number, width: number): bigint {
    const end = Math.min(at + width, this.view.byteLength)
    let number = 0n
    for (let i = end - 1; i >= at; i--) number = number << 8n | BigInt(this.bytes[i])
    return number
  }

  private keep(at: number, len: number): void {
    this.undone.push({ at, before: this.bytes.slice(at, at + len) })
  }

  /** Put everything back. */
  undo(): void {
    for (const { at, before } of this.undone.reverse()) this.bytes.set(before, at)
    this.undone.length = 0
  }
}
