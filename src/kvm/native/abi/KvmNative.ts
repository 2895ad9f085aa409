import type koffi from "koffi"

/** A mapping: the address KVM is told, the bytes we touch. */
interface Mapping {
  readonly address: bigint
  readonly bytes: ArrayBuffer
}

/**
 * The system calls of the native engine, plain, for the main thread and for the vCPUs' threads. A failure is the negated
 * errno, as the kernel itself says it: errno belongs to the thread, so it is read in the same synchronous step.
 */
export interface KvmNative {
  readonly open: (path: string) => number
  readonly close: (fd: number) => void
  readonly ioctl: (fd: number, request: number, argument: number | Uint8Array) => number
  /** Shared, readable and writable; at most 4 GiB. Touching the bytes after `unmap` is SIGSEGV. */
  readonly map: (fd: number, offset: number, bytes: number) => Mapping | number
  /**
   * New memory, zeros until touched, for a guest: whole pages, at most 4 GiB, aligned to 2 MiB and in pages of 2 MiB where
   * the host has them, which spares a guest that boots most of its faults; no child process gets it.
   */
  readonly allocate: (bytes: number) => Mapping | number
  readonly unmap: (mapping: Mapping) => void
  /** Where a buffer's bytes lie, for a pointer in an argument: there as long as the buffer is reachable. */
  readonly addressOf: (buffer: ArrayBuffer) => bigint
  /** The kernel's id of the calling thread. */
  readonly threadId: () => number
  /** Send the kick signal to a thread of this process that has blocked it. */
  readonly kick: (thread: number) => number
  /** Block the kick signal for the calling thread; gives the thread's mask without it, as KVM_SET_SIGNAL_MASK wants. */
  readonly blockKick: () => Uint8Array
  /** Take every pending kick of the calling thread off its queue. */
  readonly takeKicks: () => void
}

/**
 * Load libc for the calling thread.
 *
 * What breaks KVM_RUN off is a real-time signal for which no handler is ever installed, so none of the host
 * application's can be in the way: each vCPU thread blocks it, KVM unblocks it only while the thread is inside KVM_RUN
 * (KVM_SET_SIGNAL_MASK), the thread comes back with EINTR and takes it off its queue. One that is sent just before the
 * thread enters KVM_RUN stays pending and breaks off at once, so no kick is lost. It is sent to that thread alone
 * (tgkill): a handler that the application has for the same number never runs for it. 50 is in the middle: glibc keeps
 * 32 and 33 for itself, musl 34 too, and applications count from either end of the range.
 *
 * The threads are started from this function's source, so it uses nothing from outside itself.
 */
export const kvmNativeOver = (ffi: typeof koffi): KvmNative => {
  const KICK_SIGNAL = 50
  // include/uapi/asm-generic/{fcntl,mman-common,signal-defs}.h
  const O_RDWR = 2
  const O_CLOEXEC = 0o2000000
  const PROT_READ_WRITE = 3
  const MAP_SHARED = 1
  const MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x4022
  const MADV_DONTFORK = 10
  const MADV_HUGEPAGE = 14
  const HUGE = 2 ** 21
  const MAP_FAILED = 2n ** 64n - 1n // koffi 3 gives a `void *` as an unsigned bigint
  const SIG_BLOCK = 0
  const SIGSET = 128 // glibc's `sigset_t`; the kernel's is its first 8 bytes
  const KERNEL_SIGSET = 8

  const libc = ffi.load("libc.so.6")
  const cOpen = libc.func("int open(const char *path, int flags)")
  const cClose = libc.func("int close(int fd)")
  const cMmap = libc.func("void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)")
  const cMunmap = libc.func("int munmap(void *addr, size_t length)")
  const cMadvise = libc.func("int madvise(void *addr, size_t length, int advice)")
  const cIoctl = libc.func("int ioctl(int fd, unsigned long request, intptr_t argument)")
  const cIoctlBuffer = libc.func("int ioctl(int fd, unsigned long request, void *argument)")
  const cGettid = libc.func("int gettid()")
  const cTgkill = libc.func("int tgkill(int process, int thread, int signal)")
  const cSigmask = libc.func("int pthread_sigmask(int how, void *set, void *old)")
  const cSigtimedwait = libc.func("int sigtimedwait(void *set, void *info, void *timeout)")

  const orErrno = (result: number): number => result >= 0 ? result : -ffi.errno()
  const kick = new Uint8Array(SIGSET)
  kick[(KICK_SIGNAL - 1) >>> 3] = 1 << ((KICK_SIGNAL - 1) & 7)
  const atOnce = new Uint8Array(16) // struct timespec { 0, 0 }

  return {
    open: (path) => orErrno(cOpen(path, O_RDWR | O_CLOEXEC)),
    close: (fd) => void cClose(fd),
    ioctl: (fd, request, argument) =>
      orErrno(typeof argument === "number" ? cIoctl(fd, request, argument) : cIoctlBuffer(fd, request, argument)),
    map: (fd, offset, bytes) => {
      const address: bigint = cMmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, offset)
      return address === MAP_FAILED ? -ffi.errno() : { address, bytes: ffi.view(address, bytes) }
    },
    allocate: (bytes) => {
      const start: bigint = cMmap(null, bytes + HUGE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
      if (start === MAP_FAILED) return -ffi.errno()
      const before = Number(-start & BigInt(HUGE - 1))
      const address = start + BigInt(before)
      if (before > 0) cMunmap(start, before)
      cMunmap(address + BigInt(bytes), HUGE - before)
      cMadvise(address, bytes, MADV_HUGEPAGE) // fails on kernels without such pages
      cMadvise(address, bytes, MADV_DONTFORK)
      return { address, bytes: ffi.view(address, bytes) }
    },
    unmap: ({ address, bytes }) => void cMunmap(address, bytes.byteLength),
    addressOf: (buffer) => ffi.address(buffer),
    threadId: () => cGettid(),
    kick: (thread) => orErrno(cTgkill(process.pid, thread, KICK_SIGNAL)),
    blockKick: () => {
      const mask = new Uint8Array(SIGSET)
      cSigmask(SIG_BLOCK, kick, mask)
      for (let i = 0; i < SIGSET; i++) mask[i] &= ~kick[i]
      return mask.slice(0, KERNEL_SIGSET)
    },
    takeKicks: () => {
      while (cSigtimedwait(kick, null, atOnce) === KICK_SIGNAL);
    }
  }
}
