import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { enumNames } from "../../../btf/EnumNames.ts"
import { layout } from "../../../btf/Layout.ts"
import { type Json, toJson } from "../../../btf/render/RenderedValue.ts"
import { hex, kvaFrom } from "../../../core/Address.ts"
import {
  absent,
  combine,
  corrupted,
  type Reason,
  toReason,
  unreadable,
  unsupported,
  within
} from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { GuestKernel } from "../../../memory/GuestKernel.ts"
import { ARRAY_LIMIT, structAt, StructReader, textIn } from "../../../memory/structs/StructReader.ts"
import { idrLayout, walkIdr } from "../../../memory/structs/Xarray.ts"
import { type Attachment, Link } from "../../Link.ts"
import type { BpfUnreadable, Listing } from "../../MapAccessor.ts"
import type { Count } from "../../Program.ts"
import { KernelObjects } from "../objects/KernelObjects.ts"
import { ProgramWalk } from "../programs/ProgramWalk.ts"
import { listLinkless } from "./DirectAttachments.ts"
import { linkLayouts } from "./LinkLayouts.ts"
import { LinkPerfEvents } from "./LinkPerfEvents.ts"

/** Every link of a kernel that stands still, in the order of ids, then what is attached without a link. */
export const listLinks: Effect.Effect<Listing<Link>, BpfUnreadable, GuestKernel> = Effect.flatMap(
  GuestKernel,
  (kernel) =>
    Either.map(LinkWalk.make(kernel), (walk) => {
      const links = walk.list()
      const linkless = listLinkless(kernel, walk)
      return { items: [...links.items, ...linkless.items], problems: [...links.problems, ...linkless.problems] }
    })
)

/** What is known of a link beyond what every link has; a null target: it was detached. */
export interface Attached {
  readonly target: Attachment | null
  readonly attachType?: string
}

/** What went well, or why it did not. */
export type Found<A> = Either.Either<A, Reason>

/** Reads links. Not for hot loops. */
export class LinkWalk {
  readonly programs: ProgramWalk
  readonly objects: KernelObjects
  private readonly layouts: ReturnType<typeof linkLayouts>
  private readonly perfEvents: LinkPerfEvents
  private readonly names = new Map<number, string>()
  private readonly reader: StructReader

  static readonly make = (kernel: typeof GuestKernel.Service): Either.Either<LinkWalk, BpfUnreadable> =>
    Either.map(ProgramWalk.make(kernel), (programs) => new LinkWalk(kernel, programs))

  private constructor(readonly kernel: typeof GuestKernel.Service, programs: ProgramWalk) {
    this.programs = programs
    this.objects = new KernelObjects(kernel, [], [])
    this.layouts = linkLayouts(kernel.btf)
    this.perfEvents = new LinkPerfEvents(kernel)
    this.reader = new StructReader(kernel.space)
  }

  list(): Listing<Link> {
    const { kernel } = this
    const items: Array<Link> = []
    const broken = new WalkProblems()
    const address = kernel.symbol("link_idr")
    const shape = idrLayout(kernel.btf)
    // include/linux/bpf.h `struct bpf_link`, v6.12
    const link = layout(kernel.btf, "bpf_link", ["id", "type", "prog"])
    if (address === undefined) return { items, problems: [absent("the kernel's symbols lack link_idr")] }
    if (Either.isLeft(shape)) return { items, problems: [toReason(shape.left)] }
    if (Either.isLeft(link)) return { items, problems: [toReason(link.left)] }
    const { at } = link.right
    const typeNames = enumNames(kernel.btf, "bpf_link_type", "BPF_LINK_TYPE_")
    const problems = walkIdr(kernel.space, shape.right, address, (id, page, offset) => {
      const where = kvaFrom(page, offset)
      const view = structAt(kernel.space, link.right, where)
      if (view === undefined) return broken.add(within(`link ${id}`, kernel.space.faultReason))
      const found = view.getUint32(at.id, true)
      if (found !== id) {
        return broken.add(corrupted(`link ${id}: the structure at ${hex(where)} says it is link ${found}`))
      }
      const number = view.getUint32(at.type, true)
      const type = typeNames.get(number) ?? `type ${number}`
      items.push(this.link(id, type, view.getBigUint64(at.prog, true), this.attached(type, where)))
    })
    return { items, problems: [...problems.map((problem) => within("link_idr", problem)), ...broken.list] }
  }

  link(id: number | null, type: string, program: bigint, attached: Found<Attached>): Link {
    const programId = program === 0n ? undefined : this.programs.idOf(program)
    const unread = program !== 0n && programId === undefined
      ? [within("its program", this.kernel.space.faultReason)]
      : []
    const problems = Either.isLeft(attached) ? [...unread, attached.left] : unread
    const known = Either.getOrUndefined(attached)
    return new Link({
      id,
      type,
      programId: programId ?? null,
      programName: programId === undefined ? null : this.nameOf(programId, program),
      attachType: known?.attachType ?? null,
      target: known?.target ?? null,
      problem: combine(problems)
    })
  }

  private nameOf(id: number, program: bigint): string {
    const known = this.names.get(id)
    if (known !== undefined) return known
    const name = Either.match(this.programs.read(program), { onLeft: () => "", onRight: ({ name }) => name })
    this.names.set(id, name)
    return name
  }

  /** What the link at an address is attached to. */
  private attached(type: string, link: bigint): Found<Attached> {
    switch (type) {
      case "raw_tracepoint":
        return this.rawTracepoint(link)
      case "tracing":
        return this.tracing(link)
      case "cgroup":
        return this.cgroup(link)
      case "iter":
        return this.iterator(link)
      case "netns":
        return this.netns(link)
      case "xdp":
        return this.device(link, this.layouts.xdp())
      case "tcx":
        return this.device(link, this.layouts.tcx())
      case "netkit":
        return this.device(link, this.layouts.netkit())
      case "perf_event":
        return Either.map(this.perfEvents.ofLink(link), (target) => ({ target }))
      case "kprobe_multi":
        return this.functions(link)
      case "uprobe_multi":
        return this.uprobes(link)
      case "struct_ops":
        return this.structOps(link)
      case "netfilter":
        return this.netfilter(link)
      case "sockmap":
        return this.sockmap(link)
      default:
        return Either.left(unsupported(`what links of type ${type} are attached to is not read`))
    }
  }

  /** The struct that contains the link at an address. */
  private around<L extends { readonly size: number }>(
    link: bigint,
    found: Either.Either<L, { readonly message: string }>,
    place: (layout: L) => number
  ): Found<{ readonly view: DataView; readonly layout: L }> {
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const view = structAt(this.kernel.space, found.right, link - BigInt(place(found.right)))
    return view === undefined ? this.fault() : Either.right({ view, layout: found.right })
  }

  /** A field of the struct that a pointer leads to. */
  private field<L>(
    address: bigint,
    found: Either.Either<L, { readonly message: string }>,
    field: (layout: L) => number
  ): Found<bigint> {
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    return this.reader.u64(address + BigInt(field(found.right)))
  }

  private fault(): Either.Either<never, Reason> {
    return Either.left(this.kernel.space.faultReason)
  }

  private typed(view: DataView, field: number | undefined): { readonly attachType?: string } {
    return field === undefined ? {} : { attachType: this.programs.attachName(view.getUint32(field, true)) }
  }

  private rawTracepoint(link: bigint): Found<Attached> {
    const { layouts } = this
    return this.around(link, layouts.rawTracepoint(), ({ at }) => at.link).pipe(
      Either.flatMap(({ layout, view }) =>
        this.field(view.getBigUint64(layout.at.btp, true), layouts.rawEvent(), ({ at }) => at.tp)
      ),
      Either.flatMap((tracepoint) => this.field(tracepoint, layouts.tracepoint(), ({ at }) => at.name)),
      Either.flatMap((name) => this.reader.text(name)),
      Either.map((name) => ({ target: attachment("tracepoint", name) }))
    )
  }

  /** @see include/linux/bpf_verifier.h `bpf_trampoline_compute_key`, v6.12 */
  private tracing(link: bigint): Found<Attached> {
    const { layouts, programs } = this
    return Either.flatMap(this.around(link, layouts.tracing(), ({ at }) => at["link.link"]), ({ layout, view }) => {
      const type = layout.at.attach_type === undefined ? 0 : view.getUint32(layout.at.attach_type, true)
      const typed = type === 0 ? {} : { attachType: programs.attachName(type) }
      const program = view.getBigUint64(layout.at.tgt_prog, true)
      if (program === 0n) {
        return Either.map(this.ownTarget(link), (target) => ({ ...typed, target }))
      }
      const id = programs.idOf(program)
      if (id === undefined) return this.fault()
      return Either.gen(this, function*() {
        const trampoline = view.getBigUint64(layout.at.trampoline, true)
        const key = yield* this.field(trampoline, layouts.trampoline(), ({ at }) => at.key)
        const { btf } = yield* programs.typesOf(program)
        return { ...typed, target: attachment("function", btf.nameOf(Number(key & 0x7fff_ffffn)), id) }
      })
    })
  }

  /** What the link's own program is made for. */
  private ownTarget(link: bigint): Found<Attachment> {
    return this.field(link, layout(this.kernel.btf, "bpf_link", ["prog"]), ({ at }) => at.prog).pipe(
      Either.flatMap((program) => this.programs.read(program)),
      Either.flatMap(({ id, target }) =>
        target === null
          ? Either.left(absent(`program ${id} does not say what it is for`))
          : Either.right(
            attachment(target.kind === "tracepoint" ? "tracepoint" : "function", target.name, target.program)
          )
      )
    )
  }

  private cgroup(link: bigint): Found<Attached> {
    return Either.flatMap(
      this.around(link, this.layouts.cgroup(), ({ at }) => at.link),
      ({ layout, view }) =>
        Either.map(this.cgroupAt(view.getBigUint64(layout.at.cgroup, true)), (target) => ({
          ...this.typed(view, layout.at.type),
          target
        }))
    )
  }

  /** Null for a null pointer: the cgroup is gone. */
  cgroupAt(cgroup: bigint): Found<Attachment | null> {
    if (cgroup === 0n) return Either.right(null)
    const json = toJson(this.objects.cgroup(cgroup))
    const path = field(json, "path")
    const id = field(json, "id")
    return typeof path === "string" && (typeof id === "number" || typeof id === "string")
      ? Either.right(attachment("cgroup", path, id))
      : Either.left(unreadable(`its cgroup: ${JSON.stringify(path ?? json)}`))
  }

  private iterator(link: bigint): Found<Attached> {
    const { layouts } = this
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, layouts.iterator(), ({ at }) => at.link)
      const kind = yield* this.field(
        view.getBigUint64(layout.at.tinfo, true),
        layouts.iteratorTarget(),
        ({ at }) => at.reg_info
      )
      const text = yield* this.field(kind, layouts.iteratorKind(), ({ at }) => at.target)
      const name = yield* this.reader.text(text)
      const map = layout.at["aux.map"] === undefined ? 0n : view.getBigUint64(layout.at["aux.map"], true)
      return { target: attachment("iterator", name, map === 0n ? null : (yield* this.mapAt(map)).id) }
    })
  }

  private netns(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, this.layouts.netns(), ({ at }) => at.link)
      const net = view.getBigUint64(layout.at.net, true)
      const inode = net === 0n ? null : yield* this.inodeOf(net)
      const target = inode === null ? null : attachment("netns", `net:[${inode}]`, inode)
      return { ...this.typed(view, layout.at.type), target }
    })
  }

  /** The inode number of the `struct net` at an address. */
  inodeOf(net: bigint): Found<number> {
    const found = this.layouts.network()
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const inode = this.kernel.space.u32(net + BigInt(found.right.at["ns.inum"]))
    return inode < 0 ? this.fault() : Either.right(inode)
  }

  private device<
    L extends { readonly size: number; readonly at: { link: number; dev: number; location?: number | undefined } }
  >(
    link: bigint,
    found: Either.Either<L, { readonly message: string }>
  ): Found<Attached> {
    return Either.flatMap(
      this.around(link, found, ({ at }) => at.link),
      ({ layout: { at }, view }) =>
        Either.map(this.deviceAt(view.getBigUint64(at.dev, true)), (target) => ({
          ...this.typed(view, at.location),
          target
        }))
    )
  }

  /** Null for a null pointer: the device is gone. */
  deviceAt(device: bigint): Found<Attachment | null> {
    const found = this.layouts.device()
    if (device === 0n) return Either.right(null)
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const { at, sizeOf } = found.right
    const view = structAt(this.kernel.space, found.right, device)
    if (view === undefined) return this.fault()
    return Either.map(this.inodeOf(view.getBigUint64(at["nd_net.net"], true)), (netns) => ({
      ...attachment("netdev", textIn(view, at.name, sizeOf.name), view.getInt32(at.ifindex, true)),
      netns
    }))
  }

  private functions(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, this.layouts.functions(), ({ at }) => at.link)
      const count = view.getUint32(layout.at.cnt, true)
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} functions`))
      const bytes = this.kernel.space.read(view.getBigUint64(layout.at.addrs, true), count * 8)
      if (bytes === undefined) return yield* this.fault()
      const addresses = new DataView(bytes.buffer)
      const names = Array.from({ length: count }, (_, index) => {
        const address = addresses.getBigUint64(index * 8, true)
        const symbol = this.kernel.symbolAt(address)
        return symbol === undefined ? hex(address) : `${symbol.name}+${hex(symbol.offset)}`
      })
      return { target: { ...attachment("functions", ""), names } }
    })
  }

  private uprobes(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, this.layouts.uprobes(), ({ at }) => at.link)
      const uprobe = yield* Either.mapLeft(this.layouts.uprobe(), toReason)
      const count = view.getUint32(layout.at.cnt, true)
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} uprobes`))
      const path = yield* this.pathOf(view.getBigUint64(layout.at["path.dentry"], true))
      const names: Array<string> = []
      for (let index = 0; index < count; index++) {
        const at = view.getBigUint64(layout.at.uprobes, true) + BigInt(index * uprobe.size + uprobe.at.offset)
        const offset = this.kernel.space.u64(at)
        if (offset === undefined) return yield* this.fault()
        names.push(`${path}+${hex(offset)}`)
      }
      return { target: { ...attachment("uprobes", ""), names } }
    })
  }

  /** A file's path inside its file system; include/linux/dcache.h `struct dentry`, v6.12. */
  private pathOf(dentry: bigint): Found<string> {
    return Either.gen(this, function*() {
      const names: Array<string> = []
      const seen = new Set<bigint>()
      for (let at = dentry;;) {
        if (seen.has(at) || seen.size > 4096) {
          return yield* Either.left(corrupted(`directories without end at ${hex(at)}`))
        }
        seen.add(at)
        const parent = yield* this.field(at, this.layouts.dentry(), (layout) => layout.at.d_parent)
        if (parent === at) return `/${names.reverse().join("/")}`
        const name = yield* this.field(at, this.layouts.dentry(), (layout) => layout.at["d_name.name"])
        names.push(yield* this.reader.text(name))
        at = parent
      }
    })
  }

  private structOps(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, this.layouts.structOps(), ({ at }) => at.link)
      const map = view.getBigUint64(layout.at.map, true)
      if (map === 0n) return { target: null }
      const { id, name } = yield* this.mapAt(map)
      return { target: attachment("struct_ops", name, id) }
    })
  }

  private sockmap(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.around(link, this.layouts.sockmap(), ({ at }) => at.link)
      const map = view.getBigUint64(layout.at.map, true)
      const typed = this.typed(view, layout.at.attach_type)
      if (map === 0n) return { ...typed, target: null }
      const { id, name } = yield* this.mapAt(map)
      return { ...typed, target: attachment("map", name, id) }
    })
  }

  private mapAt(address: bigint): Found<{ readonly id: number; readonly name: string }> {
    const found = this.layouts.map()
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const { at, sizeOf } = found.right
    const view = structAt(this.kernel.space, found.right, address)
    return view === undefined
      ? this.fault()
      : Either.right({ id: view.getUint32(at.id, true), name: textIn(view, at.name, sizeOf.name) })
  }

  private netfilter(link: bigint): Found<Attached> {
    return Either.gen(this, function*() {
      const { layout: { at }, view } = yield* this.around(link, this.layouts.netfilter(), ({ at }) => at.link)
      if (view.getUint32(at.dead, true) !== 0) return { target: null }
      const protocol = view.getUint8(at["hook_ops.pf"])
      const hook = view.getUint32(at["hook_ops.hooknum"], true)
      const name = hookName(protocol, hook, view.getInt32(at["hook_ops.priority"], true))
      return { target: attachment("netfilter", name, yield* this.inodeOf(view.getBigUint64(at.net, true))) }
    })
  }
}

/** include/uapi/linux/netfilter.h `NFPROTO_*`, `enum nf_inet_hooks`, v6.12 */
const PROTOCOLS = new Map([[2, "ipv4"], [10, "ipv6"]])
const HOOKS = ["prerouting", "input", "forward", "output", "postrouting"]

/** `ipv4 input priority -128` */
export const hookName = (protocol: number, hook: number, priority: number): string =>
  `${PROTOCOLS.get(protocol) ?? `protocol ${protocol}`} ${HOOKS[hook] ?? `hook ${hook}`} priority ${priority}`

export const attachment = (kind: Attachment["kind"], name: string, id: Count | null = null): Attachment => ({
  kind,
  names: [name],
  id,
  netns: null
})

const field = (json: Json, name: string): Json | undefined =>
  typeof json === "object" && json !== null && !Array.isArray(json)
    ? (json as { readonly [key: string]: Json })[name]
    : undefined
