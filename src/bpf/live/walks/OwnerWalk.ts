import { constants, openSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Codec } from "../../../btf/render/Codec.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { errnoName } from "../../../core/Errors.ts"
import type { NativeService } from "../../../core/Native.ts"
import { unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { derivedCodec, intOf, objectOf, stringOf } from "../../values/DerivedCodec.ts"
import { Errno } from "../calls/BpfAbi.ts"
import type { BpfCalls, CallBuffer } from "../calls/BpfCalls.ts"

/** Who may have a value in a local storage map. */
export interface Owner {
  /** Its key: a thread's number, or an inode. */
  readonly id: number
  /** A file descriptor of it, or minus the errno. */
  readonly open: () => number
}

/** `PIDFD_THREAD` of include/uapi/linux/pidfd.h, since v6.9: a thread that is not its process's first. */
const PIDFD_THREAD = constants.O_EXCL

/**
 * The values of a TASK_, CGRP_ or INODE_STORAGE map, asked for owner by owner: bpf(2) looks them up by a file descriptor of
 * the owner, and gives no list. Asking makes no storage.
 * @see kernel/bpf/bpf_task_storage.c `bpf_pid_task_storage_lookup_elem`, v6.12
 */
export class OwnerWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(8))
  readonly keyAt = 0
  readonly keyLength = 8
  readonly valueView: DataView
  readonly valueAt = 0
  readonly problems = new WalkProblems()
  private readonly descriptor: CallBuffer
  private readonly found: CallBuffer
  private index = 0

  constructor(
    private readonly calls: BpfCalls,
    private readonly fd: number,
    readonly valueLength: number,
    private readonly owners: ReadonlyArray<Owner>
  ) {
    this.descriptor = calls.buffer(4)
    this.found = calls.buffer(valueLength)
    this.valueView = this.found.view
  }

  next(): boolean {
    const { calls, descriptor, found, owners, problems } = this
    while (this.index < owners.length) {
      const { id, open } = owners[this.index++]
      const owner = open()
      if (owner < 0) {
        if (owner !== -Errno.ENOENT && owner !== -Errno.ESRCH) {
          problems.add(unreadable(`owner ${id}: ${errnoName(-owner)}`))
        }
        continue
      }
      descriptor.view.setUint32(0, owner, true)
      const result = calls.lookup(this.fd, descriptor, found)
      calls.close(owner)
      if (result === -Errno.ENOENT) continue
      if (result < 0) {
        problems.add(unreadable(`owner ${id}: BPF_MAP_LOOKUP_ELEM: ${errnoName(-result)}`))
        continue
      }
      this.keyView.setBigUint64(0, BigInt(id), true)
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }
}

/** Every thread that /proc lists. */
export const allThreads = (native: NativeService): ReadonlyArray<Owner> =>
  numbersIn("/proc").flatMap((pid) =>
    numbersIn(`/proc/${pid}/task`).map((thread) => ({
      id: thread,
      open: () => {
        const fd = native.pidfd(thread, thread === pid ? 0 : PIDFD_THREAD)
        // Before v6.9 only a process's first thread can be asked for.
        return fd === -Errno.EINVAL && thread !== pid ? -Errno.EOPNOTSUPP : fd
      }
    }))
  )

/** Files and directories by path: inodes, or cgroups. */
export const ownersAt = (paths: ReadonlyArray<string>): ReadonlyArray<Owner> =>
  paths.flatMap((path) => {
    const id = inodeOf(path)
    return id === undefined ? [] : [{ id, open: () => openPath(path) }]
  })

/** Every directory below a cgroup file system, by inode: the paths from its root. */
export const cgroupPaths = (root: string): ReadonlyArray<string> => {
  const paths = [root]
  for (const path of paths) {
    for (const { name } of directoriesIn(path)) paths.push(join(path, name))
  }
  return paths
}

/** `{ pid, tgid, comm }`, as in a guest's dump. */
export const threadCodec: Codec = derivedCodec((view, at) => {
  const pid = Number(view.getBigUint64(at, true))
  const status = read(`/proc/${pid}/status`)
  const tgid = /^Tgid:\s+(\d+)/m.exec(status)?.[1]
  return objectOf({
    pid: intOf(pid),
    tgid: tgid === undefined ? undefined : intOf(Number(tgid)),
    comm: stringOf(read(`/proc/${pid}/comm`).replace(/\n$/, ""))
  })
})

/** `{ id, path }`, as in a guest's dump; a cgroup's id is its directory's inode number. */
export const cgroupCodec = (root: string, paths: ReadonlyArray<string>): Codec => {
  const pathOf = cgroupPathOf(root, paths)
  return derivedCodec((view, at) => {
    const id = Number(view.getBigUint64(at, true))
    return objectOf({ id: intOf(id), path: pathOf(id) })
  })
}

/** `{ cgroup_inode_id, attach_type, path }`, as in a guest's dump, of keys of CGROUP_STORAGE. */
export const cgroupKeyCodec = (root: string | undefined): Codec => {
  const pathOf = root === undefined ? () => undefined : cgroupPathOf(root, cgroupPaths(root))
  return derivedCodec((view, at, length) => {
    const id = Number(view.getBigUint64(at, true))
    const attachType = length < 12 ? undefined : intOf(view.getUint32(at + 8, true))
    return objectOf({ cgroup_inode_id: intOf(id), attach_type: attachType, path: pathOf(id) })
  })
}

const cgroupPathOf = (root: string, paths: ReadonlyArray<string>) => {
  const byId = new Map(paths.map((path) => [inodeOf(path), path.slice(root.length) || "/"]))
  return (id: number): RenderedValue | undefined => {
    const path = byId.get(id)
    return path === undefined ? undefined : stringOf(path)
  }
}

/** `{ inode, path }`: what was asked for. */
export const fileCodec = (paths: ReadonlyArray<string>): Codec => {
  const byId = new Map(paths.map((path) => [inodeOf(path), path]))
  return derivedCodec((view, at) => {
    const inode = Number(view.getBigUint64(at, true))
    const path = byId.get(inode)
    return objectOf({ inode: intOf(inode), path: path === undefined ? undefined : stringOf(path) })
  })
}

/** Where the cgroup2 file system is mounted. */
export const cgroupRoot = (): string | undefined => /^\S+ (\S+) cgroup2 /m.exec(read("/proc/self/mounts"))?.[1]

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return "" // a process that has ended
  }
}

const numbersIn = (path: string): ReadonlyArray<number> => {
  try {
    return readdirSync(path).filter((name) => /^\d+$/.test(name)).map(Number)
  } catch {
    return [] // a process that has ended
  }
}

const directoriesIn = (path: string) => {
  try {
    return readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  } catch {
    return [] // a cgroup that is gone
  }
}

export const inodeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.ino

const openPath = (path: string): number => {
  try {
    return openSync(path, constants.O_RDONLY)
  } catch (error) {
    return error instanceof Error && "errno" in error && typeof error.errno === "number" ? error.errno : -Errno.EINVAL
  }
}
