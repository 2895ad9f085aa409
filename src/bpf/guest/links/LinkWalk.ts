import * as Either from "effect/Either"
import { enumNames } from "../../../btf/EnumNames.ts"
import { layout } from "../../../btf/Layout.ts"
import { hex, kvaFrom } from "../../../core/Address.ts"
import { absent, corrupted, toReason, unsupported, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { ARRAY_LIMIT, type Read, structAt } from "../../../memory/structs/StructReader.ts"
import { idrLayout, walkIdr } from "../../../memory/structs/Xarray.ts"
import { type Attached, attachment, hookName } from "../../Attachment.ts"
import type { Attachment, Link } from "../../Link.ts"
import type { Listing } from "../../MapAccessor.ts"
import { LinkPerfEvents } from "./LinkPerfEvents.ts"
import type { LinkReader } from "./LinkReader.ts"

/** Reads the links of `link_idr`. Not for hot loops. */
export class LinkWalk {
  private readonly perfEvents: LinkPerfEvents

  constructor(private readonly links: LinkReader) {
    this.perfEvents = new LinkPerfEvents(links.kernel)
  }

  list(): Listing<Link> {
    const { kernel } = this.links
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
      items.push(this.links.link(id, type, view.getBigUint64(at.prog, true), this.attached(type, where)))
    })
    return { items, problems: [...problems.map((problem) => within("link_idr", problem)), ...broken.list] }
  }

  /** The target of the link at an address. */
  private attached(type: string, link: bigint): Read<Attached> {
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
        return this.device(link, this.links.layouts.xdp())
      case "tcx":
        return this.device(link, this.links.layouts.tcx())
      case "netkit":
        return this.device(link, this.links.layouts.netkit())
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

  private rawTracepoint(link: bigint): Read<Attached> {
    const { layouts } = this.links
    return this.links.around(link, layouts.rawTracepoint(), ({ at }) => at.link).pipe(
      Either.flatMap(({ layout, view }) =>
        this.links.field(view.getBigUint64(layout.at.btp, true), layouts.rawEvent(), ({ at }) => at.tp)
      ),
      Either.flatMap((tracepoint) => this.links.field(tracepoint, layouts.tracepoint(), ({ at }) => at.name)),
      Either.flatMap((name) => this.links.reader.text(name)),
      Either.map((name) => ({ target: attachment("tracepoint", name) }))
    )
  }

  /** @see include/linux/bpf_verifier.h `bpf_trampoline_compute_key`, v6.12 */
  private tracing(link: bigint): Read<Attached> {
    const { layouts, programs } = this.links
    return Either.flatMap(
      this.links.around(link, layouts.tracing(), ({ at }) => at["link.link"]),
      ({ layout, view }) => {
        const type = layout.at.attach_type === undefined ? 0 : view.getUint32(layout.at.attach_type, true)
        const typed = type === 0 ? {} : { attachType: programs.attachName(type) }
        const program = view.getBigUint64(layout.at.tgt_prog, true)
        if (program === 0n) {
          return Either.map(this.ownTarget(link), (target) => ({ ...typed, target }))
        }
        const id = programs.idOf(program)
        if (id === undefined) return this.links.fault()
        return Either.gen(this, function*() {
          const trampoline = view.getBigUint64(layout.at.trampoline, true)
          const key = yield* this.links.field(trampoline, layouts.trampoline(), ({ at }) => at.key)
          const { btf } = yield* programs.typesOf(program)
          return { ...typed, target: attachment("function", btf.nameOf(Number(key & 0x7fff_ffffn)), id) }
        })
      }
    )
  }

  /** The target of the link's own program. */
  private ownTarget(link: bigint): Read<Attachment> {
    return this.links.field(link, layout(this.links.kernel.btf, "bpf_link", ["prog"]), ({ at }) => at.prog).pipe(
      Either.flatMap((program) => this.links.programs.read(program)),
      Either.flatMap(({ id, target }) =>
        target === null
          ? Either.left(absent(`program ${id} does not say what it is for`))
          : Either.right(
            attachment(target.kind === "tracepoint" ? "tracepoint" : "function", target.name, target.program)
          )
      )
    )
  }

  private cgroup(link: bigint): Read<Attached> {
    return Either.flatMap(
      this.links.around(link, this.links.layouts.cgroup(), ({ at }) => at.link),
      ({ layout, view }) =>
        Either.map(this.links.cgroupAt(view.getBigUint64(layout.at.cgroup, true)), (target) => ({
          ...this.links.typed(view, layout.at.type),
          target
        }))
    )
  }

  private iterator(link: bigint): Read<Attached> {
    const { layouts } = this.links
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, layouts.iterator(), ({ at }) => at.link)
      const kind = yield* this.links.field(
        view.getBigUint64(layout.at.tinfo, true),
        layouts.iteratorTarget(),
        ({ at }) => at.reg_info
      )
      const text = yield* this.links.field(kind, layouts.iteratorKind(), ({ at }) => at.target)
      const name = yield* this.links.reader.text(text)
      const map = layout.at["aux.map"] === undefined ? 0n : view.getBigUint64(layout.at["aux.map"], true)
      return { target: attachment("iterator", name, map === 0n ? null : (yield* this.links.mapAt(map)).id) }
    })
  }

  private netns(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, this.links.layouts.netns(), ({ at }) => at.link)
      const net = view.getBigUint64(layout.at.net, true)
      const inode = net === 0n ? null : yield* this.links.inodeOf(net)
      const target = inode === null ? null : attachment("netns", `net:[${inode}]`, inode)
      return { ...this.links.typed(view, layout.at.type), target }
    })
  }

  private device<
    L extends { readonly size: number; readonly at: { link: number; dev: number; location?: number | undefined } }
  >(
    link: bigint,
    found: Either.Either<L, { readonly message: string }>
  ): Read<Attached> {
    return Either.flatMap(
      this.links.around(link, found, ({ at }) => at.link),
      ({ layout: { at }, view }) =>
        Either.map(this.links.deviceAt(view.getBigUint64(at.dev, true)), (target) => ({
          ...this.links.typed(view, at.location),
          target
        }))
    )
  }

  private functions(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, this.links.layouts.functions(), ({ at }) => at.link)
      const count = view.getUint32(layout.at.cnt, true)
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} functions`))
      const bytes = this.links.kernel.space.read(view.getBigUint64(layout.at.addrs, true), count * 8)
      if (bytes === undefined) return yield* this.links.fault()
      const addresses = new DataView(bytes.buffer)
      const names = Array.from({ length: count }, (_, index) => {
        const address = addresses.getBigUint64(index * 8, true)
        const symbol = this.links.kernel.symbolAt(address)
        return symbol === undefined ? hex(address) : `${symbol.name}+${hex(symbol.offset)}`
      })
      return { target: { ...attachment("functions", ""), names } }
    })
  }

  private uprobes(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, this.links.layouts.uprobes(), ({ at }) => at.link)
      const uprobe = yield* Either.mapLeft(this.links.layouts.uprobe(), toReason)
      const count = view.getUint32(layout.at.cnt, true)
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} uprobes`))
      const path = yield* this.pathOf(view.getBigUint64(layout.at["path.dentry"], true))
      const names: Array<string> = []
      for (let index = 0; index < count; index++) {
        const at = view.getBigUint64(layout.at.uprobes, true) + BigInt(index * uprobe.size + uprobe.at.offset)
        const offset = this.links.kernel.space.u64(at)
        if (offset === undefined) return yield* this.links.fault()
        names.push(`${path}+${hex(offset)}`)
      }
      return { target: { ...attachment("uprobes", ""), names } }
    })
  }

  /** A file's path inside its file system; include/linux/dcache.h `struct dentry`, v6.12. */
  private pathOf(dentry: bigint): Read<string> {
    return Either.gen(this, function*() {
      const names: Array<string> = []
      const seen = new Set<bigint>()
      for (let at = dentry;;) {
        if (seen.has(at) || seen.size > 4096) {
          return yield* Either.left(corrupted(`directories without end at ${hex(at)}`))
        }
        seen.add(at)
        const parent = yield* this.links.field(at, this.links.layouts.dentry(), (layout) => layout.at.d_parent)
        if (parent === at) return `/${names.reverse().join("/")}`
        const name = yield* this.links.field(at, this.links.layouts.dentry(), (layout) => layout.at["d_name.name"])
        names.push(yield* this.links.reader.text(name))
        at = parent
      }
    })
  }

  private structOps(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, this.links.layouts.structOps(), ({ at }) => at.link)
      const map = view.getBigUint64(layout.at.map, true)
      if (map === 0n) return { target: null }
      const { id, name } = yield* this.links.mapAt(map)
      return { target: attachment("struct_ops", name, id) }
    })
  }

  private sockmap(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout, view } = yield* this.links.around(link, this.links.layouts.sockmap(), ({ at }) => at.link)
      const map = view.getBigUint64(layout.at.map, true)
      const typed = this.links.typed(view, layout.at.attach_type)
      if (map === 0n) return { ...typed, target: null }
      const { id, name } = yield* this.links.mapAt(map)
      return { ...typed, target: attachment("map", name, id) }
    })
  }

  private netfilter(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const { layout: { at }, view } = yield* this.links.around(
        link,
        this.links.layouts.netfilter(),
        ({ at }) => at.link
      )
      if (view.getUint32(at.dead, true) !== 0) return { target: null }
      const protocol = view.getUint8(at["hook_ops.pf"])
      const hook = view.getUint32(at["hook_ops.hooknum"], true)
      const name = hookName(protocol, hook, view.getInt32(at["hook_ops.priority"], true))
      return { target: attachment("netfilter", name, yield* this.links.inodeOf(view.getBigUint64(at.net, true))) }
    })
  }
}
