import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listLinks } from "../../../../src/bpf/guest/links/Links.ts"
import { formatReason } from "../../../../src/core/Reason.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex } from "../MadeMaps.ts"

const NOT_MAPPED = "0xffffdeadbeef0000 is not mapped"
const PROGS = 40n

/** The root cgroup with children `/one` and `/two`, a network with devices `eth1` and `eth2`; nothing is attached. */
const attachments = () => {
  const made = new MadeKernelObjects(({ blob, int, long, struct }) => {
    struct("bpf_link", 16, [["id", 0, int], ["type", 4, int], ["prog", 8, long]])
    blob.enum32("cgroup_bpf_attach_type", [["CGROUP_INET_INGRESS", 0], ["CGROUP_DEVICE", 2]])
  })
  const program = made.program("attached")
  const top = made.directory(1, "")
  // The root is part of the image: its own address is that of its symbol.
  const root = made.symbol("cgrp_dfl_root") + 8n
  const children = [made.directory(2, "one", top), made.directory(3, "two", top)].map((at) => made.cgroup(at))
  const [one, two] = children
  made.setAt("cgrp_dfl_root", 8, root, root, one, two)
  made.setAt("cgrp_dfl_root", 8 + 32, top)
  made.set64(one, two, root + 16n)
  made.set64(two, root + 16n, one)
  const network = made.network(4026531840)
  const namespaces = made.symbol("net_namespace_list")
  made.setAt("net_namespace_list", 0, network + 8n, network + 8n)
  made.set64(network + 8n, namespaces, namespaces)
  const devices = [1, 2].map((index) => made.device(index, `eth${index}`, network))
  made.ring(network + 24n, ...devices.map((device) => device + 32n))
  /** Attach a program to a cgroup's slot, by a link or without one. */
  const attach = (cgroup: bigint, slot: number, link = 0n) => {
    const entry = made.object(32)
    const head = cgroup + PROGS + BigInt(slot * 8)
    made.set64(head, entry)
    made.set64(entry, 0n, head, program, link)
    return entry
  }
  const list = () => {
    const { items, problems } = Effect.runSync(Effect.provideService(listLinks, GuestKernel, made.kernel))
    return {
      items: items.map(({ attachType, id, programId, target, type }) => [
        id,
        programId,
        type,
        attachType,
        ...target?.names ?? []
      ]),
      problems: problems.map(formatReason)
    }
  }
  return { made, program, one, two, devices, network, attach, list }
}
type Made = ReturnType<typeof attachments>

/** `/one` has a program in slot 2, `/two` in slot 1, one that no name is for. */
const inCgroups = (): Made & { readonly entries: ReadonlyArray<bigint> } => {
  const of = attachments()
  return { ...of, entries: [of.attach(of.one, 2), of.attach(of.two, 1)] }
}
const inOne = [null, 1, "cgroup", "cgroup_device", "/one"]
const inTwo = [null, 1, "cgroup", "cgroup_attach type 1", "/two"]

describe("DirectAttachments: cgroups", () => {
  it("gives the programs of each cgroup that no link holds", () => {
    const { attach, list, made, two } = inCgroups()
    assert.deepStrictEqual(list(), { items: [inOne, inTwo], problems: [] })
    attach(two, 1, made.object(8))
    assert.deepStrictEqual(list(), { items: [inOne], problems: [] })
  })

  it("leaves a cgroup's list that leads nowhere, and gives the others", () => {
    const { list, made, one } = inCgroups()
    made.set64(one + PROGS + 16n, NOWHERE)
    assert.deepStrictEqual(list(), {
      items: [inTwo],
      problems: [`unreadable: a cgroup's programs: ${NOT_MAPPED}`]
    })
  })

  it("leaves a program that the memory's end cuts, and gives the others", () => {
    const { list, made, one } = inCgroups()
    const cut = made.atTheEnd(16)
    made.set64(one + PROGS + 16n, cut)
    made.set64(cut, 0n, one + PROGS + 16n)
    assert.deepStrictEqual(list(), {
      items: [inTwo],
      problems: [`unreadable: a cgroup's program: ${hex(made.atTheEnd(0))} is not mapped`]
    })
  })

  it("ends at children in a circle, with those before it", () => {
    const { list, made, one, two } = inCgroups()
    made.set64(two, one)
    assert.deepStrictEqual(list(), {
      items: [inOne, inTwo],
      problems: [`corrupted: cgroups: ${hex(one)} is in the list twice`]
    })
  })

  it("reads a cgroup once that is below itself", () => {
    const { list, made, two } = inCgroups()
    const root = made.symbol("cgrp_dfl_root") + 8n
    made.set64(two + 16n, root, root)
    made.setAt("cgrp_dfl_root", 8, two + 16n, two + 16n)
    assert.deepStrictEqual(list(), { items: [inOne, inTwo], problems: [] })
  })
})

describe("DirectAttachments: network devices", () => {
  const onDevices = () => {
    const of = attachments()
    const { devices: [first, second], made, program } = of
    made.set64(first + 48n + 16n, program)
    const entry = made.object(24)
    const bundle = made.object(16)
    made.set64(entry, program, 0n, bundle)
    made.set64(second + 88n, entry)
    return { ...of, entry, bundle }
  }
  const xdp = [null, 1, "xdp", null, "eth1"]
  const tcx = [null, 1, "tcx", "tcx_egress", "eth2"]

  it("gives XDP and tcx programs that no link holds", () => {
    const { bundle, devices: [first], list, made } = onDevices()
    assert.deepStrictEqual(list(), { items: [xdp, tcx], problems: [] })
    made.set64(first + 48n + 24n, bundle)
    made.set64(bundle, bundle) // any link's address: what is not null
    assert.deepStrictEqual(list(), { items: [], problems: [] })
  })

  it("leaves programs that lead nowhere, and gives the others", () => {
    const { devices: [first], entry, list, made } = onDevices()
    made.set64(entry + 16n, NOWHERE)
    assert.deepStrictEqual(list(), { items: [xdp], problems: [`unreadable: a device's tcx programs: ${NOT_MAPPED}`] })
    made.set64(first + 80n, NOWHERE)
    assert.deepStrictEqual(list(), {
      items: [xdp],
      problems: Array.from({ length: 2 }, () => `unreadable: a device's tcx programs: ${NOT_MAPPED}`)
    })
  })

  it("ends at a device that the list does not lead to, with those before it", () => {
    const { devices: [first], list, made } = onDevices()
    made.set64(first + 32n, NOWHERE)
    assert.deepStrictEqual(list(), { items: [xdp], problems: [`unreadable: network devices: ${NOT_MAPPED}`] })
  })

  it("says that the namespaces cannot be read, and gives the cgroups'", () => {
    const { attach, list, made, one } = onDevices()
    attach(one, 2)
    made.setAt("net_namespace_list", 0, NOWHERE)
    assert.deepStrictEqual(list(), { items: [inOne], problems: [`unreadable: network namespaces: ${NOT_MAPPED}`] })
  })
})
