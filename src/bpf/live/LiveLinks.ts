import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { enumNames } from "../../btf/EnumNames.ts"
import { KernelStruct } from "../../btf/KernelStruct.ts"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex } from "../../core/Address.ts"
import { cString } from "../../core/CString.ts"
import { errnoName } from "../../core/Errors.ts"
import { lazily } from "../../core/Lazily.ts"
import { absent, type Reason, toReason, unreadable, unsupported, within } from "../../core/Reason.ts"
import { type Attached, attachment, hookName } from "../Attachment.ts"
import { type Attachment, Link } from "../Link.ts"
import { INFO_BYTES, LinkInfoAt } from "./calls/BpfAbi.ts"
import type { BpfCalls, CallBuffer } from "./calls/BpfCalls.ts"
import { discover, type Discovered } from "./calls/Discovery.ts"
import type { LiveBtf } from "./calls/LiveBtf.ts"
import type { LivePrograms } from "./LivePrograms.ts"
import { interfaceName, type LiveObjects } from "./walks/LiveObjects.ts"
import { cgroupPaths, cgroupRoot, inodeOf } from "./walks/OwnerWalk.ts"

/** Room for a name or path: `PATH_MAX` of include/uapi/linux/limits.h. */
const NAME_ROOM = 4096
/** Limit of functions or offsets read of one link. */
const MOST_PLACES = 65536

/** From the running kernel's own BTF: a kernel does not report the fields that it lacks. */
const infoLayout = memoizeByBtf((btf) =>
  layout(btf, "bpf_link_info", [], [
    ["raw_tracepoint.tp_name", "raw_tracepoint.tp_name_len"],
    ["tracing.attach_type", "tracing.target_obj_id", "tracing.target_btf_id"],
    ["cgroup.cgroup_id", "cgroup.attach_type"],
    ["iter.target_name", "iter.target_name_len", "iter.map.map_id"],
    ["netns.netns_ino", "netns.attach_type"],
    "xdp.ifindex",
    "struct_ops.map_id",
    ["netfilter.pf", "netfilter.hooknum", "netfilter.priority"],
    ["kprobe_multi.addrs", "kprobe_multi.count"],
    ["uprobe_multi.path", "uprobe_multi.path_size", "uprobe_multi.offsets", "uprobe_multi.count"],
    [
      "perf_event.type",
      "perf_event.kprobe.func_name",
      "perf_event.kprobe.name_len",
      "perf_event.kprobe.offset",
      "perf_event.kprobe.addr",
      "perf_event.uprobe.offset",
      "perf_event.event.config",
      "perf_event.event.type"
    ],
    ["tcx.ifindex", "tcx.attach_type"],
    ["netkit.ifindex", "netkit.attach_type"],
    ["sockmap.map_id", "sockmap.attach_type"]
  ])
)
type Info = Either.Either.Right<ReturnType<typeof infoLayout>>
type Field = keyof Info["at"]

/**
 * Every link of the running kernel. What is attached without one is not found: bpf(2) has no list of it.
 * @see include/uapi/linux/bpf.h `struct bpf_link_info`, v6.12
 */
export const liveLinks = (
  calls: BpfCalls,
  btf: LiveBtf,
  objects: LiveObjects,
  programs: LivePrograms,
  mapName: (id: number) => string | undefined
): Discovered<Link> => {
  const found = infoLayout(btf.kernel)
  if (Either.isLeft(found)) return { items: [], problems: [within("links", toReason(found.left))], failed: 0 }
  const reader = new LinkReader(calls, btf, objects, programs, mapName, found.right)
  return discover(calls, "link", (fd) => {
    const read = reader.read(fd)
    if (typeof read === "string") return read
    const { attached, id, programId, type } = read
    const known = Either.getOrUndefined(attached)
    const program = programs.items.find((each) => each.id === programId)
    const item = new Link({
      id,
      type,
      programId: programId === 0 ? null : programId,
      programName: program?.name ?? null,
      attachType: known?.attachType ?? null,
      target: known?.target ?? null,
      problem: Either.isLeft(attached) ? attached.left : null
    }, true)
    return { item, keep: false }
  })
}

class LinkReader {
  private readonly info: CallBuffer
  private readonly fields: KernelStruct<never, Field>
  private readonly name = lazily(() => this.calls.buffer(NAME_ROOM))
  private readonly places = lazily(() => this.calls.buffer(MOST_PLACES * 8))
  private readonly types = lazily(() => this.named("bpf_link_type", "BPF_LINK_TYPE_"))
  private readonly attachTypes = lazily(() => this.named("bpf_attach_type", "BPF_"))
  private readonly eventTypes = lazily(() => this.named("bpf_perf_event_type", "BPF_PERF_EVENT_"))
  private cgroups: ReadonlyMap<number, string> | undefined

  constructor(
    private readonly calls: BpfCalls,
    private readonly btf: LiveBtf,
    private readonly objects: LiveObjects,
    private readonly programs: LivePrograms,
    private readonly mapName: (id: number) => string | undefined,
    private readonly layout: Info
  ) {
    this.info = calls.buffer(Math.max(INFO_BYTES.link, layout.size))
    this.fields = new KernelStruct(layout, this.info.view)
  }

  private named(enumName: string, prefix: string): ReadonlyMap<number, string> {
    return enumNames(this.btf.kernel, enumName, prefix)
  }

  read(fd: number) {
    const failed = this.ask(fd, () => undefined)
    if (failed !== undefined) return failed
    const { view } = this.info
    const number = view.getUint32(LinkInfoAt.type, true)
    const type = this.types().get(number) ?? `type ${number}`
    const id = view.getUint32(LinkInfoAt.id, true)
    const programId = view.getUint32(LinkInfoAt.prog_id, true)
    return { id, type, programId, attached: this.attached(fd, type) }
  }

  /** Ask again, with what `prepare` puts into the info; gives the reason if that fails. */
  private ask(fd: number, prepare: () => void): string | undefined {
    this.info.bytes.fill(0)
    prepare()
    const result = this.calls.info(fd, this.info)
    return result < 0 ? `BPF_OBJ_GET_INFO_BY_FD: ${errnoName(-result)}` : undefined
  }

  private has(field: Field): boolean {
    return this.layout.at[field] !== undefined
  }

  /** Let the kernel fill a buffer: its address goes to `field`, how much it holds to `size`. */
  private into(field: Field, buffer: CallBuffer, size: Field, room: number): void {
    this.info.view.setBigUint64(this.layout.at[field] ?? 0, buffer.address, true)
    this.info.view.setUint32(this.layout.at[size] ?? 0, room, true)
  }

  /** The text that the kernel puts where `field` points; asks again. */
  private text(fd: number, field: Field, size: Field): Either.Either<string, Reason> {
    this.name().bytes.fill(0)
    const failed = this.ask(fd, () => this.into(field, this.name(), size, NAME_ROOM))
    return failed === undefined
      ? Either.right(cString(this.name().bytes))
      : Either.left(unreadable(failed))
  }

  private typed(field: Field): { readonly attachType: string } {
    const number = this.fields.uint(field) ?? 0
    return { attachType: this.attachTypes().get(number) ?? `type ${number}` }
  }

  private attached(fd: number, type: string): Either.Either<Attached, Reason> {
    const untold = Either.left(unsupported(`this kernel does not report what links of type ${type} are attached to`))
    switch (type) {
      case "raw_tracepoint":
        if (!this.has("raw_tracepoint.tp_name")) return untold
        return Either.map(
          this.text(fd, "raw_tracepoint.tp_name", "raw_tracepoint.tp_name_len"),
          (name) => ({ target: attachment("tracepoint", name) })
        )
      case "tracing":
        return this.has("tracing.target_btf_id") ? this.tracing() : untold
      case "cgroup":
        return this.has("cgroup.cgroup_id") ? Either.right(this.cgroup()) : untold
      case "iter": {
        if (!this.has("iter.target_name")) return untold
        return Either.map(this.text(fd, "iter.target_name", "iter.target_name_len"), (name) => {
          const map = name.startsWith("bpf_map") || name.startsWith("bpf_sk_storage")
            ? (this.fields.uint("iter.map.map_id") ?? 0)
            : 0
          return { target: attachment("iterator", name, map === 0 ? null : map) }
        })
      }
      case "netns": {
        if (!this.has("netns.netns_ino")) return untold
        const inode = this.fields.uint("netns.netns_ino") ?? 0
        const target = inode === 0 ? null : attachment("netns", `net:[${inode}]`, inode)
        return Either.right({ ...this.typed("netns.attach_type"), target })
      }
      case "xdp":
        return this.has("xdp.ifindex") ? Either.right({ target: this.device("xdp.ifindex") }) : untold
      case "tcx":
      case "netkit":
        return this.has(`${type}.ifindex`)
          ? Either.right({ ...this.typed(`${type}.attach_type`), target: this.device(`${type}.ifindex`) })
          : untold
      case "perf_event":
        return this.has("perf_event.type") ? this.perfEvent(fd, untold) : untold
      case "kprobe_multi":
        return this.has("kprobe_multi.addrs") ? this.functions(fd) : untold
      case "uprobe_multi":
        return this.has("uprobe_multi.path") ? this.uprobes(fd) : untold
      case "struct_ops":
        return this.has("struct_ops.map_id")
          ? Either.right({ target: this.map("struct_ops", "struct_ops.map_id") })
          : untold
      case "sockmap":
        return this.has("sockmap.map_id")
          ? Either.right({ ...this.typed("sockmap.attach_type"), target: this.map("map", "sockmap.map_id") })
          : untold
      case "netfilter": {
        if (!this.has("netfilter.pf")) return untold
        const priority = this.fields.int("netfilter.priority") ?? 0
        const name = hookName(
          this.fields.uint("netfilter.pf") ?? 0,
          this.fields.uint("netfilter.hooknum") ?? 0,
          priority
        )
        return Either.right({ target: attachment("netfilter", name) })
      }
      default:
        return Either.left(unsupported(`the targets of ${type} links are not read`))
    }
  }

  /** Null for the id 0: the map is gone. */
  private map(kind: "struct_ops" | "map", field: Field): Attachment | null {
    const id = this.fields.uint(field) ?? 0
    return id === 0 ? null : attachment(kind, this.mapName(id) ?? "", id)
  }

  /** The target's function is in a BTF object of the kernel, or in that of the program whose number stands in its place. */
  private tracing(): Either.Either<Attached, Reason> {
    const object = this.fields.uint("tracing.target_obj_id") ?? 0
    const typeId = this.fields.uint("tracing.target_btf_id") ?? 0
    const typed = (this.fields.uint("tracing.attach_type") ?? 0) === 0 ? {} : this.typed("tracing.attach_type")
    if (!this.programs.extenders.has(this.info.view.getUint32(LinkInfoAt.prog_id, true))) {
      return Either.mapBoth(this.btf.byId(object), {
        onLeft: (why) => within("its target", why),
        onRight: (types) => ({ ...typed, target: functionOrTracepoint(types, typeId) })
      })
    }
    const btfId = this.programs.items.find(({ id }) => id === object)?.btfId ?? null
    if (btfId === null) return Either.left(absent(`its target, program ${object}, is not in the list`))
    return Either.mapBoth(this.btf.byId(btfId), {
      onLeft: (why) => within("its target", why),
      onRight: (types) => ({ ...typed, target: attachment("function", types.nameOf(typeId), object) })
    })
  }

  private cgroup(): Attached {
    this.cgroups ??= cgroupsByInode()
    const id = Number(this.fields.u64("cgroup.cgroup_id") ?? 0n)
    const typed = this.typed("cgroup.attach_type")
    return { ...typed, target: id === 0 ? null : attachment("cgroup", this.cgroups.get(id) ?? "", id) }
  }

  /** Null for the index 0: the device is gone. */
  private device(field: Field): Attachment | null {
    const ifindex = this.fields.uint(field) ?? 0
    return ifindex === 0 ? null : attachment("netdev", interfaceName(ifindex) ?? "", ifindex)
  }

  private functions(fd: number): Either.Either<Attached, Reason> {
    const failed = this.ask(fd, () => this.into("kprobe_multi.addrs", this.places(), "kprobe_multi.count", MOST_PLACES))
    if (failed !== undefined) return Either.left(unreadable(failed))
    const count = Math.min(this.fields.uint("kprobe_multi.count") ?? 0, MOST_PLACES)
    const names = Array.from({ length: count }, (_, index) => {
      const address = this.places().view.getBigUint64(index * 8, true)
      const symbol = this.objects.symbols.at(address)
      return symbol === undefined ? hex(address) : `${symbol.name}+${hex(symbol.offset)}`
    })
    return Either.right({ target: { ...attachment("functions", ""), names } })
  }

  private uprobes(fd: number): Either.Either<Attached, Reason> {
    this.name().bytes.fill(0)
    const failed = this.ask(fd, () => {
      this.into("uprobe_multi.path", this.name(), "uprobe_multi.path_size", NAME_ROOM)
      this.into("uprobe_multi.offsets", this.places(), "uprobe_multi.count", MOST_PLACES)
    })
    if (failed !== undefined) return Either.left(unreadable(failed))
    const path = cString(this.name().bytes)
    const count = Math.min(this.fields.uint("uprobe_multi.count") ?? 0, MOST_PLACES)
    const names = Array.from(
      { length: count },
      (_, index) => `${path}+${hex(this.places().view.getBigUint64(index * 8, true))}`
    )
    return Either.right({ target: { ...attachment("uprobes", ""), names } })
  }

  /** The names of all kinds stand in the same place: kernel/bpf/syscall.c `bpf_perf_link_fill_common`, v6.12. */
  private perfEvent(fd: number, untold: Either.Either<never, Reason>): Either.Either<Attached, Reason> {
    const kind = this.eventTypes().get(this.fields.uint("perf_event.type") ?? 0)
    const named = (tell: (name: string) => Attachment) =>
      Either.map(
        this.text(fd, "perf_event.kprobe.func_name", "perf_event.kprobe.name_len"),
        (name): Attached => ({ target: tell(name) })
      )
    switch (kind) {
      case "kprobe":
      case "kretprobe":
        return named((name) =>
          attachment(
            kind,
            name === ""
              ? hex(this.fields.u64("perf_event.kprobe.addr") ?? 0n)
              : `${name}+${hex(this.fields.uint("perf_event.kprobe.offset") ?? 0)}`
          )
        )
      case "uprobe":
      case "uretprobe":
        return named((name) => attachment(kind, `${name}+${hex(this.fields.uint("perf_event.uprobe.offset") ?? 0)}`))
      case "tracepoint":
        return named((name) => attachment(kind, name))
      case "event": {
        const type = this.named("perf_type_id", "PERF_TYPE_").get(this.fields.uint("perf_event.event.type") ?? 0)
        return Either.right({ target: attachment("perf_event", this.counter(type)) })
      }
      default:
        return untold
    }
  }

  private counter(type: string | undefined): string {
    const config = this.fields.u64("perf_event.event.config") ?? 0n
    const names = type === "software"
      ? this.named("perf_sw_ids", "PERF_COUNT_SW_")
      : type === "hardware"
      ? this.named("perf_hw_id", "PERF_COUNT_HW_")
      : undefined
    return `${type ?? `type ${(this.fields.uint("perf_event.event.type") ?? 0)}`}:${
      names?.get(Number(config)) ?? hex(config)
    }`
  }
}

const functionOrTracepoint = (types: Btf, typeId: number): Attachment =>
  types.type(typeId)?.kind === "TYPEDEF"
    ? attachment("tracepoint", types.nameOf(typeId).replace(/^btf_trace_/, ""))
    : attachment("function", types.nameOf(typeId))

/** The paths of cgroups by their directories' inode numbers, which are their ids. */
const cgroupsByInode = (): ReadonlyMap<number, string> => {
  const root = cgroupRoot()
  const paths = root === undefined ? [] : cgroupPaths(root)
  return new Map(paths.flatMap((path) => {
    const inode = inodeOf(path)
    return inode === undefined ? [] : [[inode, path.slice(root?.length) || "/"] as const]
  }))
}
