import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { u32, u64 } from "../MadeHash.ts"
import { hex, type MadeDeclarations, MadeMaps } from "../MadeMaps.ts"

/** Two buckets of the values of tasks 1, 2 and 3; the first two share a bucket. A value is ten times the task's number. */
const taskStorage = () => {
  const made = new MadeMaps()
  const map = made.map({ type: "TASK_STORAGE", keySize: 4, valueSize: 8, maxEntries: 0, bytes: 96 })
  const buckets = made.object(2 * 16)
  made.set64(map + 72n, buckets)
  made.set32(map + 80n, 1)
  const owners = [1, 2, 3].map((pid) => {
    const task = made.object(32)
    made.put(task, Buffer.concat([u32(pid), u32(pid), Buffer.from(`task ${pid}`)]))
    const storage = made.object(16)
    made.set64(storage + 8n, task)
    return storage
  })
  const elements = owners.map((owner, index) => {
    const element = made.object(48 + 8)
    made.set64(element + 32n, owner)
    made.set64(element + 48n, BigInt((index + 1) * 10))
    return element
  })
  made.set64(buckets, elements[0])
  made.set64(elements[0], elements[1])
  made.set64(buckets + 16n, elements[2])
  return { made, map, owners, elements, buckets }
}
const task = (pid: number) => [
  { pid, tgid: pid, comm: `task ${pid}` },
  Buffer.from(u64(pid * 10)).toString("hex")
]
const read = (made: MadeMaps): unknown => {
  const { entries, problem } = made.read()
  return [entries, problem]
}

describe("local storage", () => {
  it("gives each value with the task that it belongs to", () => {
    assert.deepStrictEqual(read(taskStorage().made), [[task(1), task(2), task(3)], null])
  })

  it("leaves a chain that is a cycle, and goes on with the next bucket", () => {
    const { elements, made } = taskStorage()
    made.set64(elements[1], elements[0])
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries.at(-1), task(3) as never)
    assert.includeDeepMembers(entries as never, [task(1), task(2)])
    assert.strictEqual(problem, "corrupted: bucket 0: its chain is a cycle")
  })

  it("leaves a chain at a pointer to nothing, and goes on with the next bucket", () => {
    const { elements, made } = taskStorage()
    made.set64(elements[0], NOWHERE)
    assert.deepStrictEqual(read(made), [
      [task(1), task(3)],
      "unreadable: bucket 0: element: 0xffffdeadbeef0000 is not mapped"
    ])
  })

  it("leaves an element that the memory's end cuts, and goes on with the next bucket", () => {
    const { elements, made } = taskStorage()
    made.set64(elements[0], made.atTheEnd(48))
    assert.deepStrictEqual(read(made), [
      [task(1), task(3)],
      `unreadable: bucket 0: element: ${hex(made.atTheEnd(0))} is not mapped`
    ])
  })

  it("shows why in the place of an owner that cannot be read, and the value", () => {
    const { elements, made, owners } = taskStorage()
    made.set64(elements[0] + 32n, NOWHERE)
    made.set64(owners[1] + 8n, NOWHERE + 0x1000n)
    assert.deepStrictEqual(read(made), [
      [
        [{ $unreadable: "0xffffdeadbeef0000 is not mapped" }, task(1)[1]],
        [{ $unreadable: "0xffffdeadbeef1000 is not mapped" }, task(2)[1]],
        task(3)
      ],
      "unreadable: inside an entry: 0xffffdeadbeef0000 is not mapped (and 1 more)"
    ])
  })

  it("does not believe more buckets than the memory has room for", () => {
    const { made, map } = taskStorage()
    made.set32(map + 80n, 40)
    assert.deepStrictEqual(read(made), [[], `corrupted: ${2 ** 40} buckets, keys of 8 bytes`])
  })

  it("says that buckets cannot be read", () => {
    const { made, map } = taskStorage()
    made.set64(map + 72n, NOWHERE)
    assert.deepStrictEqual(read(made), [[], "unreadable: bucket 0: 0xffffdeadbeef0000 is not mapped"])
  })
})

const KEY_BYTES = 16

/** kernel/bpf/local_storage.c, include/linux/bpf-cgroup.h, fs/kernfs/kernfs-internal.h, smaller than in v6.12 */
const types = ({ idr, int, list, long, struct, text }: MadeDeclarations) => {
  const key = struct("bpf_cgroup_storage_key", KEY_BYTES, [["cgroup_inode_id", 0, long], ["attach_type", 8, int]])
  struct("bpf_cgroup_storage_map", 96, [["list", 72, list]])
  struct("bpf_cgroup_storage", 40, [["buf", 0, long], ["percpu_buf", 0, long], ["key", 8, key], ["list_map", 24, list]])
  struct("bpf_storage_buffer", 16, [["data", 16, text(0)]])
  struct("cgroup_root", 8, [["kf_root", 0, long]])
  struct("kernfs_root", 24, [["ino_idr", 0, idr]])
  struct("kernfs_node", 24, [["id", 0, long], ["name", 8, long], ["parent", 16, long]])
}

/** The values of cgroup 1, the root, and of cgroup 2, `/two`; and of 3, which is gone. A value is ten times the cgroup's id. */
const cgroupStorage = (type: "CGROUP_STORAGE" | "PERCPU_CGROUP_STORAGE") => {
  const made = new MadeMaps({ types, objects: { cgrp_dfl_root: 8 } })
  const map = made.map({ type, keySize: KEY_BYTES, valueSize: 8, maxEntries: 0, bytes: 96 })
  const node = (id: number, parent: bigint, name: string) => {
    const address = made.object(24)
    const text = made.object(16)
    made.put(text, Buffer.from(`${name}\0`))
    made.set64(address, BigInt(id), text, parent)
    return address
  }
  const directories = made.object(24)
  const table = made.object(576)
  const top = node(1, 0n, "")
  made.set64(table + 48n, top, node(2, top, "two"))
  made.set64(directories + 8n, table | 2n)
  made.setAt("cgrp_dfl_root", 0, directories)
  const values = [1, 2, 3].map((id) => {
    const value = made.object(40)
    made.set64(value + 8n, BigInt(id), 6n)
    if (type === "CGROUP_STORAGE") {
      const buffer = made.object(16 + 8)
      made.set64(buffer + 16n, BigInt(id * 10))
      made.set64(value, buffer)
    } else {
      const { copies, pointer } = made.perCpu(8)
      copies.forEach((copy, cpu) => made.set64(copy, BigInt(id * 10 + cpu)))
      made.set64(value, pointer)
    }
    return value
  })
  const nodes = [map + 72n, ...values.map((value) => value + 24n)]
  nodes.forEach((at, index) => {
    made.set64(at, nodes[(index + 1) % nodes.length], nodes.at(index - 1)!)
  })
  return { made, map, values }
}
const word = (n: number) => Buffer.from(u64(n)).toString("hex")
const key = (id: number) => ({ cgroup_inode_id: id, attach_type: 6, ...[{}, { path: "/" }, { path: "/two" }][id] })

describe("cgroup storage", () => {
  it("gives each value with its cgroup, and the path of one that is there", () => {
    assert.deepStrictEqual(read(cgroupStorage("CGROUP_STORAGE").made), [
      [1, 2, 3].map((id) => [key(id), word(id * 10)]),
      null
    ])
  })

  it("gives each CPU's copy", () => {
    assert.deepStrictEqual(read(cgroupStorage("PERCPU_CGROUP_STORAGE").made), [
      [1, 2, 3].map((id) => [key(id), [word(id * 10), word(id * 10 + 1)]]),
      null
    ])
  })

  it("leaves a value whose buffer leads nowhere, and gives those before and behind it", () => {
    const { made, values } = cgroupStorage("CGROUP_STORAGE")
    made.set64(values[1], NOWHERE)
    assert.deepStrictEqual(read(made), [
      [[key(1), word(10)], [key(3), word(30)]],
      "unreadable: entry 1: 0xffffdeadbeef0000 is not mapped"
    ])
  })

  it("says which CPU's copy cannot be read", () => {
    const { made, values } = cgroupStorage("PERCPU_CGROUP_STORAGE")
    made.set64(values[1], made.atTheEnd(8) - made.made.options.cpuOffsets[0])
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries[1], [key(2), [word(0), undefined]] as never)
    assert.deepStrictEqual([entries[0][0], entries[2][0]], [key(1), key(3)] as never)
    assert.strictEqual(
      problem,
      `unreadable: bucket 0, CPU 1: ${hex(made.atTheEnd(8) + 0x4000n & ~4095n)} is not mapped`
    )
  })

  it("ends at a list that leads back into itself", () => {
    const { made, values } = cgroupStorage("CGROUP_STORAGE")
    made.set64(values[2] + 24n, values[1] + 24n)
    const { entries, problem } = made.read()
    assert.includeDeepMembers(entries as never, [1, 2, 3].map((id) => [key(id), word(id * 10)]))
    assert.strictEqual(problem, "corrupted: bucket 0: its chain is a cycle")
  })

  it("ends at a pointer to nothing, with the entries before it", () => {
    const { made, values } = cgroupStorage("CGROUP_STORAGE")
    made.set64(values[0] + 24n, NOWHERE)
    const why = `unreadable: bucket 0: element: ${hex((NOWHERE - 24n) & ~4095n)} is not mapped`
    assert.deepStrictEqual(read(made), [[[key(1), word(10)]], why])
  })

  it("shows why in the place of a path that cannot be read", () => {
    const { made } = cgroupStorage("CGROUP_STORAGE")
    made.setAt("cgrp_dfl_root", 0, NOWHERE)
    const { entries, problem } = made.read()
    const path = { $unreadable: "ino_idr: idr_base: 0xffffdeadbeef0000 is not mapped" }
    assert.deepStrictEqual(entries.map(([of]) => of), [1, 2, 3].map((id) => ({ ...key(id), path })) as never)
    assert.match(problem ?? "", /^unreadable: inside an entry: ino_idr: idr_base: 0xffffdeadbeef0000 is not mapped/)
  })

  it("does not believe keys that no such map has", () => {
    for (const size of [4, 24]) {
      const { made, map } = cgroupStorage("CGROUP_STORAGE")
      made.set32(map + 8n, size)
      assert.deepStrictEqual(read(made), [[], `corrupted: keys of ${size} bytes, values of 8`])
    }
  })
})
