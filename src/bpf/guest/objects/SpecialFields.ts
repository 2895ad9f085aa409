import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { Kind } from "../../../btf/BtfType.ts"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { type Codec, compilerWith } from "../../../btf/render/Codec.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { type DerivedPlan, derivedPlan, renderPlansWith, type Use } from "../../../btf/render/RenderPlan.ts"
import { treeOf } from "../../../btf/render/TreeCodec.ts"
import { kvaOffset, kvaPage } from "../../../core/Address.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import { listNodesBehind, type Nodes } from "../../../memory/structs/ListHead.ts"
import { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import { treeNodes } from "../../../memory/structs/RbTree.ts"
import { intOf, missing, objectOf, pointerOf, stringOf } from "../../values/DerivedCodec.ts"
import { keptPointer, SPECIAL_STRUCTS } from "../../values/SpecialStructs.ts"
import type { KernelObjects } from "./KernelObjects.ts"

/** The longest object that programs allocate, in bytes: kernel/bpf/memalloc.c `sizes`, v6.12. */
const ALLOCATION_LIMIT = 4096
/** Bytes of JSON that a list, tree or kept object takes at most; what exceeds it is left out, and says so. */
const COST_LIMIT = 2 ** 22

/** include/uapi/linux/time.h `CLOCK_*`, v6.12: the clocks of `bpf_timer_init`. */
const CLOCKS = new Map([[0, "CLOCK_REALTIME"], [1, "CLOCK_MONOTONIC"], [7, "CLOCK_BOOTTIME"], [11, "CLOCK_TAI"]])

/**
 * kernel/bpf/helpers.c `struct bpf_hrtimer`; its members from `prog` on are in `cb` since v6.10. Of include/linux/
 * hrtimer_types.h `struct hrtimer`, v7.1 and newer have the bool `is_queued` where older ones have `state`.
 */
const timerLayout = memoizeByBtf((btf) =>
  layout(
    btf,
    "bpf_hrtimer",
    ["timer.node.expires", "timer.state", "timer.base", "cb.prog", "cb.callback_fn"],
    [],
    { "timer.state": "timer.is_queued", "cb.prog": "prog", "cb.callback_fn": "callback_fn" }
  )
)
/** include/linux/hrtimer_defs.h `struct hrtimer_clock_base`, v6.12 */
const clockLayout = memoizeByBtf((btf) => layout(btf, "hrtimer_clock_base", ["clockid"]))
/** `HRTIMER_STATE_ENQUEUED`; include/linux/hrtimer.h, v6.12. Also what `is_queued` holds if it is true. */
const ENQUEUED = 1
/** kernel/bpf/helpers.c `struct bpf_work`, v6.10 and newer */
const workLayout = memoizeByBtf((btf) => layout(btf, "bpf_work", ["work.data", "cb.prog", "cb.callback_fn"]))
/** `WORK_STRUCT_PENDING`; include/linux/workqueue.h, v6.12 */
const PENDING = 1
/** include/linux/bpf.h `struct bpf_list_node_kern`, `struct bpf_rb_node_kern`; v6.6 and newer */
const listNodeLayout = memoizeByBtf((btf) => layout(btf, "bpf_list_node_kern", ["owner"]))
const treeNodeLayout = memoizeByBtf((btf) => layout(btf, "bpf_rb_node_kern", ["owner"]))
/** kernel/bpf/cpumask.c `struct bpf_cpumask`, v6.3 and newer */
const cpumaskLayout = memoizeByBtf((btf) => layout(btf, "bpf_cpumask", ["cpumask"]))

/**
 * The parts of values that the kernel keeps for programs, shown as what they are: timers, work, pointers to objects, lists
 * and trees of objects, reference counts. Objects are followed one level deep: of what they point at in turn only the
 * address is shown, of their lists only the length. Not for hot loops.
 * @see include/linux/bpf.h `enum btf_field_type`, kernel/bpf/btf.c `btf_get_field_type`, v6.1 to v6.18
 */
export class SpecialFields {
  private readonly space: KernelSpace
  private readonly copies: PerCpuCopies
  private readonly compilers = new WeakMap<Btf, (typeId: number) => Codec>()

  constructor(private readonly kernel: GuestKernelService, private readonly objects: KernelObjects) {
    this.space = kernel.space.fork()
    this.copies = new PerCpuCopies(this.space, kernel.perCpuOffsets)
  }

  /** The codec of a map's value. */
  compile(btf: Btf, typeId: number): Codec {
    let compiler = this.compilers.get(btf)
    if (compiler === undefined) {
      const inObjects = renderPlansWith(btf, (id, use) => this.special(btf, id, use, undefined))
      const followed = (id: number): Followed | undefined => {
        const size = btf.sizeOf(id)
        if (size === undefined || size > ALLOCATION_LIMIT) return undefined
        const plan = inObjects(id)
        return { size, cost: plan.cost, tree: (view, at, most) => treeOf(plan, view, at, at + size, most) }
      }
      compiler = compilerWith(btf, (id, use) => this.special(btf, id, use, followed))
      this.compilers.set(btf, compiler)
    }
    return compiler(typeId)
  }

  /** `followed`: undefined within objects, which are not followed further. */
  private special(btf: Btf, id: number, use: Use | undefined, followed: Follow): DerivedPlan | undefined {
    const type = btf.type(id)
    if (type?.kind === "PTR") return this.pointer(btf, type.type, followed)
    if (type?.kind !== "STRUCT") return undefined
    const { name, size } = type
    const needed = SPECIAL_STRUCTS.get(name)
    if (needed === undefined || size < needed) return undefined
    switch (name) {
      case "bpf_timer":
        return derivedPlan(size, 512, (view, at) => this.timer(view.getBigUint64(at, true)))
      case "bpf_wq":
        return derivedPlan(size, 512, (view, at) => this.work(view.getBigUint64(at, true)))
      case "bpf_refcount":
        return derivedPlan(size, 16, (view, at) => intOf(view.getUint32(at, true)))
      case "bpf_list_node":
        return ownedPlan(size, listNodeLayout(this.kernel.btf))
      case "bpf_rb_node":
        return ownedPlan(size, treeNodeLayout(this.kernel.btf))
      default: {
        const node = nodeType(btf, use)
        if (node === undefined) return undefined
        const object = followed?.(node.typeId)
        return derivedPlan(size, object === undefined ? 64 : COST_LIMIT, (view, at, most) => {
          const first = view.getBigUint64(at, true)
          const nodes = name === "bpf_list_head"
            ? listNodesBehind(this.space, first, view.getBigUint64(at + 8, true))
            : treeNodes(this.space, this.kernel.btf, first)
          return this.elements(nodes, BigInt(node.at), object, most)
        })
      }
    }
  }

  /**
   * A pointer that the map owns: `{ address, type, value }`, or `cpus` in place of the value where each CPU has one. Of the
   * kernel's own objects those have a value that have a short one.
   */
  private pointer(btf: Btf, pointee: number, followed: Follow): DerivedPlan | undefined {
    const tag = keptPointer(btf, pointee)
    if (tag === undefined) return undefined
    const target = btf.peel(tag.type)
    const type = btf.nameOf(target)
    const { btf: kernels } = this.kernel
    const isKernels = kernels.idsByName(type).some((id) => kernels.kindOf(id) === Kind.STRUCT)
    // Other types are programs' own, or of a module: those have no pointers that are counted.
    const isOwn = !isKernels && tag.name !== "kptr_untrusted" && kernels.idsByName("bpf_obj_new_impl").length > 0
    const object = isOwn ? followed?.(target) : undefined
    const cost = 128 + (object === undefined || followed === undefined ? 0 : object.cost)
    const named = (address: bigint, members: Parts): RenderedValue =>
      objectOf({ address: pointerOf(address), type: stringOf(type), ...members })
    const membersOf = (address: bigint, most: number): Parts => {
      if (followed === undefined) return {}
      if (isKernels) return { value: this.kernelObject(type, address) }
      if (object === undefined) return {}
      return tag.name === "percpu_kptr"
        ? { cpus: this.perCpu(address, object, most) }
        : { value: this.object(object, address, most) }
    }
    return derivedPlan(
      8,
      cost * (tag.name === "percpu_kptr" ? Math.max(1, this.copies.cpus) : 1),
      (view, at, most) => {
        const address = view.getBigUint64(at, true)
        return address === 0n ? pointerOf(0n) : named(address, membersOf(address, most))
      }
    )
  }

  /** `{ armed, expires, clock, callback, program }`: `expires` in nanoseconds of the clock, while it is armed. */
  private timer(address: bigint): RenderedValue {
    return this.callback(address, timerLayout(this.kernel.btf), { armed: FALSE }, (view, at) => {
      const armed = (view.getUint8(at["timer.state"]) & ENQUEUED) !== 0
      return {
        armed: { _tag: "bool", value: armed },
        expires: armed ? intOf(view.getBigInt64(at["timer.node.expires"], true)) : undefined,
        clock: this.clock(view.getBigUint64(at["timer.base"], true))
      }
    })
  }

  /** `{ pending, callback, program }` */
  private work(address: bigint): RenderedValue {
    return this.callback(address, workLayout(this.kernel.btf), { pending: FALSE }, (view, at) => ({
      pending: { _tag: "bool", value: (view.getUint8(at["work.data"]) & PENDING) !== 0 }
    }))
  }

  private callback<L extends { readonly "cb.prog": number; readonly "cb.callback_fn": number }>(
    address: bigint,
    found: Either.Either<{ readonly at: L; readonly size: number }, { readonly message: string }>,
    none: Parts,
    describe: (view: DataView, at: L) => Parts
  ): RenderedValue {
    if (address === 0n) return objectOf(none)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const { at, size } = found.right
    const bytes = this.space.read(address, size)
    if (bytes === undefined) return missing(this.space.faultReason)
    const view = new DataView(bytes.buffer)
    const callback = view.getBigUint64(at["cb.callback_fn"], true)
    const program = view.getBigUint64(at["cb.prog"], true)
    return objectOf({
      ...describe(view, at),
      callback: callback === 0n ? undefined : this.objects.code(callback),
      program: program === 0n ? undefined : this.objects.programAt(program)
    })
  }

  private clock(base: bigint): RenderedValue {
    const found = clockLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const id = this.space.u32(base + BigInt(found.right.at.clockid))
    if (id < 0) return missing(this.space.faultReason)
    return { _tag: "enum", value: id, name: CLOCKS.get(id) ?? null, flags: [] }
  }

  /** The copies of the possible CPUs; kernel/bpf/memalloc.c `__alloc` keeps the `__percpu` pointer behind an address. */
  private perCpu(address: bigint, object: Followed, most: number): RenderedValue {
    const pointer = this.space.u64(address)
    if (pointer === undefined) return missing(this.space.faultReason)
    const copy = (cpu: number): RenderedValue => {
      if (!this.copies.isPossible(cpu)) return pointerOf(0n)
      return this.copies.window(kvaPage(pointer), kvaOffset(pointer), cpu, object.size)
        ? object.tree(this.space.view, this.space.at, most)
        : missing(this.space.faultReason)
    }
    return { _tag: "array", elements: Array.from({ length: this.copies.cpus }, (_, cpu) => copy(cpu)), omitted: 0 }
  }

  private kernelObject(type: string, address: bigint): RenderedValue | undefined {
    switch (type) {
      case "task_struct":
        return this.objects.task(address)
      case "cgroup":
        return this.objects.cgroup(address)
      case "bpf_cpumask":
        return this.cpumask(address)
      default:
        return undefined
    }
  }

  /** `"0-3,7"`, as `%*pbl` of the kernel prints it. */
  private cpumask(address: bigint): RenderedValue {
    const found = cpumaskLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const count = Math.min(this.copies.cpus, found.right.sizeOf.cpumask * 8)
    const bytes = this.space.read(address + BigInt(found.right.at.cpumask), Math.ceil(count / 8))
    if (bytes === undefined) return missing(this.space.faultReason)
    const ranges: Array<[number, number]> = []
    for (let cpu = 0; cpu < count; cpu++) {
      if ((bytes[cpu >>> 3] >>> (cpu & 7) & 1) === 0) continue
      const last = ranges.at(-1)
      if (last?.[1] === cpu - 1) last[1] = cpu
      else ranges.push([cpu, cpu])
    }
    return stringOf(ranges.map(([from, to]) => from === to ? `${from}` : `${from}-${to}`).join(","))
  }

  private object({ size, tree }: Followed, address: bigint, most: number): RenderedValue {
    const bytes = this.space.read(address, size)
    return bytes === undefined ? missing(this.space.faultReason) : tree(new DataView(bytes.buffer), 0, most)
  }

  /** The objects that nodes are part of, `at` bytes before each node; all are counted. */
  private elements(
    { nodes, problem }: Nodes,
    at: bigint,
    object: Followed | undefined,
    most: number
  ): RenderedValue {
    const limit = object === undefined ? 0 : Math.min(most, Math.floor(COST_LIMIT / (object.cost + 1)))
    const elements = object === undefined
      ? []
      : nodes.slice(0, limit).map((node) => this.object(object, node - at, most))
    if (problem !== undefined) elements.push(missing(problem))
    return { _tag: "array", elements, omitted: nodes.length - Math.min(nodes.length, limit) }
  }
}

const FALSE: RenderedValue = { _tag: "bool", value: false }

/** A type of objects that are shown whole. */
interface Followed {
  readonly size: number
  readonly cost: number
  readonly tree: (view: DataView, at: number, most: number) => RenderedValue
}
type Follow = ((typeId: number) => Followed | undefined) | undefined
type Parts = Parameters<typeof objectOf>[0]

/** A node: `{ owner }`, the address of the head of the list or tree that it is in. */
const ownedPlan = (
  size: number,
  found: Either.Either<{ readonly at: { readonly owner: number } }, unknown>
): DerivedPlan | undefined => {
  if (Either.isLeft(found) || found.right.at.owner + 8 > size) return undefined
  const { owner } = found.right.at
  return derivedPlan(size, 40, (view, at) => objectOf({ owner: pointerOf(view.getBigUint64(at + owner, true)) }))
}

/**
 * The type of a head's nodes, from its tag `contains:TYPE:MEMBER`.
 * @see kernel/bpf/btf.c `btf_find_graph_root`, v6.12
 */
const nodeType = (btf: Btf, use: Use | undefined): { readonly typeId: number; readonly at: number } | undefined => {
  if (use === undefined) return undefined
  const [, name, member] = /^contains:([^:]+):(.+)$/.exec(tagOf(btf, use)) ?? []
  if (name === undefined || member === undefined) return undefined
  for (const id of btf.idsByName(name)) {
    const type = btf.type(id)
    const node = type?.kind === "STRUCT" ? type.members.find((candidate) => candidate.name === member) : undefined
    if (node !== undefined) return { typeId: id, at: node.bitOffset >>> 3 }
  }
  return undefined
}

const tagsOf = new WeakMap<Btf, ReadonlyMap<string, string>>()

/** The `contains:` tag of a member or variable, else empty. */
const tagOf = (btf: Btf, { index, owner }: Use): string => {
  let tags = tagsOf.get(btf)
  if (tags === undefined) {
    const found = new Map<string, string>()
    for (let id = btf.firstId; id < btf.endId; id++) {
      const type = btf.kindOf(id) === Kind.DECL_TAG ? btf.type(id) : undefined
      if (type?.kind === "DECL_TAG" && !type.attribute && type.name.startsWith("contains:")) {
        found.set(`${type.type}:${type.component}`, type.name)
      }
    }
    tags = found
    tagsOf.set(btf, tags)
  }
  return tags.get(`${owner}:${index}`) ?? ""
}
