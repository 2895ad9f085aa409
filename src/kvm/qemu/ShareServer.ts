import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync } from "node:fs"
import { Socket } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { HostLacks, type SyscallError } from "../../core/Errors.ts"
import { findProgram, requireProgram } from "../../core/process/Programs.ts"
import { Console } from "../guest/Console.ts"
import { type OpenShare, shareProblem } from "../spec/OpenShares.ts"
import type { VmBootError, VmSpec } from "../spec/VmEngine.ts"
import { type ChildProcess, runChild } from "./ChildProcess.ts"

/** Where Debian has virtiofsd: in trixie and later its own package's, in bookworm QEMU's. */
const PLACES = ["virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"]

/** The names of a share's files in the directory of its server. */
const [SOCKET, ROOT] = ["socket", "root"]
/** The server's descriptors. */
const [STDERR, FOLDER] = [2, 3]

/**
 * Mounts the folder $0 on /run/share, read-only where $2 says `ro`, in a mount namespace that nobody else sees, and runs the
 * server $3 on that, in the directory $1. The folder on descriptor 3 is of another namespace, from which nothing can be
 * mounted; it shows that the path still leads to what was opened. QEMU's virtiofsd goes to `/` before it opens the folder,
 * takes a comma in its name for the name's end, and leaves a file in /run: so that is another one here. The options are
 * those that both servers have in common; each file that the guest knows takes the server a descriptor.
 */
const SERVE = `cd "$1" && mount --no-canonicalize --bind "$0" ${ROOT} &&
  { [ ${ROOT} -ef /proc/self/fd/${FOLDER} ] || { echo "another folder has taken its place" >&2; exit 1; }; } &&
  { [ "$2" = rw ] || mount -o remount,bind,ro ${ROOT}; } &&
  mount -t tmpfs tmpfs /run && mkdir /run/share && mount --move ${ROOT} /run/share &&
  ulimit -n "$(ulimit -H -n)" &&
  exec "$3" --socket-path=${SOCKET} -o source=/run/share -o sandbox=chroot --rlimit-nofile=0 -f ${FOLDER}<&-`

/** The Debian package that has it. */
export const VIRTIOFSD_PACKAGE = "virtiofsd (on Debian 12: qemu-system-common)"

/** A folder that is served. */
export interface ServedShare {
  /** For QEMU to inherit; it is ours until the scope closes. */
  readonly connection: Socket
  /** Waits for the server to fail, and says why. One whose QEMU has gone ends well. */
  readonly failed: Effect.Effect<string>
}

/** Longest wait for that line; it takes 20 ms. */
const LISTEN_SECONDS = 60
/** The line on stderr by which both servers say that QEMU may connect. */
const LISTENS = /Waiting for vhost-user socket connection/

/** Serve a folder to a VM by a virtiofsd of its own, which ends with `vmScope`. Neither a path nor a mount of it is left behind. */
export const serveShare = (
  spec: VmSpec,
  share: OpenShare,
  vmScope: Scope.Scope
): Effect.Effect<ServedShare, VmBootError | HostLacks | SyscallError, Scope.Scope> =>
  Effect.gen(function*() {
    const program = yield* virtiofsd
    const unshare = yield* requireProgram("unshare", "it keeps shares apart from the host's mounts", "util-linux")
    const asRoot = process.geteuid?.() === 0 ? [] : ["--user", "--map-root-user"]
    const ours = yield* Effect.scope
    return yield* Effect.scoped(Effect.gen(function*() {
      const directory = yield* serverDirectory(spec, share)
      const words = [resolve(share.path), directory, share.writable ? "rw" : "ro", program]
      const server = yield* Scope.extend(
        runChild(
          unshare,
          [...asRoot, "--mount", "--net", "/bin/sh", "-c", SERVE, ...words],
          ["null", "null", "socket", share.fd]
        ),
        vmScope
      )
      const said = yield* listening(spec, share, server)
      const connection = yield* Scope.extend(connected(spec, share, join(directory, SOCKET)), ours)
      const failed = Effect.flatMap(server.exit, ({ signal, status }) => {
        if (status === 0) return Effect.never
        const how = signal ?? complaintOf(said) ?? `status ${status}`
        return Effect.succeed(`the server of the shared folder ${share.path} has ended (${how})`)
      })
      return { connection, failed }
    }))
  })

/** Where this host has virtiofsd. */
export const findVirtiofsd = (): string | undefined => PLACES.map(findProgram).find((found) => found !== undefined)

const virtiofsd: Effect.Effect<string, HostLacks> = Effect.suspend(() => {
  const path = findVirtiofsd()
  return path !== undefined ? Effect.succeed(path) : new HostLacks({
    what: "virtiofsd",
    why: "not installed; it serves shared folders to the guest",
    hint: `apt-get install ${VIRTIOFSD_PACKAGE}`
  })
})

/** A directory for the server's files. Each is removed by its name, nothing by walking: a folder of the user's was mounted there. */
const serverDirectory = (spec: VmSpec, share: OpenShare): Effect.Effect<string, VmBootError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const directory = mkdtempSync(join(tmpdir(), "ktstr-share-"))
        mkdirSync(join(directory, ROOT))
        return directory
      },
      catch: (error) => notServed(spec, share, `${error instanceof Error ? error.message : error}`)
    }),
    (directory) =>
      Effect.sync(() => {
        rmdirSync(join(directory, ROOT))
        for (const name of readdirSync(directory)) rmSync(join(directory, name), { force: true })
        rmdirSync(directory)
      })
  )

/** Waits until the server takes a connection. All that it says is read, so that it never waits for us, and not kept long. */
const listening = (spec: VmSpec, share: OpenShare, server: ChildProcess): Effect.Effect<Console, VmBootError> => {
  const said = new Console()
  server.socket(STDERR).on("data", (bytes: Buffer) => said.push(bytes)).on("close", () => said.end())
  return Stream.runHead(Stream.filter(said.lines, (line) => LISTENS.test(line))).pipe(
    Effect.flatMap(Option.match({
      onSome: () => Effect.succeed(said),
      onNone: () => notServed(spec, share, complaintOf(said) ?? "virtiofsd ended")
    })),
    Effect.timeoutFail({
      duration: `${LISTEN_SECONDS} seconds`,
      onTimeout: () => notServed(spec, share, `virtiofsd did not start within ${LISTEN_SECONDS} s`)
    })
  )
}

/** The server's last complaint; mount(8) ends with a line that says no more. */
const complaintOf = ({ tail }: Console): string | undefined =>
  tail.findLast((line) =>
    line.trim() !== "" && !line.includes("dmesg(1)") && !/^\S+ (Waiting for|connection from)/.test(line)
  )
    ?.trim()

/** A connection that is never read here: QEMU reads it. */
const connected = (
  spec: VmSpec,
  share: OpenShare,
  path: string
): Effect.Effect<Socket, VmBootError, Scope.Scope> => {
  const connecting = Effect.async<Socket, VmBootError>((resume) => {
    const socket = new Socket().pause()
    socket.once("connect", () => resume(Effect.succeed(socket)))
    socket.on("error", (error) => resume(notServed(spec, share, error.message)))
    socket.connect({ path })
  })
  return Effect.acquireRelease(connecting, (socket) => Effect.sync(() => socket.destroy()))
}

const notServed = (spec: VmSpec, share: OpenShare, why: string): VmBootError =>
  shareProblem(
    spec,
    share,
    `cannot be served: ${why}`,
    "virtiofsd needs mount namespaces: run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone)"
  )
