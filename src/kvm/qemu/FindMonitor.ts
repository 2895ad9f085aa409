import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs"
import { basename, isAbsolute, join, resolve } from "node:path"

/** `socket,id=mon0,path=/run/vm.qmp,server=on`: QEMU's options with commas; a comma in a value is doubled. */
const wordsOf = (text: string): ReadonlyArray<string> =>
  text.split(/(?<!,),(?!,)/).map((word) => word.replaceAll(",,", ","))

const optionsOf = (text: string): ReadonlyMap<string, string> =>
  new Map(
    wordsOf(text).map((word) => {
      const at = word.indexOf("=")
      return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)]
    })
  )

/**
 * The path of a QEMU's monitor that speaks QMP at a UNIX socket, by its command line (`-qmp unix:PATH`, or `-mon` of a
 * `-chardev socket` with a path or, as libvirt has it, a descriptor); undefined where it has none.
 * @param proc the process's directory in /proc
 * @throws what Node's file system does where the process is not there, or not ours
 */
export const monitorOf = (proc: string): string | undefined => {
  const words = commandOf(proc)
  const values = (name: string) =>
    words.flatMap((word, at) => word === `-${name}` || word === `--${name}` ? [words[at + 1] ?? ""] : [])
  const inItsFolder = (path: string) => isAbsolute(path) ? path : resolve(readlinkSync(`${proc}/cwd`), path)
  const path = values("qmp").find((value) => value.startsWith("unix:"))
  if (path !== undefined) return inItsFolder(wordsOf(path.slice("unix:".length))[0])
  const sockets = values("chardev").filter((value) => value.startsWith("socket,")).map(optionsOf)
  for (const monitor of values("mon").map(optionsOf)) {
    const name = monitor.get("chardev") ?? [...monitor.keys()][0]
    const socket = sockets.find((options) => options.get("id") === name)
    if (socket === undefined || monitor.get("mode") !== "control") continue
    const given = socket.get("path")
    if (given !== undefined) return inItsFolder(given)
    const inode = socketOf(proc, socket.get("fd") ?? "")
    const listening = listeners().find((listener) => listener.inode === inode)
    if (listening !== undefined) return listening.path
  }
  return undefined
}

/** The program of a process, by its command line; a kernel thread has none. */
export const programOf = (proc: string): string => basename(commandOf(proc)[0])

/** Whether a program's name is that of a QEMU: `qemu-system-x86_64`, `qemu-kvm`, `kvm`. */
export const isQemu = (program: string): boolean => /qemu|^kvm/.test(program)

const commandOf = (proc: string): ReadonlyArray<string> => readFileSync(`${proc}/cmdline`, "utf8").split("\0")

/**
 * The process that listens at a UNIX socket, a QEMU rather than another that has it too; undefined where none does that we
 * may look at.
 * @throws what Node's file system does where the path does not exist
 */
export const listenerAt = (path: string): number | undefined => {
  const listening = listensAt(path)
  const holders = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry) && listening(`/proc/${entry}`))
  const found = holders.find((pid) => isQemu(unlessGone(() => programOf(`/proc/${pid}`)) ?? "")) ?? holders[0]
  return found === undefined ? undefined : Number(found)
}

/**
 * Whether a process, by its directory in /proc, listens at a UNIX socket, as far as we may look.
 * @throws what Node's file system does where the path does not exist
 */
export const listensAt = (path: string): (proc: string) => boolean => {
  const place = realpathSync(path)
  const all = listeners().filter((listener) => basename(listener.path) === basename(place))
  return (proc) => {
    if (all.length === 0) return false
    const inodes = new Set((unlessGone(() => readdirSync(`${proc}/fd`)) ?? []).map((fd) => socketOf(proc, fd)))
    return all.some(({ inode, path: bound }) =>
      inodes.has(inode) &&
      unlessGone(() => realpathSync(isAbsolute(bound) ? bound : join(`${proc}/cwd`, bound))) === place
    )
  }
}

/** The inode of the socket that is a descriptor of a process. */
const socketOf = (proc: string, fd: string): number | undefined => {
  const link = unlessGone(() => readlinkSync(`${proc}/fd/${fd}`))
  const found = link === undefined ? null : /^socket:\[(\d+)\]$/.exec(link)
  return found === null ? undefined : Number(found[1])
}

/** `Num RefCount Protocol Flags Type St Inode Path`; `__SO_ACCEPTCON` is set of those that listen. */
const SOCKET = /^\S+ \S+ \S+ 00010000 0001 \d\d +(\d+) (.+)$/

/** UNIX sockets that are listened at. @see net/unix/af_unix.c `unix_seq_show`, v6.12 */
const listeners = (): ReadonlyArray<{ readonly inode: number; readonly path: string }> =>
  readFileSync("/proc/net/unix", "utf8").split("\n").flatMap((line) => {
    const found = SOCKET.exec(line)
    return found === null ? [] : [{ inode: Number(found[1]), path: found[2] }]
  })

/** Processes come and go, and some are others'. */
export const unlessGone = <A>(look: () => A): A | undefined => {
  try {
    return look()
  } catch {
    return undefined
  }
}
