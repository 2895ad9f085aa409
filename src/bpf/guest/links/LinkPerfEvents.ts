import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { enumNames } from "../../../btf/EnumNames.ts"
import { layout } from "../../../btf/Layout.ts"
import { hex } from "../../../core/Address.ts"
import { lazily } from "../../../core/Lazily.ts"
import { toReason } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import { type Read, StructReader } from "../../../memory/structs/StructReader.ts"
import type { Attachment } from "../../Link.ts"

/** `TRACE_EVENT_FL_*`, whose enum has no name and whose bits move; include/linux/trace_events.h, v6.1 and v6.12. */
const eventFlags = (btf: Btf): ReadonlyMap<string, number> => {
  for (let id = 1; id < btf.endId; id++) {
    if (btf.nameOf(id) !== "") continue
    const type = btf.type(id)
    if (type?.kind !== "ENUM" || !type.values.some(({ name }) => name === "TRACE_EVENT_FL_TRACEPOINT")) continue
    return new Map(type.values.map(({ name, value }) => [name, Number(value)]))
  }
  return new Map()
}

/** The targets of programs attached to perf events: kprobes, uprobes, tracepoints, counters. */
export class LinkPerfEvents {
  private readonly flags = lazily(() => eventFlags(this.kernel.btf))
  private readonly types = lazily(() => enumNames(this.kernel.btf, "perf_type_id", "PERF_TYPE_"))
  private readonly software = lazily(() => enumNames(this.kernel.btf, "perf_sw_ids", "PERF_COUNT_SW_"))
  private readonly hardware = lazily(() => enumNames(this.kernel.btf, "perf_hw_id", "PERF_COUNT_HW_"))
  private readonly layouts = lazily(() => {
    const { btf } = this.kernel
    return Either.gen(function*() {
      return {
        // kernel/bpf/syscall.c, include/linux/fs.h, include/linux/perf_event.h, v6.12
        link: yield* layout(btf, "bpf_perf_link", ["link", "perf_file"]),
        file: yield* layout(btf, "file", ["private_data"]),
        event: yield* layout(btf, "perf_event", ["attr.type", "attr.config", "tp_event"]),
        // include/linux/trace_events.h, include/linux/tracepoint-defs.h, v6.12
        call: yield* layout(btf, "trace_event_call", ["class", "name", "flags"]),
        class: yield* layout(btf, "trace_event_class", ["system"]),
        tracepoint: yield* layout(btf, "tracepoint", ["name"])
      }
    })
  })
  /** kernel/trace/trace_probe.h, trace_kprobe.c, trace_uprobe.c, v6.12 */
  private readonly probe = lazily(() => layout(this.kernel.btf, "trace_probe_event", ["call", "probes"]))
  private readonly kprobe = lazily(() =>
    layout(this.kernel.btf, "trace_kprobe", ["rp.handler", "rp.kp.addr", "rp.kp.offset", "symbol", "tp.list"])
  )
  private readonly uprobe = lazily(() =>
    layout(this.kernel.btf, "trace_uprobe", ["consumer.ret_handler", "filename", "offset", "tp.list"])
  )

  private readonly reader: StructReader

  constructor(private readonly kernel: GuestKernelService) {
    this.reader = new StructReader(kernel.space)
  }

  /** The target of the `struct bpf_link` at an address, whose type is `perf_event`. */
  ofLink(link: bigint): Read<Attachment> {
    return Either.gen(this, function*() {
      const { event, file, link: { at } } = yield* Either.mapLeft(this.layouts(), toReason)
      const opened = yield* this.reader.u64(link + BigInt(at.perf_file - at.link))
      const address = yield* this.reader.u64(opened + BigInt(file.at.private_data))
      const found = yield* this.reader.struct(event, address)
      const call = found.u64("tp_event")
      if (call !== 0n) return yield* this.traced(call)
      return named("perf_event", this.counter(found.uint("attr.type"), found.u64("attr.config")))
    })
  }

  private counter(type: number, config: bigint): string {
    const name = this.types().get(type) ?? `type ${type}`
    const counters = { software: this.software, hardware: this.hardware }[name]
    return `${name}:${counters?.().get(Number(config)) ?? hex(config)}`
  }

  private traced(call: bigint): Read<Attachment> {
    return Either.gen(this, function*() {
      const { call: callLayout, class: { at: classAt }, tracepoint } = yield* Either.mapLeft(this.layouts(), toReason)
      const found = yield* this.reader.struct(callLayout, call)
      const flags = found.uint("flags")
      const has = (flag: string): boolean => (flags & (this.flags().get(`TRACE_EVENT_FL_${flag}`) ?? 0)) !== 0
      if (has("KPROBE")) return yield* this.kprobeOf(call)
      if (has("UPROBE")) return yield* this.uprobeOf(call)
      const name = found.u64("name")
      const text = has("TRACEPOINT") ? yield* this.reader.u64(name + BigInt(tracepoint.at.name)) : name
      const system = yield* this.reader.u64(found.u64("class") + BigInt(classAt.system))
      return named("tracepoint", `${yield* this.reader.text(system)}:${yield* this.reader.text(text)}`)
    })
  }

  /** The first probe of the event that contains a `trace_event_call`: the address of its `trace_probe.list`. */
  private firstProbe(call: bigint): Read<bigint> {
    return Either.flatMap(
      Either.mapLeft(this.probe(), toReason),
      ({ at }) => this.reader.u64(call + BigInt(at.probes - at.call))
    )
  }

  private kprobeOf(call: bigint): Read<Attachment> {
    return Either.gen(this, function*() {
      const kprobe = yield* Either.mapLeft(this.kprobe(), toReason)
      const found = yield* this.reader.struct(kprobe, (yield* this.firstProbe(call)) - BigInt(kprobe.at["tp.list"]))
      const symbol = found.u64("symbol")
      const where = symbol === 0n
        ? hex(found.u64("rp.kp.addr")) // given as an address
        : `${yield* this.reader.text(symbol)}+${hex(found.uint("rp.kp.offset"))}`
      return named(found.u64("rp.handler") === 0n ? "kprobe" : "kretprobe", where)
    })
  }

  private uprobeOf(call: bigint): Read<Attachment> {
    return Either.gen(this, function*() {
      const uprobe = yield* Either.mapLeft(this.uprobe(), toReason)
      const found = yield* this.reader.struct(uprobe, (yield* this.firstProbe(call)) - BigInt(uprobe.at["tp.list"]))
      const file = yield* this.reader.text(found.u64("filename"))
      const isReturn = found.u64("consumer.ret_handler") !== 0n
      return named(isReturn ? "uretprobe" : "uprobe", `${file}+${hex(found.u64("offset"))}`)
    })
  }
}

const named = (kind: Attachment["kind"], name: string): Attachment => ({ kind, names: [name], id: null, netns: null })
