import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { arenaOffsets } from "../../../btf/offsets/bpf/Arena.ts"
import { bytesCodec } from "../../../btf/render/Codec.ts"
import { hex, kvaFrom, kvaPage } from "../../../core/Address.ts"
import { corrupted, truncated, unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { OUT_OF_MEMORY } from "../../../memory/arch/PageTable.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { derivedCodec, pointerOf } from "../../values/DerivedCodec.ts"
import type { MapOpener } from "./GuestMap.ts"

/** Of page numbers, in bytes. The kernel's own pages may be larger. */
const PAGE = 4096
/** Pages of 4 KiB in 4 GiB: an arena lies in one such window, for user space and for the kernel. */
const WINDOW = 2 ** 20
/**
 * `GUARD_SZ / 2`, in pages of 4 KiB, where the kernel's own pages are not larger: between `kern_vm.addr` and the arena;
 * kernel/bpf/arena.c, v6.9 to v6.18.
 */
const GUARD = 8

/**
 * The populated pages of an ARENA. The key is the page's address for user space, which is what the arena's own pointers
 * hold; the kernel maps the address whose low 32 bits are the same.
 * @see kernel/bpf/arena.c `bpf_arena_get_kern_vm_start`, `arena_vm_fault`, v6.12
 */
class ArenaWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(8))
  readonly keyAt = 0
  readonly keyLength = 8
  valueView: DataView
  valueAt = 0
  readonly valueLength: number
  readonly problems = new WalkProblems()
  private page: number
  private readonly end: number
  /** From one page of the kernel's to the next, in pages of 4 KiB. */
  private readonly step: number

  constructor(
    private readonly space: KernelSpace,
    /** The page number of the kernel's window, and the arena's address for user space. */
    private readonly kernelPage: number,
    private readonly userStart: bigint,
    /** Of the kernel's own size. */
    pages: number
  ) {
    this.valueView = space.view
    this.valueLength = space.table.pageSize
    this.step = this.valueLength / PAGE
    const first = Number((userStart & 0xffff_ffffn) >> 12n)
    const room = (WINDOW - first) / this.step
    this.page = kernelPage + first
    this.end = this.page + Math.min(pages, room) * this.step
    if (pages > room) this.problems.add(truncated(`had ${room} pages below a 4 GiB line, needed ${pages}`))
  }

  next(): boolean {
    const { space } = this
    const { table } = space
    while (this.page < this.end) {
      const page = this.page
      const pa = table.walk(page)
      if (pa < 0) {
        if (pa === OUT_OF_MEMORY) {
          this.problems.add(unreadable(`${hex(kvaFrom(page, 0))} ${table.absence}`))
        }
        this.page = table.behind(page)
        continue
      }
      this.page += this.step
      if (!space.window(page, 0, this.valueLength)) {
        this.problems.add(space.faultReason)
        continue
      }
      const low = (page - this.kernelPage) * PAGE
      this.keyView.setUint32(0, low, true)
      this.keyView.setUint32(4, Number(this.userStart >> 32n), true)
      this.valueView = space.view
      this.valueAt = space.at
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }
}

const addressCodec = derivedCodec((view, at) => pointerOf(view.getBigUint64(at, true)))

const arenaLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return { ...(yield* arenaOffsets.resolve(btf)), extent: yield* layout(btf, "vm_struct", ["size"]) }
  })
)

export const openArena: MapOpener = ({ info, kernel, offset, page, space }) =>
  Either.gen(function*() {
    const { area, arena, extent } = yield* arenaLayouts(kernel.btf)
    const map = kvaFrom(page, offset)
    const userStart = space.u64(map + BigInt(arena.at.user_vm_start))
    const areaAt = space.u64(map + BigInt(arena.at.kern_vm))
    const start = areaAt === undefined ? undefined : space.u64(areaAt + BigInt(area.at.addr))
    const size = areaAt === undefined ? undefined : space.u64(areaAt + BigInt(extent.at.size))
    if (userStart === undefined || start === undefined || size === undefined) {
      return yield* Either.left(space.faultReason)
    }
    if (size < BigInt(WINDOW * PAGE)) return yield* Either.left(corrupted(`an arena's area of ${size} bytes`))
    const { pageSize } = space.table
    if (start % BigInt(pageSize) !== 0n || userStart % BigInt(pageSize) !== 0n) {
      return yield* Either.left(
        corrupted(`an arena at ${hex(start)}, ${hex(userStart)} for user space: not aligned to a page`)
      )
    }
    const kernelPage = kvaPage(start) + Math.max(GUARD, pageSize / PAGE)
    return {
      walk: () => new ArenaWalk(space, kernelPage, userStart, info.maxEntries),
      key: addressCodec,
      value: bytesCodec(pageSize),
      details: { pages: info.maxEntries, userAddress: hex(userStart), kernelAddress: hex(kvaFrom(kernelPage, 0)) }
    }
  })
