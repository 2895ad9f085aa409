import * as Either from "effect/Either"
import { enumNames } from "../../../btf/EnumNames.ts"
import type { KernelStruct } from "../../../btf/KernelStruct.ts"
import { type Layout, layout } from "../../../btf/Layout.ts"
import { hex, kvaFrom } from "../../../core/Address.ts"
import { absent, corrupted, toReason, unsupported, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { ARRAY_LIMIT, type Read } from "../../../memory/structs/StructReader.ts"
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
    const typeNames = enumNames(kernel.btf, "bpf_link_type", "BPF_LINK_TYPE_")
    const problems = walkIdr(kernel.space, shape.right, address, (id, page, offset) => {
      const where = kvaFrom(page, offset)
      const read = this.links.reader.struct(link.right, where)
      if (Either.isLeft(read)) return broken.add(within(`link ${id}`, read.left))
      const found = read.right.uint("id")
      if (found !== id) {
        return broken.add(corrupted(`link ${id}: the structure at ${hex(where)} says it is link ${found}`))
      }
      const number = read.right.uint("type")
      const type = typeNames.get(number) ?? `type ${number}`
      items.push(this.links.link(id, type, read.right.u64("prog"), this.attached(type, where)))
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
        return this.device(link, this.links.layouts.xdp(), () => undefined)
      case "tcx":
        return this.device(link, this.links.layouts.tcx(), (found) => found.uint("location"))
      case "netkit":
        return this.device(link, this.links.layouts.netkit(), (found) => found.uint("location"))
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
        return Either.left(unsupported(`the targets of ${type} links are not read`))
    }
  }

  private rawTracepoint(link: bigint): Read<Attached> {
    const { layouts } = this.links
    return this.links.around(link, layouts.rawTracepoint(), ({ at }) => at.link).pipe(
      Either.flatMap((found) => this.links.field(found.u64("btp"), layouts.rawEvent(), ({ at }) => at.tp)),
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
      (found) => {
        const type = found.uint("attach_type") ?? 0
        const typed = type === 0 ? {} : { attachType: programs.attachName(type) }
        const program = found.u64("tgt_prog")
        if (program === 0n) {
          return Either.map(this.ownTarget(link), (target) => ({ ...typed, target }))
        }
        const id = programs.idOf(program)
        if (id === undefined) return this.links.fault()
        return Either.gen(this, function*() {
          const trampoline = found.u64("trampoline")
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
      (found) =>
        Either.map(this.links.cgroupAt(found.u64("cgroup")), (target) => ({
          ...this.links.typed(found.uint("type")),
          target
        }))
    )
  }

  private iterator(link: bigint): Read<Attached> {
    const { layouts } = this.links
    return Either.gen(this, function*() {
      const found = yield* this.links.around(link, layouts.iterator(), ({ at }) => at.link)
      const kind = yield* this.links.field(
        found.u64("tinfo"),
        layouts.iteratorTarget(),
        ({ at }) => at.reg_info
      )
      const text = yield* this.links.field(kind, layouts.iteratorKind(), ({ at }) => at.target)
      const name = yield* this.links.reader.text(text)
      const map = found.u64("aux.map") ?? 0n
      return { target: attachment("iterator", name, map === 0n ? null : (yield* this.links.mapAt(map)).id) }
    })
  }

  private netns(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const found = yield* this.links.around(link, this.links.layouts.netns(), ({ at }) => at.link)
      const net = found.u64("net")
      const inode = net === 0n ? null : yield* this.links.inodeOf(net)
      const target = inode === null ? null : attachment("netns", `net:[${inode}]`, inode)
      return { ...this.links.typed(found.uint("type")), target }
    })
  }

  private device<Optional extends string>(
    link: bigint,
    layout: Either.Either<Layout<"link" | "dev", Optional>, { readonly message: string }>,
    location: (found: KernelStruct<"link" | "dev", Optional>) => number | undefined
  ): Read<Attached> {
    return Either.flatMap(
      this.links.around(link, layout, ({ at }) => at.link),
      (found) =>
        Either.map(this.links.deviceAt(found.u64("dev")), (target) => ({
          ...this.links.typed(location(found)),
          target
        }))
    )
  }

  private functions(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const found = yield* this.links.around(link, this.links.layouts.functions(), ({ at }) => at.link)
      const count = found.uint("cnt")
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} functions`))
      const bytes = this.links.kernel.space.read(found.u64("addrs"), count * 8)
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
      const found = yield* this.links.around(link, this.links.layouts.uprobes(), ({ at }) => at.link)
      const uprobe = yield* Either.mapLeft(this.links.layouts.uprobe(), toReason)
      const count = found.uint("cnt")
      if (count > ARRAY_LIMIT) return yield* Either.left(corrupted(`${count} uprobes`))
      const path = yield* this.pathOf(found.u64("path.dentry"))
      const names: Array<string> = []
      for (let index = 0; index < count; index++) {
        const at = found.u64("uprobes") + BigInt(index * uprobe.size + uprobe.at.offset)
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
          return yield* Either.left(corrupted(`directory loop at ${hex(at)}`))
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
      const found = yield* this.links.around(link, this.links.layouts.structOps(), ({ at }) => at.link)
      const map = found.u64("map")
      if (map === 0n) return { target: null }
      const { id, name } = yield* this.links.mapAt(map)
      return { target: attachment("struct_ops", name, id) }
    })
  }

  private sockmap(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const found = yield* this.links.around(link, this.links.layouts.sockmap(), ({ at }) => at.link)
      const map = found.u64("map")
      const typed = this.links.typed(found.uint("attach_type"))
      if (map === 0n) return { ...typed, target: null }
      const { id, name } = yield* this.links.mapAt(map)
      return { ...typed, target: attachment("map", name, id) }
    })
  }

  private netfilter(link: bigint): Read<Attached> {
    return Either.gen(this, function*() {
      const found = yield* this.links.around(
        link,
        this.links.layouts.netfilter(),
        ({ at }) => at.link
      )
      if (found.uint("dead") !== 0) return { target: null }
      const protocol = found.uint("hook_ops.pf")
      const hook = found.uint("hook_ops.hooknum")
      const name = hookName(protocol, hook, found.int("hook_ops.priority"))
      return { target: attachment("netfilter", name, yield* this.links.inodeOf(found.u64("net"))) }
    })
  }
}
