import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SyscallError } from "./Errors.ts"

/**
 * The service behind the tag `Native`.
 *
 * @since 0.1.0
 * @category models
 */
export interface NativeService {
  /**
   * Map `length` bytes of `fd` from byte `offset` (a multiple of 4096) until the scope closes. What touches the bytes after
   * that finds zeros or is SIGSEGV, past the file's end it is SIGBUS: neither is an error. From 64 MiB on and below 4 GiB they
   * are those of a SharedArrayBuffer.
   */
  readonly mmap: (
    fd: number,
    offset: number,
    length: number,
    access: "read" | "write"
  ) => Effect.Effect<Uint8Array, SyscallError, Scope.Scope>
  /**
   * An anonymous file in memory (memfd_create), closed with the scope. `subject` names it in /proc. Its size is sealed:
   * another process that has it cannot cut it off under our mapping, which would be SIGBUS.
   */
  readonly memfd: (subject: string, bytes: number) => Effect.Effect<number, SyscallError, Scope.Scope>
  /** pipe2(2): 64 KiB between two descriptors, each its receiver's to close, with `close` or otherwise. */
  readonly pipe: () => Effect.Effect<{ readonly read: number; readonly write: number }, SyscallError>
  /** Open a path (`flags` as in fcntl.h) and close it with the scope. `mode`, of a file that is made, is 0600. */
  readonly open: (path: string, flags: number, mode?: number) => Effect.Effect<number, SyscallError, Scope.Scope>
  /**
   * The next bytes at or behind `offset` that a file stores, from one offset up to another (lseek with SEEK_DATA and
   * SEEK_HOLE); undefined: only a hole follows. Plain, because searches call it in a loop.
   */
  readonly nextData: (fd: number, offset: number) => readonly [from: number, to: number] | undefined
  /** ioctl(2) with an integer or a buffer that the kernel reads and writes; gives the call's result. */
  readonly ioctl: (
    fd: number,
    request: number,
    argument: number | Uint8Array
  ) => Effect.Effect<number, SyscallError>
  /**
   * flock(2) without waiting: whether the lock was granted. It belongs to the open file and goes when that is closed,
   * which the kernel does for a process that dies.
   */
  readonly flock: (fd: number, mode: "shared" | "exclusive") => Effect.Effect<boolean, SyscallError>
  /** Give an open file without a name (O_TMPFILE) a path in its file system; needs /proc. Fails where the path is taken. */
  readonly link: (fd: number, path: string) => Effect.Effect<void, SyscallError>
  /** Two paths of one file system change places in one step (renameat2 with RENAME_EXCHANGE); links are not followed. */
  readonly exchange: (a: string, b: string) => Effect.Effect<void, SyscallError>
  /**
   * bpf(2) with a `union bpf_attr`: the call's result, or minus the errno. Plain, and no error, because it is called once
   * or more for each entry of a map.
   */
  readonly bpf: (command: number, attributes: Uint8Array) => number
  /** Where a buffer's bytes lie, for the pointers in such attributes: there as long as the buffer is reachable. */
  readonly addressOf: (buffer: ArrayBuffer) => bigint
  /**
   * A buffer of zeros whose memory the kernel is asked to give in huge pages (MADV_HUGEPAGE), up to 2 MiB more than is used:
   * a copy of a few MiB then meets a handful of page faults, not a thousand. Where it gives none, a buffer like any other.
   */
  readonly largeBuffer: (bytes: number) => Uint8Array
  /** pidfd_open(2): a file descriptor of a process or thread, or minus the errno. */
  readonly pidfd: (pid: number, flags: number) => number
  /** Close what `bpf`, `pidfd` and `pipe` opened. */
  readonly close: (fd: number) => void
}

/**
 * The system calls that Node has no API for. The tag alone: importing it loads no koffi; the layer that does is
 * `ktstr/native`. Only what is used is here.
 *
 * @since 0.1.0
 * @category services
 */
export class Native extends Context.Tag("ktstr/core/Native")<Native, NativeService>() {}
