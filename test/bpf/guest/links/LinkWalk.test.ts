import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listLinks } from "../../../../src/bpf/guest/links/Links.ts"
import type { Link } from "../../../../src/bpf/Link.ts"
import { formatReason } from "../../../../src/core/Reason.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex, type MadeDeclarations } from "../MadeMaps.ts"

const TYPES = ["unspec", "raw_tracepoint", "tracing", "cgroup", "iter", "netns", "xdp", "perf_event", "kprobe_multi"]
  .concat("struct_ops", "netfilter", "tcx", "uprobe_multi", "netkit", "sockmap")
/** Of every made link, from the start of its `struct bpf_link`; what follows is its type's own. */
const LINK_BYTES = 16
const SIZE = 48

/** The structs that contain a `struct bpf_link`, smaller than in v6.12; each has it at its start. */
const types = ({ blob, byte, int, long, struct }: MadeDeclarations): void => {
  const link = struct("bpf_link", LINK_BYTES, [["id", 0, int], ["type", 4, int], ["prog", 8, long]])
  const own = (name: string, ...members: ReadonlyArray<readonly [name: string, at: number, type: number]>) =>
    struct(name, SIZE, [["link", 0, link], ...members])
  blob.enum32("bpf_link_type", TYPES.map((name, value) => [`BPF_LINK_TYPE_${name.toUpperCase()}`, value]))
  blob.enum32("bpf_attach_type", [["BPF_NONE", 0], ["BPF_CGROUP_DEVICE", 6], ["BPF_TCX_INGRESS", 46]])
  own("bpf_raw_tp_link", ["btp", 16, long])
  struct("bpf_raw_event_map", 8, [["tp", 0, long]])
  struct("tracepoint", 8, [["name", 0, long]])
  own("bpf_kprobe_multi_link", ["addrs", 16, long], ["cnt", 24, int])
  const path = struct("path", 8, [["dentry", 0, long]])
  own("bpf_uprobe_multi_link", ["path", 16, path], ["cnt", 24, int], ["uprobes", 32, long])
  struct("bpf_uprobe", 8, [["offset", 0, long]])
  const text = struct("qstr", 8, [["name", 0, long]])
  struct("dentry", 16, [["d_parent", 0, long], ["d_name", 8, text]])
  own("bpf_iter_link", ["tinfo", 16, long])
  struct("bpf_iter_target_info", 8, [["reg_info", 0, long]])
  struct("bpf_iter_reg", 8, [["target", 0, long]])
  own("bpf_cgroup_link", ["cgroup", 16, long], ["type", 24, int])
  own("bpf_xdp_link", ["dev", 16, long])
  own("tcx_link", ["dev", 16, long], ["location", 24, int])
  own("netkit_link", ["dev", 16, long], ["location", 24, int])
  own("bpf_netns_link", ["net", 16, long], ["type", 24, int])
  const hook = struct("nf_hook_ops", 12, [["pf", 0, byte], ["hooknum", 4, int], ["priority", 8, int]])
  own("bpf_nf_link", ["hook_ops", 16, hook], ["net", 32, long], ["dead", 40, int])
  own("sockmap_link", ["map", 16, long], ["attach_type", 24, int])
  own("bpf_struct_ops_link", ["map", 16, long])
}

interface Kind {
  /** Fill in what is the type's own, of a link at an address. */
  readonly fill: (made: MadeKernelObjects, link: bigint) => void
  readonly target: Partial<NonNullable<Link["target"]>>
  readonly attachType?: string
  /** Where the link has the pointer to what it is attached to, and what is said of one that leads nowhere. */
  readonly pointer: bigint
  readonly why?: string
}

const NOT_MAPPED = "0xffffdeadbeef0000 is not mapped"
/** A pointer to a pointer, `depth` times, to an address. */
const through = (made: MadeKernelObjects, address: bigint, depth: number): bigint => {
  if (depth === 0) return address
  const pointer = made.object(8)
  made.set64(pointer, through(made, address, depth - 1))
  return pointer
}
const device = (made: MadeKernelObjects, link: bigint) => {
  made.set64(link + 16n, made.device(4, "veth4", made.network(4026531840)))
  made.set32(link + 24n, 46)
}
const onDevice = { kind: "netdev", names: ["veth4"], id: 4, netns: 4026531840 } as const
const onMap = (made: MadeKernelObjects, link: bigint) => {
  made.set64(
    link + 16n,
    made.map({ type: "ARRAY", keySize: 4, valueSize: 4, maxEntries: 1, name: "target", bytes: 96 })
  )
}

const kinds: { readonly [type: string]: Kind } = {
  raw_tracepoint: {
    fill: (made, link) => made.set64(link + 16n, through(made, made.text("sched_switch"), 2)),
    target: { kind: "tracepoint", names: ["sched_switch"] },
    pointer: 16n
  },
  cgroup: {
    fill: (made, link) => {
      made.set64(link + 16n, made.cgroup(made.directory(9, "inner", made.directory(1, ""))))
      made.set32(link + 24n, 6)
    },
    target: { kind: "cgroup", names: ["/inner"], id: 9 },
    attachType: "cgroup_device",
    pointer: 16n,
    why: `its cgroup: {"$unreadable":"${NOT_MAPPED}"}`
  },
  iter: {
    fill: (made, link) => made.set64(link + 16n, through(made, made.text("bpf_map_elem"), 2)),
    target: { kind: "iterator", names: ["bpf_map_elem"], id: null },
    pointer: 16n
  },
  netns: {
    fill: (made, link) => {
      made.set64(link + 16n, made.network(4026532000))
      made.set32(link + 24n, 77)
    },
    target: { kind: "netns", names: ["net:[4026532000]"], id: 4026532000 },
    attachType: "attach type 77",
    pointer: 16n
  },
  xdp: { fill: device, target: onDevice, pointer: 16n },
  tcx: { fill: device, target: onDevice, attachType: "tcx_ingress", pointer: 16n },
  netkit: { fill: device, target: onDevice, attachType: "tcx_ingress", pointer: 16n },
  kprobe_multi: {
    fill: (made, link) => {
      const addresses = made.object(16)
      made.set64(addresses, made.symbol("_stext") + 1n, 0xffff_ffff_c000_0000n)
      made.set64(link + 16n, addresses, 2n)
    },
    target: { kind: "functions", names: ["_stext+0x1", "0xffffffffc0000000"] },
    pointer: 16n
  },
  uprobe_multi: {
    fill: (made, link) => {
      const root = made.object(16)
      const file = made.object(16)
      made.set64(root, root)
      made.set64(file, root, made.text("libc.so"))
      const offsets = made.object(16)
      made.set64(offsets, 0x100n, 0x200n)
      made.set64(link + 16n, file, 2n, offsets)
    },
    target: { kind: "uprobes", names: ["/libc.so+0x100", "/libc.so+0x200"] },
    pointer: 32n
  },
  struct_ops: { fill: onMap, target: { kind: "struct_ops", names: ["target"], id: 1 }, pointer: 16n },
  sockmap: {
    fill: (made, link) => {
      onMap(made, link)
      made.set32(link + 24n, 6)
    },
    target: { kind: "map", names: ["target"], id: 1 },
    attachType: "cgroup_device",
    pointer: 16n
  },
  netfilter: {
    fill: (made, link) => {
      made.put(link + 16n, Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0x80, 0xff, 0xff, 0xff))
      made.set64(link + 32n, made.network(4026532001))
    },
    target: { kind: "netfilter", names: ["ipv4 input priority -128"], id: 4026532001 },
    pointer: 32n
  }
}

/** Three links: of a type, with one to a network device before it and one behind it. */
const links = (type: string) => {
  const made = new MadeKernelObjects(types)
  const program = made.program("attached")
  const link = (id: number, of: string) => {
    const address = made.object(SIZE)
    made.set32(address, id)
    made.set32(address + 4n, TYPES.indexOf(of))
    made.set64(address + 8n, program)
    kinds[of]?.fill(made, address)
    return address
  }
  const all = [link(1, "xdp"), link(2, type), link(3, "xdp")]
  made.list("link_idr", all)
  const list = () => {
    const { items, problems } = Effect.runSync(Effect.provideService(listLinks, GuestKernel, made.kernel))
    return { items, problems: problems.map(formatReason) }
  }
  return { made, all, link: all[1], list }
}
const known = { programId: 1, programName: "attached", problem: null }

for (const [type, { attachType, pointer, target, why }] of Object.entries(kinds)) {
  describe(`LinkWalk: ${type}`, () => {
    it("gives the program and what it is attached to", () => {
      const { items, problems } = links(type).list()
      assert.deepStrictEqual(problems, [])
      const [, link] = items
      assert.deepInclude(link, { ...known, id: 2, type, attachType: attachType ?? null })
      assert.deepInclude(link.target, target)
    })

    it("says why what it is attached to cannot be read, and gives the links before and behind it whole", () => {
      const { link, list, made } = links(type)
      made.set64(link + pointer, NOWHERE)
      const { items: [first, second, third], problems } = list()
      assert.deepStrictEqual(problems, [])
      assert.deepInclude(second, { id: 2, type, programId: 1, target: null })
      assert.deepStrictEqual(second.problem, { kind: "unreadable", text: why ?? NOT_MAPPED })
      for (const other of [first, third]) assert.deepInclude(other, { ...known, target: onDevice })
    })
  })
}

describe("LinkWalk", () => {
  const ids = ({ list }: ReturnType<typeof links>) => {
    const { items, problems } = list()
    return [items.map(({ id }) => id), problems]
  }

  it("leaves a link that leads nowhere, that is another, or that the memory's end cuts", () => {
    const made = links("xdp")
    const [first, , last] = made.all
    const list = (second: bigint) => {
      made.made.list("link_idr", [first, second, last])
      return ids(made)
    }
    assert.deepStrictEqual(list(NOWHERE), [[1, 3], [`unreadable: link 2: ${NOT_MAPPED}`]])
    assert.deepStrictEqual(list(first), [[1, 3], [
      `corrupted: link 2: the structure at ${hex(first)} says it is link 1`
    ]])
    assert.deepStrictEqual(list(made.made.atTheEnd(8)), [
      [1, 3],
      [`unreadable: link 2: ${hex(made.made.atTheEnd(0))} is not mapped`]
    ])
  })

  it("says that the program cannot be read, beside what it is attached to", () => {
    const { link, list, made } = links("xdp")
    made.set64(link + 8n, NOWHERE)
    const { items: [, second] } = list()
    assert.deepInclude(second, { programId: null, programName: null, target: onDevice })
    assert.deepStrictEqual(second.problem, { kind: "unreadable", text: `its program: ${NOT_MAPPED}` })
  })

  it("gives no target of a link that was detached", () => {
    for (const type of ["cgroup", "xdp", "netns", "struct_ops", "sockmap"]) {
      const { link, list, made } = links(type)
      made.set64(link + 16n, 0n)
      assert.deepInclude(list().items[1], { ...known, target: null }, type)
    }
    const { link, list, made } = links("netfilter")
    made.set32(link + 40n, 1)
    assert.deepInclude(list().items[1], { ...known, target: null })
  })

  it("does not believe counts that no link has, or directories in a circle", () => {
    const functions = links("kprobe_multi")
    functions.made.set32(functions.link + 24n, 65_537)
    assert.deepStrictEqual(functions.list().items[1].problem, { kind: "corrupted", text: "65537 functions" })
    const uprobes = links("uprobe_multi")
    uprobes.made.set32(uprobes.link + 24n, 65_537)
    assert.deepStrictEqual(uprobes.list().items[1].problem, { kind: "corrupted", text: "65537 uprobes" })
    const circle = links("uprobe_multi")
    const file = circle.made.get64(circle.link + 16n)
    circle.made.set64(circle.made.get64(file), file)
    circle.made.set64(circle.made.get64(file) + 8n, circle.made.text("root"))
    assert.deepStrictEqual(circle.list().items[1].problem, {
      kind: "corrupted",
      text: `directory loop at ${hex(file)}`
    })
  })

  it("says that a type is not read, and which", () => {
    const { link, list, made } = links("xdp")
    made.set32(link + 4n, 99)
    assert.deepStrictEqual(list().items[1].problem, {
      kind: "unsupported",
      text: "the targets of type 99 links are not read"
    })
  })
})
