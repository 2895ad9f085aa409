import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { bpfProgramOffsets } from "../../../btf/offsets/bpf/BpfProgram.ts"
import { compile } from "../../../btf/render/Codec.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { kvaFrom } from "../../../core/Address.ts"
import { cString } from "../../../core/CString.ts"
import { absent, corrupted, type Reason, toReason, within } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import { OBJECT_LIMIT, StructReader } from "../../../memory/structs/StructReader.ts"
import { idrLayout, walkIdr } from "../../../memory/structs/Xarray.ts"
import type { MapInfo } from "../../MapInfo.ts"
import type { ProgramInfo } from "../../Report.ts"
import { intOf, missing, objectOf, pointerOf, stringOf } from "../../values/DerivedCodec.ts"
import { codeAddress, namedObject } from "../../values/ObjectValue.ts"
import { ProgramSymbols } from "./ProgramSymbols.ts"

/** `NAME_MAX` (include/uapi/linux/limits.h), with the NUL: the bytes of a directory's name. */
const DIRECTORY_NAME_BYTES = 256
/** Directories in one another; the kernel's own limit on paths, `PATH_MAX`, allows fewer. */
const DEEPEST = 4096

/** include/linux/socket.h `AF_*`, v6.12: the families of sockets that maps hold. */
const FAMILIES = new Map([[1, "AF_UNIX"], [2, "AF_INET"], [10, "AF_INET6"], [40, "AF_VSOCK"], [44, "AF_XDP"]])

type Laid<A> = (btf: Btf) => Either.Either<A, { readonly message: string }>

const programLayouts = memoizeByBtf((btf) => bpfProgramOffsets.resolve(btf))
/** include/linux/cgroup-defs.h `struct cgroup`, v6.12 */
export const cgroupLayout = memoizeByBtf((btf) => layout(btf, "cgroup", ["kn"]))
/** include/linux/kernfs.h `struct kernfs_node`, v6.12; `parent` is `__parent` since v6.15 */
const directoryLayout = memoizeByBtf((btf) =>
  layout(btf, "kernfs_node", ["id", "name", "parent"], [], { parent: "__parent" })
)
/** kernel/cgroup/cgroup-internal.h `struct cgroup_root`, fs/kernfs/kernfs-internal.h `struct kernfs_root`; v6.12 */
const directoriesLayout = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return {
      root: yield* layout(btf, "cgroup_root", ["kf_root"]),
      tree: yield* layout(btf, "kernfs_root", ["ino_idr"]),
      directory: yield* directoryLayout(btf),
      idr: yield* idrLayout(btf)
    }
  })
)
/** include/linux/netdevice.h `struct net_device`, v6.12 */
const netDeviceLayout = memoizeByBtf((btf) => layout(btf, "net_device", ["ifindex", "name"]))
/** include/linux/sched.h `struct task_struct`, v6.12 */
const taskLayout = memoizeByBtf((btf) => layout(btf, "task_struct", ["pid", "tgid", "comm"]))
/** include/linux/fs.h `struct inode`, `struct super_block`, v6.12 */
const inodeLayout = memoizeByBtf((btf) => layout(btf, "inode", ["i_ino", "i_sb"]))
const superblockLayout = memoizeByBtf((btf) => layout(btf, "super_block", ["s_id"]))
/** include/net/sock.h `struct sock`, `struct sock_common`, `struct socket_alloc`, v6.12; IPv6 by CONFIG_IPV6 */
export const socketLayout = memoizeByBtf((btf) =>
  layout(btf, "sock", [
    "sk_socket",
    "sk_protocol",
    "__sk_common.skc_family",
    "__sk_common.skc_state",
    "__sk_common.skc_cookie",
    "__sk_common.skc_num",
    "__sk_common.skc_dport",
    "__sk_common.skc_rcv_saddr",
    "__sk_common.skc_daddr"
  ], [["__sk_common.skc_v6_rcv_saddr", "__sk_common.skc_v6_daddr"]])
)
const socketFileLayout = memoizeByBtf((btf) => layout(btf, "socket_alloc", ["socket", "vfs_inode.i_ino"]))
/** include/linux/perf_event.h `struct perf_event`, v6.12 */
export const perfEventLayout = memoizeByBtf((btf) => layout(btf, "perf_event", ["attr.type", "attr.config", "cpu"]))

/**
 * The kernel objects that maps point at, as short descriptions: who a task is, which path a cgroup has. A null pointer is
 * `"0x0"`, what cannot be read says so in its place. Not for hot loops.
 */
export class KernelObjects {
  private readonly space: KernelSpace
  private readonly programsById: ReadonlyMap<number, ProgramInfo>
  private readonly mapsById: ReadonlyMap<number, MapInfo>
  private known: ProgramSymbols | undefined
  private cgroups: Either.Either<ReadonlyMap<bigint, bigint>, Reason> | undefined

  constructor(
    private readonly kernel: GuestKernelService,
    programs: ReadonlyArray<ProgramInfo>,
    maps: ReadonlyArray<MapInfo>
  ) {
    this.space = kernel.space.fork()
    this.programsById = new Map(programs.map((program) => [program.id, program]))
    this.mapsById = new Map(maps.map((map) => [map.id, map]))
  }

  /** `{ id, name, type }`; the id alone where the kernel's list has no such program. */
  program(id: number): RenderedValue {
    return namedObject(id, this.programsById.get(id))
  }

  map(id: number): RenderedValue {
    return namedObject(id, this.mapsById.get(id))
  }

  /** The program behind a `struct bpf_prog *`. */
  programAt(address: bigint): RenderedValue {
    const found = programLayouts(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    if (address === 0n) return pointerOf(0n)
    const { aux, program } = found.right
    const at = this.space.u64(address + BigInt(program.at.aux))
    const id = at === undefined ? -1 : this.space.u32(at + BigInt(aux.at.id))
    return id < 0 ? missing(this.space.faultReason) : this.program(id)
  }

  /** `{ id, path }`: the id is the inode number of its directory. */
  cgroup(address: bigint): RenderedValue {
    return this.look(cgroupLayout, address, (view) => this.cgroupIn(view, 0))
  }

  /** As `cgroup`, of the `struct cgroup` at `at`, of which `cgroupLayout`'s `size` bytes are there. */
  cgroupIn(view: DataView, at: number): RenderedValue {
    const found = cgroupLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const node = view.getBigUint64(at + found.right.at.kn, true)
    return this.look(
      directoryLayout,
      node,
      (directory, { at }) => objectOf({ id: intOf(directory.getBigUint64(at.id, true)), path: this.path(node) })
    )
  }

  /** The path of the cgroup of the default hierarchy with this id; undefined where there is none any more. */
  cgroupPath(id: bigint): RenderedValue | undefined {
    this.cgroups ??= this.cgroupDirectories()
    if (Either.isLeft(this.cgroups)) return missing(this.cgroups.left)
    const node = this.cgroups.right.get(id)
    return node === undefined ? undefined : this.path(node)
  }

  /** The `struct kernfs_node` of each cgroup, by the cgroup's id. */
  private cgroupDirectories(): Either.Either<ReadonlyMap<bigint, bigint>, Reason> {
    const { kernel, space } = this
    const found = directoriesLayout(kernel.btf)
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const { directory, idr, root, tree } = found.right
    const symbol = kernel.symbol("cgrp_dfl_root")
    if (symbol === undefined) return Either.left(absent("the kernel's symbols lack cgrp_dfl_root"))
    const directories = space.u64(symbol + BigInt(root.at.kf_root))
    if (directories === undefined) return Either.left(space.faultReason)
    const nodes: Array<bigint> = []
    const [problem] = walkIdr(space, idr, directories + BigInt(tree.at.ino_idr), (_, page, offset) => {
      nodes.push(kvaFrom(page, offset))
    })
    if (problem !== undefined) return Either.left(within("ino_idr", problem))
    const byId = new Map<bigint, bigint>()
    for (const node of nodes) {
      const id = space.u64(node + BigInt(directory.at.id))
      if (id === undefined) return Either.left(space.faultReason)
      byId.set(id, node)
    }
    return Either.right(byId)
  }

  /** `{ ifindex, name }` */
  netDevice(address: bigint): RenderedValue {
    return this.look(
      netDeviceLayout,
      address,
      (view, { at, sizeOf }) =>
        objectOf({ ifindex: intOf(view.getInt32(at.ifindex, true)), name: nameIn(view, at.name, sizeOf.name) })
    )
  }

  /** `{ pid, tgid, comm }`: the task's own number, its process's, and its name. */
  task(address: bigint): RenderedValue {
    return this.look(taskLayout, address, (view, { at, sizeOf }) =>
      objectOf({
        pid: intOf(view.getInt32(at.pid, true)),
        tgid: intOf(view.getInt32(at.tgid, true)),
        comm: nameIn(view, at.comm, sizeOf.comm)
      }))
  }

  /** `{ inode, device }`: the number, and the id of its file system's superblock, such as `sda1` or `tmpfs`. */
  inode(address: bigint): RenderedValue {
    return this.look(inodeLayout, address, (view, { at }) =>
      objectOf({
        inode: intOf(view.getBigUint64(at.i_ino, true)),
        device: this.look(
          superblockLayout,
          view.getBigUint64(at.i_sb, true),
          (block, { at, sizeOf }) => nameIn(block, at.s_id, sizeOf.s_id)
        )
      }))
  }

  /** As `socketIn`, of a `struct sock *`. */
  socket(address: bigint): RenderedValue {
    return this.look(socketLayout, address, (view) => this.socketIn(view, 0))
  }

  /**
   * `{ cookie, inode, family, protocol, state, local, remote }` of the `struct sock` at `start`, of which
   * `socketLayout`'s `size` bytes are there: a cookie of 0 was never asked for; an inode only of one that has a file;
   * addresses of IPv4 and IPv6.
   */
  socketIn(view: DataView, start: number): RenderedValue {
    const found = socketLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const { at } = found.right
    const family = view.getUint16(start + at["__sk_common.skc_family"], true)
    const end = (ip4: number, ip6: number | undefined, port: number): RenderedValue | undefined => {
      if (family === 2) return stringOf(`${ip4Text(view, start + ip4)}:${port}`)
      return family === 10 && ip6 !== undefined ? stringOf(`[${ip6Text(view, start + ip6)}]:${port}`) : undefined
    }
    const localPort = view.getUint16(start + at["__sk_common.skc_num"], true)
    const remotePort = view.getUint16(start + at["__sk_common.skc_dport"], false)
    return objectOf({
      cookie: intOf(view.getBigUint64(start + at["__sk_common.skc_cookie"], true)),
      inode: this.socketInode(view.getBigUint64(start + at.sk_socket, true)),
      family: { _tag: "enum", value: family, name: FAMILIES.get(family) ?? null, flags: [] },
      protocol: intOf(view.getUint16(start + at.sk_protocol, true)),
      state: intOf(view.getUint8(start + at["__sk_common.skc_state"])),
      local: end(at["__sk_common.skc_rcv_saddr"], at["__sk_common.skc_v6_rcv_saddr"], localPort),
      remote: end(at["__sk_common.skc_daddr"], at["__sk_common.skc_v6_daddr"], remotePort)
    })
  }

  private socketInode(address: bigint): RenderedValue | undefined {
    const found = socketFileLayout(this.kernel.btf)
    if (address === 0n) return undefined
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const { at } = found.right
    const inode = this.space.u64(address + BigInt(at["vfs_inode.i_ino"] - at.socket))
    return inode === undefined ? missing(this.space.faultReason) : intOf(inode)
  }

  /** `{ type, config, cpu }` of the `struct perf_event` at `start`; a CPU of -1 is any. */
  perfEventIn(view: DataView, start: number): RenderedValue {
    const found = perfEventLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const { at } = found.right
    return objectOf({
      type: this.enumerator("perf_type_id", view, start + at["attr.type"]),
      config: intOf(view.getBigUint64(start + at["attr.config"], true)),
      cpu: intOf(view.getInt32(start + at.cpu, true))
    })
  }

  /** An address of the kernel's or a program's code; in modules and user space it has no symbol. */
  code(address: bigint): RenderedValue {
    return codeAddress(address, this.kernel.symbolAt(address) ?? this.programSymbols.at(address))
  }

  private get programSymbols(): ProgramSymbols {
    return this.known ??= new ProgramSymbols(this.kernel, this.space)
  }

  /** A 32-bit number by the kernel's enum of that name. */
  private enumerator(enumName: string, view: DataView, at: number): RenderedValue {
    const [id] = this.kernel.btf.idsByName(enumName)
    return id === undefined ? intOf(view.getUint32(at, true)) : compile(this.kernel.btf, id).tree(view, at)
  }

  /** From the root of its file system to a `struct kernfs_node *`. */
  private path(address: bigint): RenderedValue {
    const found = directoryLayout(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    const { at } = found.right
    const names: Array<string> = []
    const reader = new StructReader(this.space)
    for (let node = address, depth = 0;; depth++) {
      if (depth > DEEPEST) return missing(corrupted(`more than ${DEEPEST} nested directories`))
      const parent = this.space.u64(node + BigInt(at.parent))
      if (parent === undefined) return missing(this.space.faultReason)
      if (parent === 0n) return stringOf(`/${names.reverse().join("/")}`)
      const text = this.space.u64(node + BigInt(at.name))
      if (text === undefined) return missing(this.space.faultReason)
      const name = reader.text(text, DIRECTORY_NAME_BYTES)
      if (Either.isLeft(name)) return missing(name.left)
      names.push(name.right)
      node = parent
    }
  }

  /** Copy a struct and describe it. */
  private look<L extends { readonly size: number }>(
    find: Laid<L>,
    address: bigint,
    describe: (view: DataView, layout: L) => RenderedValue
  ): RenderedValue {
    const found = find(this.kernel.btf)
    if (Either.isLeft(found)) return { _tag: "unsupported", reason: found.left.message }
    if (address === 0n) return pointerOf(0n)
    const bytes = this.space.read(address, Math.min(found.right.size, OBJECT_LIMIT))
    return bytes === undefined ? missing(this.space.faultReason) : describe(new DataView(bytes.buffer), found.right)
  }
}

const nameIn = (view: DataView, at: number, size: number): RenderedValue => stringOf(cString(view, at, size))

const ip4Text = (view: DataView, at: number): string =>
  Array.from({ length: 4 }, (_, byte) => view.getUint8(at + byte)).join(".")

/** As RFC 5952 would, except for the longest run of zeros: the URL parser of the platform does that. */
const ip6Text = (view: DataView, at: number): string => {
  const words = Array.from({ length: 8 }, (_, word) => view.getUint16(at + word * 2, false).toString(16))
  return new URL(`http://[${words.join(":")}]`).hostname.slice(1, -1)
}
