import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { layout } from "../../../btf/Layout.ts"
import { bpfMapOffsets } from "../../../btf/offsets/bpf/BpfMap.ts"
import { lazily } from "../../../core/Lazily.ts"

/** Where each type of link keeps what it is attached to. A missing type is an error only when such a link is found. */
export const linkLayouts = (btf: Btf) => ({
  /** kernel/trace/bpf_trace.c, include/linux/trace_events.h, v6.12 */
  rawTracepoint: lazily(() => layout(btf, "bpf_raw_tp_link", ["link", "btp"])),
  rawEvent: lazily(() => layout(btf, "bpf_raw_event_map", ["tp"])),
  tracepoint: lazily(() => layout(btf, "tracepoint", ["name"])),
  functions: lazily(() => layout(btf, "bpf_kprobe_multi_link", ["link", "addrs", "cnt"])),
  uprobes: lazily(() => layout(btf, "bpf_uprobe_multi_link", ["link", "path.dentry", "cnt", "uprobes"])),
  uprobe: lazily(() => layout(btf, "bpf_uprobe", ["offset"])),
  dentry: lazily(() => layout(btf, "dentry", ["d_parent", "d_name.name"])),
  /** include/linux/bpf.h; `attach_type` stands in `struct bpf_link` itself since v6.17 */
  tracing: lazily(() =>
    layout(btf, "bpf_tracing_link", ["link.link", "trampoline", "tgt_prog"], ["attach_type"], {
      attach_type: "link.link.attach_type"
    })
  ),
  trampoline: lazily(() => layout(btf, "bpf_trampoline", ["key"])),
  structOps: lazily(() => layout(btf, "bpf_struct_ops_link", ["link", "map"])),
  /** kernel/bpf/bpf_iter.c */
  iterator: lazily(() => layout(btf, "bpf_iter_link", ["link", "tinfo"], ["aux.map"])),
  iteratorTarget: lazily(() => layout(btf, "bpf_iter_target_info", ["reg_info"])),
  iteratorKind: lazily(() => layout(btf, "bpf_iter_reg", ["target"])),
  /** include/linux/bpf-cgroup-defs.h */
  cgroup: lazily(() => layout(btf, "bpf_cgroup_link", ["link", "cgroup"], ["type"], { type: "link.attach_type" })),
  /** net/core/dev.c, include/net/tcx.h, drivers/net/netkit.c */
  xdp: lazily(() => layout(btf, "bpf_xdp_link", ["link", "dev"])),
  tcx: lazily(() => layout(btf, "tcx_link", ["link", "dev"], ["location"], { location: "link.attach_type" })),
  netkit: lazily(() => layout(btf, "netkit_link", ["link", "dev"], ["location"], { location: "link.attach_type" })),
  device: lazily(() => layout(btf, "net_device", ["ifindex", "name", "nd_net.net"])),
  network: lazily(() => layout(btf, "net", ["ns.inum"])),
  /** kernel/bpf/net_namespace.c, net/netfilter/nf_bpf_link.c, net/core/sock_map.c */
  netns: lazily(() => layout(btf, "bpf_netns_link", ["link", "net"], ["type"], { type: "link.attach_type" })),
  netfilter: lazily(() =>
    layout(btf, "bpf_nf_link", ["link", "hook_ops.pf", "hook_ops.hooknum", "hook_ops.priority", "net", "dead"])
  ),
  sockmap: lazily(() =>
    layout(btf, "sockmap_link", ["link", "map"], ["attach_type"], { attach_type: "link.attach_type" })
  ),
  /** include/linux/bpf.h */
  map: lazily(() => Either.map(bpfMapOffsets.resolve(btf), ({ map }) => map))
})
