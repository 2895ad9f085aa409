import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import koffi from "koffi"
import { readFileSync } from "node:fs"
import { SyscallError } from "./Errors.ts"
import { Native } from "./Native.ts"

// include/uapi/asm-generic/{mman-common,fcntl,errno-base}.h, include/uapi/linux/{memfd,fcntl,fs}.h
const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
/** Pages that may stay as long as V8 keeps a buffer: a fork need not have memory for them. */
const ZEROS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
const O_CLOEXEC = 0o2000000
const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW */
const FIXED_SIZE = 1 | 2 | 4
const EINVAL = 22
const ENOMEM = 12
const EAGAIN = 11
const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4
const MADV_HUGEPAGE = 14
const HUGE_PAGE = 2 ** 21
const SEEK_DATA = 3
const SEEK_HOLE = 4
const ENXIO = 6
const AT_FDCWD = -100
const RENAME_EXCHANGE = 2
const AT_SYMLINK_FOLLOW = 0x400
// arch/x86/entry/syscalls/syscall_64.tbl
const SYS_BPF = 321
const SYS_PIDFD_OPEN = 434

/** koffi 3 gives a `void *` as a bigint, so MAP_FAILED, which is -1 in C, is this. */
const MAP_FAILED = 2n ** 64n - 1n

/** koffi ends the process when asked for a view longer than one ArrayBuffer of Node 20 can be. */
const MAX_MAPPING = 2 ** 32

/**
 * The C library gives a buffer of this size pages of its own (glibc's `DEFAULT_MMAP_THRESHOLD_MAX` is 32 MiB), so a file
 * can be mapped over them. It is also from where V8 minds what a buffer of foreign memory takes.
 */
const LARGE = 2 ** 26
const PAGE = 4096

/** V8 aborts the process where it cannot get a few more pages: a mapping must leave it this much. */
const HEADROOM = 2 ** 28

/**
 * Whether another mapping leaves room in the address space, as far as it is limited (`ulimit -v`) and /proc says so.
 * @see fs/proc/base.c `proc_pid_limits`, fs/proc/array.c `proc_pid_statm` (4096 bytes a page on x86-64), v6.12
 */
const leavesRoom = (bytes: number): boolean => {
  try {
    const limit = /^Max address space +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1]
    if (limit === undefined) return true
    const pages = parseInt(readFileSync("/proc/self/statm", "latin1"))
    return pages * 4096 + bytes + HEADROOM <= Number(limit)
  } catch {
    return true // no /proc
  }
}

/** The C functions that `layer` calls. */
const loadLibc = () => {
  const libc = koffi.load("libc.so.6")
  return {
    open: libc.func("int open(const char *path, int flags, int mode)"),
    close: libc.func("int close(int fd)"),
    pipe2: libc.func("int pipe2(_Out_ int *ends, int flags)"),
    memfdCreate: libc.func("int memfd_create(const char *name, unsigned int flags)"),
    ftruncate: libc.func("int ftruncate(int fd, int64_t length)"),
    fcntl: libc.func("int fcntl(int fd, int command, ...)"),
    mmap: libc.func("void *mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)"),
    munmap: libc.func("int munmap(void *addr, size_t length)"),
    madvise: libc.func("int madvise(uintptr_t addr, size_t length, int advice)"),
    ioctl: libc.func("int ioctl(int fd, unsigned long request, intptr_t argument)"),
    ioctlBuffer: libc.func("int ioctl(int fd, unsigned long request, void *argument)"),
    lseek: libc.func("int64_t lseek(int fd, int64_t offset, int whence)"),
    flock: libc.func("int flock(int fd, int operation)"),
    renameat2: libc.func("int renameat2(int fromDir, const char *from, int toDir, const char *to, unsigned int flags)"),
    linkat: libc.func("int linkat(int fromDir, const char *from, int toDir, const char *to, int flags)"),
    bpf: libc.func("long syscall(long number, long command, void *attributes, unsigned long size)"),
    pidfdOpen: libc.func("long syscall(long number, long pid, long flags)")
  }
}

const nextDataOf =
  (libc: ReturnType<typeof loadLibc>) => (fd: number, offset: number): readonly [number, number] | undefined => {
    const from = Number(libc.lseek(fd, offset, SEEK_DATA))
    // A file system that knows no holes has none; only ENXIO says that nothing follows.
    if (from < 0) return koffi.errno() === ENXIO ? undefined : [offset, Infinity]
    const to = Number(libc.lseek(fd, from, SEEK_HOLE))
    return [from, to < 0 ? Infinity : to]
  }

const largeBufferOf = (libc: ReturnType<typeof loadLibc>) => (bytes: number): Uint8Array => {
  const pages = Math.ceil(bytes / HUGE_PAGE) * HUGE_PAGE
  const room = new ArrayBuffer(pages + HUGE_PAGE) // zeros of calloc: no memory until they are written
  const address: bigint = koffi.address(room)
  const skip = -address & BigInt(HUGE_PAGE - 1)
  libc.madvise(address + skip, pages, MADV_HUGEPAGE) // advice: a kernel without huge pages refuses it
  return new Uint8Array(room, Number(skip), bytes)
}

/**
 * Whole pages of a buffer that V8 does not count, for a file to be mapped over; undefined where the host has no room for
 * that. To V8 a buffer of foreign memory is so much memory that it may get back by collecting: it collects at once. What
 * threads share it leaves out.
 */
const sharedPages = (bytes: number): { readonly address: bigint; readonly bytes: Uint8Array } | undefined => {
  try {
    const room = new Uint8Array(new SharedArrayBuffer(Math.ceil(bytes / PAGE) * PAGE + PAGE))
    const start: bigint = koffi.address(room)
    const skip = Number(-start & BigInt(PAGE - 1))
    return { address: start + BigInt(skip), bytes: room.subarray(skip, skip + bytes) }
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** The errno belongs to the thread and is soon overwritten: read it in the same synchronous step as the call. */
const failed = (syscall: string, subject: string): SyscallError => SyscallError.of(syscall, subject, koffi.errno())

const mmapOf = (libc: ReturnType<typeof loadLibc>) =>
(
  fd: number,
  offset: number,
  length: number,
  access: "read" | "write"
): Effect.Effect<Uint8Array, SyscallError, Scope.Scope> => {
  const subject = `fd ${fd}, ${length} bytes at ${offset}`
  const acquire = Effect.suspend(() => {
    const refused = length > MAX_MAPPING ? EINVAL : leavesRoom(length) ? 0 : ENOMEM
    if (refused !== 0) return SyscallError.of("mmap", subject, refused)
    const protection = access === "read" ? PROT_READ : PROT_READ | PROT_WRITE
    const pages = length >= LARGE && length < MAX_MAPPING ? sharedPages(length) : undefined
    const fixed = pages === undefined ? 0 : MAP_FIXED
    const address: bigint = libc.mmap(pages?.address ?? 0, length, protection, MAP_SHARED | fixed, fd, offset)
    return address === MAP_FAILED ? failed("mmap", subject) : Effect.succeed({ address, pages })
  })
  const release = ({ address, pages }: Effect.Effect.Success<typeof acquire>) =>
    Effect.sync(() => {
      if (pages === undefined) libc.munmap(address, length)
      else libc.mmap(address, length, PROT_READ | PROT_WRITE, ZEROS | MAP_FIXED, -1, 0)
    })
  return Effect.acquireRelease(acquire, release).pipe(
    Effect.map(({ address, pages }) => pages?.bytes ?? new Uint8Array(koffi.view(address, length)))
  )
}

const pipeOf = (libc: ReturnType<typeof loadLibc>) => () =>
  Effect.suspend(() => {
    const ends = new Int32Array(2)
    if (libc.pipe2(ends, O_CLOEXEC) !== 0) return SyscallError.of("pipe2", "two descriptors", koffi.errno())
    const [read = -1, write = -1] = ends
    return Effect.succeed({ read, write })
  })

/**
 * `Native` over libc through koffi. Nothing else in `core` loads koffi.
 *
 * What `mmap` gives is valid until its scope closes and no longer: Node cannot detach it, so a later touch finds zeros in
 * a mapping of 64 MiB or more, and in others is SIGSEGV, which no handler sees. Keep views of it in values that live in the
 * same scope.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Native> = Layer.sync(Native, () => {
  const libc = loadLibc()

  const scopedFd = (acquire: () => Effect.Effect<number, SyscallError>) =>
    Effect.acquireRelease(Effect.suspend(acquire), (fd) => Effect.sync(() => libc.close(fd)))

  const open = (path: string, flags: number, mode = 0o600): Effect.Effect<number, SyscallError, Scope.Scope> =>
    scopedFd(() => {
      const fd: number = libc.open(path, flags | O_CLOEXEC, mode)
      return fd >= 0 ? Effect.succeed(fd) : failed("open", path)
    })

  const memfd = (subject: string, bytes: number): Effect.Effect<number, SyscallError, Scope.Scope> =>
    scopedFd(() => {
      const fd: number = libc.memfdCreate(subject, MFD_CLOEXEC | MFD_ALLOW_SEALING)
      if (fd < 0) return failed("memfd_create", subject)
      const sized = libc.ftruncate(fd, bytes) === 0
      if (sized && libc.fcntl(fd, F_ADD_SEALS, "int", FIXED_SIZE) === 0) return Effect.succeed(fd)
      const error = sized ? failed("fcntl F_ADD_SEALS", subject) : failed("ftruncate", `${subject} to ${bytes} bytes`)
      libc.close(fd)
      return error
    })

  const ioctl = (
    fd: number,
    request: number,
    argument: number | Uint8Array
  ): Effect.Effect<number, SyscallError> =>
    Effect.suspend(() => {
      const result: number = typeof argument === "number"
        ? libc.ioctl(fd, request, argument)
        : libc.ioctlBuffer(fd, request, argument)
      return result >= 0 ? Effect.succeed(result) : failed("ioctl", `fd ${fd}, request 0x${request.toString(16)}`)
    })

  const flock = (fd: number, mode: "shared" | "exclusive"): Effect.Effect<boolean, SyscallError> =>
    Effect.suspend(() => {
      if (libc.flock(fd, (mode === "shared" ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return Effect.succeed(true)
      const error = failed("flock", `fd ${fd}`)
      return error.errno === EAGAIN ? Effect.succeed(false) : error
    })

  const done = (result: number, syscall: string, subject: string): Effect.Effect<void, SyscallError> =>
    result === 0 ? Effect.void : failed(syscall, subject)

  const exchange = (a: string, b: string): Effect.Effect<void, SyscallError> =>
    Effect.suspend(() => {
      const result: number = libc.renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)
      return done(result, "renameat2", `${a} and ${b}`)
    })

  const link = (fd: number, path: string): Effect.Effect<void, SyscallError> =>
    Effect.suspend(() => {
      const nameless = `/proc/self/fd/${fd}`
      return done(libc.linkat(AT_FDCWD, nameless, AT_FDCWD, path, AT_SYMLINK_FOLLOW), "linkat", path)
    })

  const orErrno = (result: number): number => result >= 0 ? result : -koffi.errno()

  return {
    open,
    pipe: pipeOf(libc),
    memfd,
    mmap: mmapOf(libc),
    nextData: nextDataOf(libc),
    largeBuffer: largeBufferOf(libc),
    ioctl,
    flock,
    link,
    exchange,
    bpf: (command, attributes) => orErrno(libc.bpf(SYS_BPF, command, attributes, attributes.length)),
    addressOf: (buffer) => koffi.address(buffer),
    pidfd: (pid, flags) => orErrno(libc.pidfdOpen(SYS_PIDFD_OPEN, pid, flags)),
    close: (fd) => void libc.close(fd)
  }
})
