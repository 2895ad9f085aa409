import * as Schema from "effect/Schema"
import { Reason } from "../core/Reason.ts"
import { Count } from "./Program.ts"

/**
 * The target of an attached program. `names` holds one name, except for `functions` and `uprobes`: a cgroup's path, a
 * network device's or tracepoint's name, `net:[INODE]`, `FUNCTION+0xOFFSET`, `FILE+0xOFFSET` (a path in its own file
 * system where the kernel keeps no other), an iterator's target, a map's name, `PROTOCOL HOOK priority N` of netfilter,
 * `software:NAME` of a perf event.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Attachment = Schema.Struct({
  kind: Schema.Literal(
    "cgroup",
    "netdev",
    "netns",
    "netfilter",
    "tracepoint",
    "function",
    "functions",
    "kprobe",
    "kretprobe",
    "uprobe",
    "uretprobe",
    "uprobes",
    "perf_event",
    "iterator",
    "struct_ops",
    "map"
  ),
  names: Schema.Array(Schema.String),
  id: Schema.NullOr(Count).annotations({
    description:
      "a cgroup's or map's id, a device's index, a namespace's inode; of a function: the BPF program's that has it"
  }),
  netns: Schema.NullOr(Count).annotations({ description: "of a device: the inode of its network namespace" })
}).annotations({ identifier: "Attachment" })
/**
 * The type that the Schema `Attachment` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Attachment = typeof Attachment.Type

/**
 * A program and what it is attached to: a link of `link_idr`, or (`id` null) one of the attachments that have none:
 * cgroups' by BPF_PROG_ATTACH, XDP programs by netlink, tcx programs by BPF_PROG_ATTACH.
 * @see include/linux/bpf.h `struct bpf_link` and those that contain it; v6.1 to v6.18
 * @since 0.1.0
 * @category schemas
 */
export class Link extends Schema.Class<Link>("ktstr/Link")({
  id: Schema.NullOr(Schema.Int).annotations({
    description: "the kernel's id of the link; null: attached without a link"
  }),
  type: Schema.String.annotations({ description: "enum bpf_link_type in bpftool's spelling, or `type N`" }),
  programId: Schema.NullOr(Schema.Int),
  programName: Schema.NullOr(Schema.String),
  attachType: Schema.NullOr(Schema.String).annotations({
    description: "enum bpf_attach_type; null: the type says it all"
  }),
  target: Schema.NullOr(Attachment).annotations({ description: "null: it was detached, or `problem` says why not" }),
  problem: Schema.NullOr(Reason)
}) {}
