import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { Btf } from "../../../btf/Btf.ts"
import type { GroupMissing } from "../../../btf/OffsetGroup.ts"
import { arenaOffsets } from "../../../btf/offsets/bpf/Arena.ts"
import { hex } from "../../../core/Address.ts"
import { cString } from "../../../core/CString.ts"
import { errnoName } from "../../../core/Errors.ts"
import { type Reason, unreadable, unsupported } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import type { Details } from "../../Report.ts"
import { derivedCodec, pointerOf } from "../../values/DerivedCodec.ts"
import type { BpfCalls, CallBuffer } from "../calls/BpfCalls.ts"

const PAGE = 4096
/** `BPF_PROG_TYPE_SYSCALL`, `BPF_F_SLEEPABLE`, `BPF_PSEUDO_MAP_FD`, `_MAP_VALUE`; include/uapi/linux/bpf.h, v6.12. */
const SYSCALL_PROGRAM = 31
const SLEEPABLE = 1 << 4
const PSEUDO_MAP_FD = 1
const PSEUDO_MAP_VALUE = 2
/** `bpf_probe_read_kernel(destination, size, address)`: -EFAULT where nothing is mapped, and nothing gets mapped. */
const PROBE_READ_KERNEL = 113
/** Pages that one run of a program looks at. */
const STRETCH = 1024
/** Half of the guard area (kernel/bpf/arena.c `GUARD_SZ`, v6.9 to v6.18): between `kern_vm.addr` and the arena. */
const GUARD = 0x8000n

/** One instruction: opcode, registers, offset, immediate; Documentation/bpf/standardization/instruction-set.rst, v6.12. */
type Instruction = readonly [opcode: number, destination: number, source: number, offset: number, immediate: number]

const mov = (to: number, from: number): Instruction => [0xbf, to, from, 0, 0]
const set = (to: number, value: number): Instruction => [0xb7, to, 0, 0, value]
const add = (to: number, value: number): Instruction => [0x07, to, 0, 0, value]
/** `to = *(u64 *)(from + 0)` */
const load = (to: number, from: number): Instruction => [0x79, to, from, 0, 0]
/** The map itself, or the first byte of an array's first value. */
const pointer = (to: number, map: number, kind: number): ReadonlyArray<Instruction> => [
  [0x18, to, kind, 0, map],
  [0, 0, 0, 0, 0]
]
const probe: Instruction = [0x85, 0, 0, 0, PROBE_READ_KERNEL]
const exit: Instruction = [0x95, 0, 0, 0, 0]

/** Copies `size` bytes from the address that the context holds into the array `to`; returns 0 or minus an errno. */
const copier = (to: number, size: number): ReadonlyArray<Instruction> => [
  load(3, 1),
  ...pointer(1, to, PSEUDO_MAP_VALUE),
  set(2, size),
  probe,
  exit
]

/** The same from a map's own struct. */
const structCopier = (to: number, map: number, size: number): ReadonlyArray<Instruction> => [
  ...pointer(3, map, PSEUDO_MAP_FD),
  ...pointer(1, to, PSEUDO_MAP_VALUE),
  set(2, size),
  probe,
  exit
]

/** Returns how many pages from the address on are not mapped, up to `STRETCH`. */
const finder: ReadonlyArray<Instruction> = [
  load(7, 1),
  set(8, 0),
  mov(1, 10), // loop: a byte of the page onto the stack
  add(1, -8),
  set(2, 1),
  mov(3, 7),
  probe,
  [0x15, 0, 0, 3, 0], // mapped: done
  add(7, PAGE),
  add(8, 1),
  [0xa5, 8, 0, -9, STRETCH], // fewer than STRETCH: loop
  mov(0, 8),
  exit
]

/** A program of ours that reads the kernel's memory and touches nothing of it. `release` unloads it. */
class Prober {
  private readonly context: CallBuffer

  private constructor(private readonly calls: BpfCalls, private readonly program: number) {
    this.context = calls.buffer(8)
  }

  static readonly load = (
    calls: BpfCalls,
    instructions: ReadonlyArray<Instruction>
  ): Either.Either<Prober, Reason> => {
    const code = calls.buffer(instructions.length * 8)
    instructions.forEach(([opcode, destination, source, offset, immediate], index) => {
      const at = index * 8
      code.view.setUint8(at, opcode)
      code.view.setUint8(at + 1, source << 4 | destination)
      code.view.setInt16(at + 2, offset, true)
      code.view.setInt32(at + 4, immediate, true)
    })
    const license = calls.buffer(4)
    license.bytes.set(Buffer.from("GPL"))
    const program = calls.load(SYSCALL_PROGRAM, SLEEPABLE, code, license, null)
    if (program >= 0) return Either.right(new Prober(calls, program))
    const log = calls.buffer(1 << 20)
    const again = calls.load(SYSCALL_PROGRAM, SLEEPABLE, code, license, log)
    if (again >= 0) return Either.right(new Prober(calls, again))
    const said = cString(log.bytes).trim().split("\n").filter((line) => !line.startsWith("processed")).at(
      -1
    )
    return Either.left(unsupported(
      `the kernel refuses the program that reads arenas: ${errnoName(-program)}`
        + (said === undefined || said === "" ? "" : ` (${said})`)
    ))
  }

  /** Run at an address: what the program returned, or minus the errno of the run. */
  at(address: bigint): number {
    const { calls, context } = this
    context.view.setBigUint64(0, address, true)
    const result = calls.run(this.program, context)
    return result < 0 ? result : calls.answer | 0
  }

  release(): void {
    this.calls.close(this.program)
  }
}

/** An arena that is read by way of the kernel's own mapping of it. */
export interface ArenaPages {
  readonly details: Details
  readonly walk: () => EntryWalk
}

/**
 * The populated pages of an ARENA, read by small BPF programs from the address where the kernel maps them. A mapping of the
 * arena into this process would not do: it shows no page until one is touched, and touching one that is not there
 * allocates it; and the first mapping fixes the arena's address for all.
 * @see kernel/bpf/arena.c `arena_map_mmap`, `arena_vm_fault`, `bpf_arena_get_kern_vm_start`; v6.12
 */
export const openArenaPages = (
  calls: BpfCalls,
  btf: Btf,
  map: number,
  pages: number
): Effect.Effect<ArenaPages, Reason | GroupMissing, Scope.Scope> =>
  Effect.gen(function*() {
    const { area, arena } = yield* arenaOffsets.resolve(btf)
    const target = yield* Effect.acquireRelease(
      Effect.sync(() => calls.createArray("ktstr_page", PAGE)),
      (fd) => Effect.sync(() => fd < 0 ? undefined : calls.close(fd))
    )
    if (target < 0) return yield* Effect.fail(unsupported(`BPF_MAP_CREATE: ${errnoName(-target)}`))
    const prober = (instructions: ReadonlyArray<Instruction>) =>
      Effect.acquireRelease(
        Effect.suspend(() => Prober.load(calls, instructions)),
        (prober) => Effect.sync(() => prober.release())
      )
    const copied = calls.buffer(PAGE)
    const first = calls.buffer(4)
    /** Copy and fetch; 0 or minus an errno. */
    const fetch = (copier: Prober, address: bigint): number => {
      const result = copier.at(address)
      return result < 0 ? result : calls.lookup(target, first, copied)
    }
    const self = yield* prober(structCopier(target, map, arena.size))
    const result = fetch(self, 0n)
    if (result < 0) return yield* Effect.fail(unreadable(`its struct bpf_arena: ${errnoName(-result)}`))
    const userStart = copied.view.getBigUint64(arena.at.user_vm_start, true)
    const areaAt = copied.view.getBigUint64(arena.at.kern_vm, true) + BigInt(area.at.addr)
    const missed = fetch(yield* prober(copier(target, 8)), areaAt)
    if (missed < 0) return yield* Effect.fail(unreadable(`its vm_struct.addr at ${hex(areaAt)}`))
    const start = copied.view.getBigUint64(0, true) + GUARD
    const find = yield* prober(finder)
    const copy = yield* prober(copier(target, PAGE))
    return {
      details: { pages, userAddress: hex(userStart), kernelAddress: hex(start) },
      walk: () => new ArenaPageWalk(find, (address) => fetch(copy, address), copied.view, start, userStart, pages)
    }
  })

/** The key is a page's address for user space, which is what the arena's own pointers hold. */
class ArenaPageWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(8))
  readonly keyAt = 0
  readonly keyLength = 8
  readonly valueAt = 0
  readonly valueLength = PAGE
  readonly problems = new WalkProblems()
  private page = 0

  constructor(
    private readonly find: Prober,
    /** Copies the page at a kernel address to where `valueView` is; 0 or minus an errno. */
    private readonly fetch: (address: bigint) => number,
    readonly valueView: DataView,
    private readonly start: bigint,
    private readonly userStart: bigint,
    private readonly pages: number
  ) {}

  next(): boolean {
    const { fetch, find, pages, userStart } = this
    while (this.page < pages) {
      const absent = find.at(this.addressOf(this.page))
      if (absent < 0) {
        this.problems.add(unreadable(`BPF_PROG_TEST_RUN: ${errnoName(-absent)}; pages are missing`))
        return false
      }
      this.page += absent
      if (absent === STRETCH || this.page >= pages) continue
      const page = this.page++
      if (fetch(this.addressOf(page)) < 0) continue // freed since
      const address = userStart + BigInt(page) * BigInt(PAGE)
      this.keyView.setBigUint64(0, address, true)
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }

  /** The kernel's address of a page is the one whose low 32 bits are those of its address for user space. */
  private addressOf(page: number): bigint {
    const low = (this.userStart + BigInt(page) * BigInt(PAGE)) & 0xffff_ffffn
    return this.start + low
  }
}

export const addressCodec = derivedCodec((view, at) => pointerOf(view.getBigUint64(at, true)))
