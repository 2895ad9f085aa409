import { assert, describe, it } from "@effect/vitest"
import { KernelObjects } from "../../../../src/bpf/guest/objects/KernelObjects.ts"
import { type RenderedValue, toJson } from "../../../../src/btf/render/RenderedValue.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { u32 } from "../MadeHash.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex } from "../MadeMaps.ts"

type Describe = (objects: KernelObjects, address: bigint) => RenderedValue

/** How an object is described, one that a test makes, what it is shown as, and the bytes of it that are read. */
interface Kind {
  readonly describe: Describe
  readonly make: (made: MadeKernelObjects) => bigint
  readonly shown: unknown
  readonly bytes: number
}

const kinds: { readonly [name: string]: Kind } = {
  "a task": {
    describe: (objects, address) => objects.task(address),
    make: (made) => {
      const task = made.object(32)
      made.put(task, Buffer.concat([u32(7), u32(6), Buffer.from("worker\x1b[31m")]))
      return task
    },
    shown: { pid: 7, tgid: 6, comm: "worker\x1b[31m" },
    bytes: 32
  },
  "a network device": {
    describe: (objects, address) => objects.netDevice(address),
    make: (made) => made.device(2, "eth0"),
    shown: { ifindex: 2, name: "eth0" },
    bytes: 96
  },
  "an inode": {
    describe: (objects, address) => objects.inode(address),
    make: (made) => {
      const block = made.object(32)
      made.put(block, Buffer.from("tmpfs"))
      const inode = made.object(16)
      made.set64(inode, 4711n, block)
      return inode
    },
    shown: { inode: 4711, device: "tmpfs" },
    bytes: 16
  },
  "a cgroup": {
    describe: (objects, address) => objects.cgroup(address),
    make: (made) => made.cgroup(made.directory(9, "inner", made.directory(1, ""))),
    shown: { id: 9, path: "/inner" },
    bytes: 64
  },
  "a socket": {
    describe: (objects, address) => objects.socket(address),
    make: (made) => made.socket(5, 80),
    shown: {
      cookie: 5,
      family: "AF_INET",
      protocol: 6,
      state: 1,
      local: "127.0.0.1:80",
      remote: "10.0.0.2:443"
    },
    bytes: 72
  },
  "a program": {
    describe: (objects, address) => objects.programAt(address),
    make: (made) => made.program("made"),
    shown: { id: 1, name: "made", type: "tracing" },
    bytes: 16
  }
}

const objectsOf = (made: MadeKernelObjects) =>
  new KernelObjects(made.kernel, [{ id: 1, name: "made", type: "tracing" }], [])

for (const [name, { bytes, describe: show, make, shown }] of Object.entries(kinds)) {
  describe(`KernelObjects: ${name}`, () => {
    it("is described; a null pointer is an address", () => {
      const made = new MadeKernelObjects()
      const address = make(made)
      const objects = objectsOf(made)
      assert.deepStrictEqual(toJson(show(objects, address)), shown as never)
      assert.strictEqual(toJson(show(objects, 0n)), "0x0")
    })

    it("says why it cannot be read, in its place", () => {
      const made = new MadeKernelObjects()
      const objects = objectsOf(made)
      assert.deepStrictEqual(toJson(show(objects, NOWHERE)), { $unreadable: "0xffffdeadbeef0000 is not mapped" })
      assert.deepStrictEqual(toJson(show(objects, made.atTheEnd(bytes - 4))), {
        $unreadable: `${hex(made.atTheEnd(0))} is not mapped`
      })
    })
  })
}

describe("KernelObjects: the path of a cgroup", () => {
  const cgroup = () => {
    const made = new MadeKernelObjects()
    const top = made.directory(1, "")
    const directory = made.directory(9, "inner", made.directory(5, "outer", top))
    return { made, top, directory, read: () => toJson(objectsOf(made).cgroup(made.cgroup(directory))) }
  }

  it("ends where directories are above one another in a circle", () => {
    const { directory, made, read, top } = cgroup()
    made.set64(top + 16n, directory)
    assert.deepStrictEqual(read(), { id: 9, path: { $corrupted: "more than 4096 nested directories" } })
  })

  it("says why a directory above, or a name, cannot be read", () => {
    const { directory, made, read } = cgroup()
    const path = { $unreadable: "0xffffdeadbeef0000 is not mapped" }
    made.set64(directory + 16n, NOWHERE)
    assert.deepStrictEqual(read(), { id: 9, path })
    made.set64(directory + 8n, NOWHERE)
    assert.deepStrictEqual(read(), { id: 9, path })
  })
})

describe("KernelObjects: a socket", () => {
  it("of IPv6 has both its ends, of a file its inode; of another family no ends", () => {
    const made = new MadeKernelObjects()
    const socket = made.socket(5, 80)
    const file = made.object(32)
    made.set64(file + 16n, 123n)
    made.set64(socket + 56n, file)
    made.put(socket + 12n, Uint8Array.of(10))
    made.put(socket + 40n, Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1))
    made.put(socket + 24n, Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2))
    const read = () => toJson(objectsOf(made).socket(socket))
    const both = { cookie: 5, inode: 123, family: "AF_INET6", protocol: 6, state: 1 }
    assert.deepStrictEqual(read(), { ...both, local: "[fe80::1]:80", remote: "[2001:db8::2]:443" })
    made.put(socket + 12n, Uint8Array.of(40))
    assert.deepStrictEqual(read(), { ...both, family: "AF_VSOCK" })
    made.set64(socket + 56n, NOWHERE)
    assert.deepStrictEqual(read(), {
      ...both,
      family: "AF_VSOCK",
      inode: { $unreadable: "0xffffdeadbeef0000 is not mapped" }
    })
  })
})
