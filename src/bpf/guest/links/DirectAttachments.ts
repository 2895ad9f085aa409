import * as Either from "effect/Either"
import { enumNames } from "../../../btf/EnumNames.ts"
import { layout } from "../../../btf/Layout.ts"
import { within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import { listNodes } from "../../../memory/structs/ListHead.ts"
import type { Read } from "../../../memory/structs/StructReader.ts"
import type { Attached } from "../../Attachment.ts"
import type { Link } from "../../Link.ts"
import type { Listing } from "../../MapAccessor.ts"
import type { LinkReader } from "./LinkReader.ts"

/**
 * Programs attached without a link: to cgroups by BPF_PROG_ATTACH, to network devices as XDP by netlink, as tcx by
 * BPF_PROG_ATTACH. Not found: classic tc filters and actions, sockets' filters, flow dissectors.
 */
export class DirectAttachments {
  private readonly items: Array<Link> = []
  private readonly problems = new WalkProblems()
  private readonly kernel: GuestKernelService

  constructor(private readonly links: LinkReader) {
    this.kernel = links.kernel
  }

  list(): Listing<Link> {
    this.cgroups()
    this.devices()
    return { items: this.items, problems: this.problems.list }
  }

  private add(type: string, program: bigint, attached: Read<Attached>): void {
    this.items.push(this.links.link(null, type, program, attached))
  }

  /** As `listNodes`. */
  private nodes(what: string, head: bigint, end = head): ReadonlyArray<bigint> {
    const { nodes, problem } = listNodes(this.kernel.space, head, end)
    if (problem !== undefined) this.problems.add(within(what, problem))
    return nodes
  }

  private unread(what: string): void {
    this.problems.add(within(what, this.kernel.space.faultReason))
  }

  /**
   * Every cgroup of the unified hierarchy, parents first.
   * @see include/linux/cgroup-defs.h `struct cgroup`, include/linux/bpf-cgroup-defs.h `struct cgroup_bpf`, kernel/bpf/cgroup.c;
   * v6.1 to v6.18
   */
  private cgroups(): void {
    const { btf, space } = this.kernel
    const root = this.kernel.symbol("cgrp_dfl_root")
    const found = Either.gen(function*() {
      return {
        root: yield* layout(btf, "cgroup_root", ["cgrp"]),
        cgroup: yield* layout(btf, "cgroup", ["self.children", "self.sibling", "bpf.progs"]),
        entry: yield* layout(btf, "bpf_prog_list", ["node", "prog", "link"])
      }
    })
    // A kernel without cgroups, or without programs in them, has none to list.
    if (root === undefined || Either.isLeft(found)) return
    const { cgroup: { arrays, at }, entry, root: { at: rootAt } } = found.right
    const slots = arrays["bpf.progs"]?.count ?? 0
    const names = enumNames(btf, "cgroup_bpf_attach_type", "CGROUP_")
    const queue = [root + BigInt(rootAt.cgrp)]
    const seen = new Set(queue)
    for (let next = 0; next < queue.length; next++) {
      const cgroup = queue[next]
      for (const sibling of this.nodes("cgroups", cgroup + BigInt(at["self.children"]))) {
        const child = sibling - BigInt(at["self.sibling"])
        if (!seen.has(child)) queue.push(child)
        seen.add(child)
      }
      for (let slot = 0; slot < slots; slot++) {
        for (const node of this.nodes("a cgroup's programs", cgroup + BigInt(at["bpf.progs"] + slot * 8), 0n)) {
          const start = node - BigInt(entry.at.node)
          const program = space.u64(start + BigInt(entry.at.prog))
          const link = space.u64(start + BigInt(entry.at.link))
          if (program === undefined || link === undefined) this.unread("a cgroup's program")
          else if (program !== 0n && link === 0n) {
            const attachType = `cgroup_${names.get(slot) ?? `attach type ${slot}`}`
            this.add("cgroup", program, Either.map(this.links.cgroupAt(cgroup), (target) => ({ target, attachType })))
          }
        }
      }
    }
  }

  /**
   * Every network device of every namespace.
   * @see include/linux/netdevice.h `struct net_device`, `struct bpf_xdp_entity`, v6.1 to v6.18; include/linux/bpf_mprog.h
   * `struct bpf_mprog_entry`, since v6.6
   */
  private devices(): void {
    const { btf, space } = this.kernel
    const namespaces = this.kernel.symbol("net_namespace_list")
    const found = Either.gen(function*() {
      return {
        net: yield* layout(btf, "net", ["list", "dev_base_head"]),
        device: yield* layout(btf, "net_device", ["dev_list"], ["xdp_state", "tcx_ingress", "tcx_egress"]),
        xdp: yield* layout(btf, "bpf_xdp_entity", ["prog", "link"])
      }
    })
    if (namespaces === undefined || Either.isLeft(found)) return
    const { device: { arrays, at }, net, xdp } = found.right
    for (const node of this.nodes("network namespaces", namespaces)) {
      const devices = node - BigInt(net.at.list) + BigInt(net.at.dev_base_head)
      for (const entry of this.nodes("network devices", devices)) {
        const device = entry - BigInt(at.dev_list)
        for (let mode = 0; at.xdp_state !== undefined && mode < (arrays.xdp_state?.count ?? 0); mode++) {
          const state = device + BigInt(at.xdp_state + mode * xdp.size)
          const program = space.u64(state + BigInt(xdp.at.prog))
          const link = space.u64(state + BigInt(xdp.at.link))
          if (program === undefined || link === undefined) this.unread("a device's XDP programs")
          else if (program !== 0n && link === 0n) {
            this.add("xdp", program, Either.map(this.links.deviceAt(device), (target) => ({ target })))
          }
        }
        if (at.tcx_ingress !== undefined) this.tcx(device, at.tcx_ingress, "tcx_ingress")
        if (at.tcx_egress !== undefined) this.tcx(device, at.tcx_egress, "tcx_egress")
      }
    }
  }

  private tcx(device: bigint, field: number, attachType: string): void {
    const { btf, space } = this.kernel
    const entry = layout(btf, "bpf_mprog_entry", ["fp_items", "parent"])
    const bundle = layout(btf, "bpf_mprog_bundle", ["cp_items"])
    const programs = space.u64(device + BigInt(field))
    if (programs === undefined) return this.unread("a device's tcx programs")
    if (programs === 0n || Either.isLeft(entry) || Either.isLeft(bundle)) return
    const parent = space.u64(programs + BigInt(entry.right.at.parent))
    if (parent === undefined) return this.unread("a device's tcx programs")
    for (let index = 0; index < (entry.right.arrays.fp_items?.count ?? 0); index++) {
      const program = space.u64(programs + BigInt(entry.right.at.fp_items + index * 8))
      const link = space.u64(parent + BigInt(bundle.right.at.cp_items + index * 8))
      if (program === undefined || link === undefined) return this.unread("a device's tcx programs")
      if (program === 0n) return
      if (link !== 0n) continue
      this.add("tcx", program, Either.map(this.links.deviceAt(device), (target) => ({ target, attachType })))
    }
  }
}
