import type { NativeService } from "../../../core/Native.ts"
import { MapType } from "../../MapType.ts"
import { Attr, ATTR_BYTES, Command, Errno } from "./BpfAbi.ts"

/** Memory that bpf(2) reads or writes: it does not move. */
export class CallBuffer {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly address: bigint

  constructor(native: NativeService, readonly size: number) {
    const memory = new ArrayBuffer(Math.max(8, size))
    this.bytes = new Uint8Array(memory)
    this.view = new DataView(memory)
    this.address = native.addressOf(memory)
  }
}

/** Objects with ids: the commands that list and open each kind. */
const KINDS = {
  map: { next: Command.MAP_GET_NEXT_ID, open: Command.MAP_GET_FD_BY_ID },
  program: { next: Command.PROG_GET_NEXT_ID, open: Command.PROG_GET_FD_BY_ID },
  btf: { next: Command.BTF_GET_NEXT_ID, open: Command.BTF_GET_FD_BY_ID },
  link: { next: Command.LINK_GET_NEXT_ID, open: Command.LINK_GET_FD_BY_ID }
} as const
export type ObjectKind = keyof typeof KINDS

/** `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`; include/uapi/linux/bpf.h */
export const UPDATE_FLAGS = { any: 0, create: 1, existing: 2 } as const
/**
 * Flags of `BPF_MAP_UPDATE_ELEM`, by name.
 *
 * @since 0.1.0
 * @category models
 */
export type UpdateMode = keyof typeof UPDATE_FLAGS

/**
 * bpf(2), one method per command. Each gives the call's result, or minus the errno. A pointer is a `CallBuffer`, or null.
 */
export class BpfCalls {
  private readonly attr: DataView
  private readonly bytes: Uint8Array
  /** Set when the maps that were open are closed: their descriptor numbers may have been reused. Calls fail with EBADF. */
  ended = false
  /** Of the last call: what the kernel wrote back into `next_id`, `count`, `retval` or `info_len`. */
  answer = 0

  constructor(readonly native: NativeService) {
    this.bytes = new Uint8Array(ATTR_BYTES)
    this.attr = new DataView(this.bytes.buffer)
  }

  buffer(size: number): CallBuffer {
    return new CallBuffer(this.native, size)
  }

  close(fd: number): void {
    this.native.close(fd)
  }

  /** The first id above `after`, in `answer`; ENOENT: there is none. */
  nextId(kind: ObjectKind, after: number): number {
    const { attr } = this.clear()
    attr.setUint32(Attr.id.start_id, after, true)
    return this.call(KINDS[kind].next, Attr.id.next_id)
  }

  /** A file descriptor that keeps the object alive. */
  open(kind: ObjectKind, id: number): number {
    const { attr } = this.clear()
    attr.setUint32(Attr.id.start_id, id, true)
    return this.call(KINDS[kind].open)
  }

  /** Fill `into` with the kernel's info of an object; `answer` is how many bytes this kernel has. */
  info(fd: number, into: CallBuffer): number {
    const { attr } = this.clear()
    attr.setUint32(Attr.info.bpf_fd, fd, true)
    attr.setUint32(Attr.info.info_len, into.size, true)
    attr.setBigUint64(Attr.info.info, into.address, true)
    return this.call(Command.OBJ_GET_INFO_BY_FD, Attr.info.info_len)
  }

  lookup(map: number, key: CallBuffer | null, value: CallBuffer): number {
    return this.element(Command.MAP_LOOKUP_ELEM, map, key, value, 0)
  }

  /** The key behind `key`, or the first behind null, into `next`. */
  nextKey(map: number, key: CallBuffer | null, next: CallBuffer): number {
    return this.element(Command.MAP_GET_NEXT_KEY, map, key, next, 0)
  }

  update(map: number, key: CallBuffer | null, value: CallBuffer, mode: UpdateMode): number {
    return this.element(Command.MAP_UPDATE_ELEM, map, key, value, UPDATE_FLAGS[mode])
  }

  delete(map: number, key: CallBuffer): number {
    return this.element(Command.MAP_DELETE_ELEM, map, key, null, 0)
  }

  /** Up to `count` entries behind the place `from`; `answer` is how many there are, `to` the place behind them. */
  lookupBatch(
    map: number,
    from: CallBuffer | null,
    to: CallBuffer,
    keys: CallBuffer,
    values: CallBuffer,
    count: number
  ): number {
    const { attr } = this.clear()
    const { batch } = Attr
    attr.setBigUint64(batch.in_batch, from?.address ?? 0n, true)
    attr.setBigUint64(batch.out_batch, to.address, true)
    attr.setBigUint64(batch.keys, keys.address, true)
    attr.setBigUint64(batch.values, values.address, true)
    attr.setUint32(batch.count, count, true)
    attr.setUint32(batch.map_fd, map, true)
    return this.call(Command.MAP_LOOKUP_BATCH, batch.count)
  }

  /** An array of one value. */
  createArray(name: string, valueSize: number): number {
    const { attr, bytes } = this.clear()
    const { create } = Attr
    attr.setUint32(create.map_type, MapType.ARRAY, true)
    attr.setUint32(create.key_size, 4, true)
    attr.setUint32(create.value_size, valueSize, true)
    attr.setUint32(create.max_entries, 1, true)
    bytes.set(Buffer.from(name), create.map_name)
    return this.call(Command.MAP_CREATE)
  }

  /** Load a program of `type` from its instructions. `log` gets what the verifier says. */
  load(type: number, flags: number, instructions: CallBuffer, license: CallBuffer, log: CallBuffer | null): number {
    const { attr } = this.clear()
    const { load } = Attr
    attr.setUint32(load.prog_type, type, true)
    attr.setUint32(load.insn_cnt, instructions.size / 8, true)
    attr.setBigUint64(load.insns, instructions.address, true)
    attr.setBigUint64(load.license, license.address, true)
    if (log !== null) {
      attr.setUint32(load.log_level, 1, true)
      attr.setUint32(load.log_size, log.size, true)
      attr.setBigUint64(load.log_buf, log.address, true)
    }
    attr.setUint32(load.prog_flags, flags, true)
    return this.call(Command.PROG_LOAD)
  }

  /** Run a program over `context`, which it may change; `answer` is what it returned. */
  run(program: number, context: CallBuffer): number {
    const { attr } = this.clear()
    const { test } = Attr
    attr.setUint32(test.prog_fd, program, true)
    attr.setUint32(test.ctx_size_in, context.size, true)
    attr.setBigUint64(test.ctx_in, context.address, true)
    return this.call(Command.PROG_TEST_RUN, test.retval)
  }

  private element(
    command: number,
    map: number,
    key: CallBuffer | null,
    value: CallBuffer | null,
    flags: number
  ): number {
    const { attr } = this.clear()
    const { element } = Attr
    attr.setUint32(element.map_fd, map, true)
    attr.setBigUint64(element.key, key?.address ?? 0n, true)
    attr.setBigUint64(element.value, value?.address ?? 0n, true)
    attr.setUint32(element.flags, flags, true)
    return this.call(command)
  }

  private clear(): this {
    this.bytes.fill(0)
    return this
  }

  private call(command: number, answerAt?: number): number {
    if (this.ended) return -Errno.EBADF
    const result = this.native.bpf(command, this.bytes)
    if (answerAt !== undefined) this.answer = this.attr.getUint32(answerAt, true)
    return result
  }
}
