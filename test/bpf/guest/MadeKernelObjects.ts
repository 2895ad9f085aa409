import { type MadeDeclarations, MadeMaps } from "./MadeMaps.ts"

/** The structs of the objects that maps and links point at, smaller than real ones; v6.12. */
const declareObjects = ({ blob, byte, idr, int, list, long, longs, struct, text }: MadeDeclarations): void => {
  const short = blob.int("unsigned short", 2)
  struct("kernfs_node", 24, [["id", 0, long], ["name", 8, long], ["parent", 16, long]])
  struct("kernfs_root", 24, [["ino_idr", 0, idr]])
  const state = struct("cgroup_subsys_state", 32, [["sibling", 0, list], ["children", 16, list]])
  const programs = struct("cgroup_bpf", 24, [["progs", 0, longs(3)]])
  const cgroup = struct("cgroup", 64, [["self", 0, state], ["kn", 32, long], ["bpf", 40, programs]])
  struct("cgroup_root", 72, [["kf_root", 0, long], ["cgrp", 8, cgroup]])
  struct("bpf_prog_list", 32, [["node", 0, list], ["prog", 16, long], ["link", 24, long]])

  const common = struct("ns_common", 8, [["inum", 0, int]])
  struct("net", 40, [["ns", 0, common], ["list", 8, list], ["dev_base_head", 24, list]])
  const network = struct("possible_net_t", 8, [["net", 0, long]])
  const xdp = struct("bpf_xdp_entity", 16, [["prog", 0, long], ["link", 8, long]])
  struct("net_device", 96, [
    ["ifindex", 0, int],
    ["name", 4, text(16)],
    ["nd_net", 24, network],
    ["dev_list", 32, list],
    ["xdp_state", 48, blob.array(xdp, 2)],
    ["tcx_ingress", 80, long],
    ["tcx_egress", 88, long]
  ])
  struct("bpf_mprog_entry", 24, [["fp_items", 0, longs(2)], ["parent", 16, long]])
  struct("bpf_mprog_bundle", 16, [["cp_items", 0, longs(2)]])

  struct("super_block", 32, [["s_id", 0, text(32)]])
  const inode = struct("inode", 16, [["i_ino", 0, long], ["i_sb", 8, long]])
  const socket = struct("socket", 16, [])
  struct("socket_alloc", 32, [["socket", 0, socket], ["vfs_inode", 16, inode]])
  const sock = struct("sock_common", 56, [
    ["skc_daddr", 0, int],
    ["skc_rcv_saddr", 4, int],
    ["skc_dport", 8, short],
    ["skc_num", 10, short],
    ["skc_family", 12, short],
    ["skc_state", 14, byte],
    ["skc_cookie", 16, long],
    ["skc_v6_daddr", 24, text(16)],
    ["skc_v6_rcv_saddr", 40, text(16)]
  ])
  const whole = struct("sock", 72, [["__sk_common", 0, sock], ["sk_socket", 56, long], ["sk_protocol", 64, short]])

  const attributes = struct("perf_event_attr", 16, [["type", 0, int], ["config", 8, long]])
  struct("perf_event", 32, [["attr", 0, attributes], ["cpu", 16, int], ["tp_event", 24, long]])
  blob.enum32("perf_type_id", [["PERF_TYPE_HARDWARE", 0], ["PERF_TYPE_SOFTWARE", 1]])

  struct("bpf_event_entry", 16, [["event", 8, long]])
  struct("bpf_dtab", 104, [["netdev_map", 72, long], ["dev_index_head", 88, long], ["n_buckets", 96, int]])
  const hashed = struct("hlist_of_devices", 16, [["next", 0, long], ["pprev", 8, long]])
  struct("bpf_dtab_netdev", 48, [["dev", 0, long], ["index_hlist", 8, hashed], ["xdp_prog", 24, long], [
    "idx",
    32,
    int
  ], ["val", 36, text(8)]])
  struct("bpf_cpu_map", 80, [["cpu_map", 72, long]])
  const queue = struct("bpf_cpumap_val", 8, [["qsize", 0, int]])
  struct("bpf_cpu_map_entry", 24, [["cpu", 0, int], ["value", 4, queue], ["prog", 16, long]])
  struct("xsk_map", 72, [["xsk_map", 72, longs(0)]])
  struct("xdp_sock", 88, [["sk", 0, whole], ["dev", 72, long], ["queue_id", 80, short]])
  struct("bpf_stab", 80, [["sks", 72, long]])
  struct("reuseport_array", 72, [["ptrs", 72, longs(0)]])
  struct("bpf_shtab", 88, [["buckets", 72, long], ["buckets_num", 80, int]])
  const first = struct("hlist_of_sockets", 8, [["first", 0, long]])
  struct("bpf_shtab_bucket", 16, [["head", 0, first], ["lock", 8, int]])
  struct("bpf_shtab_elem", 32, [["node", 0, hashed], ["hash", 16, int], ["sk", 24, long], ["key", 32, text(0)]])
}

/** A kernel with objects that maps and links point at: what a method makes is put into its memory, and its address given. */
export class MadeKernelObjects extends MadeMaps {
  constructor(more: (declared: MadeDeclarations) => void = () => undefined) {
    super({
      types: (declared) => {
        declareObjects(declared)
        more(declared)
      },
      objects: { cgrp_dfl_root: 72, net_namespace_list: 16, bpf_kallsyms: 16 }
    })
  }

  text(text: string): bigint {
    const address = this.object(text.length + 1)
    this.put(address, Buffer.from(`${text}\0`))
    return address
  }

  /** A `struct kernfs_node`. */
  directory(id: number, name: string, parent = 0n): bigint {
    const address = this.object(24)
    this.set64(address, BigInt(id), this.text(name), parent)
    return address
  }

  /** A `struct cgroup`, alone in its list, without children or programs. */
  cgroup(directory: bigint): bigint {
    const address = this.object(64)
    for (const head of [address, address + 16n]) this.ring(head)
    this.set64(address + 32n, directory)
    return address
  }

  /** A `struct net`, in no list yet. */
  network(inode: number): bigint {
    const address = this.object(40)
    this.set32(address, inode)
    this.ring(address + 24n)
    return address
  }

  /** A `struct net_device`. */
  device(index: number, name: string, network = 0n): bigint {
    const address = this.object(96)
    this.set32(address, index)
    this.put(address + 4n, Buffer.from(name))
    this.set64(address + 24n, network)
    return address
  }

  /** A `struct sock` of AF_INET, 127.0.0.1 with a port to 10.0.0.2:443; at an address, or a fresh object. */
  socket(cookie: number, port: number, address = this.object(72)): bigint {
    this.put(address, Uint8Array.of(10, 0, 0, 2, 127, 0, 0, 1, 443 >> 8, 443 & 255, port & 255, port >> 8, 2, 0, 1))
    this.set64(address + 16n, BigInt(cookie))
    this.put(address + 64n, Uint8Array.of(6))
    return address
  }

  /** A `struct perf_event`. */
  event(type: number, config: number, cpu: number): bigint {
    const address = this.object(32)
    this.set32(address, type)
    this.set64(address + 8n, BigInt(config))
    this.set32(address + 16n, cpu)
    return address
  }

  /** A `struct bpf_prog` of prog_idr, which the ids of follow the order in which they are made. */
  program(name: string): bigint {
    const address = this.object(56)
    const aux = this.object(112)
    this.programs.push(address)
    this.set32(address, 26)
    this.set64(address + 8n, aux)
    this.set32(aux, this.programs.length)
    this.put(aux + 16n, Buffer.from(name))
    this.list("prog_idr", this.programs)
    return address
  }
  private readonly programs: Array<bigint> = []

  /** A `struct list_head` with nodes, each where its `struct list_head` is. */
  ring(head: bigint, ...nodes: ReadonlyArray<bigint>): void {
    const all = [head, ...nodes]
    all.forEach((at, index) => this.set64(at, all[(index + 1) % all.length], all.at(index - 1)!))
  }
}
