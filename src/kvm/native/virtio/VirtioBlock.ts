import { fdatasyncSync, readSync, writeSync } from "node:fs"
import { type Disk, SECTOR } from "../../spec/Disks.ts"
import { Virtio, VirtioStruct } from "../abi/VirtioAbi.ts"
import { QUEUE_SIZE } from "../thread/VirtioMmio.ts"
import type { VirtioDevice } from "./VirtioDevice.ts"

/** A request's largest piece, and how many there may be: within `MOST_BYTES`, with its head and its status. */
const PIECE_BYTES = 2 ** 16
const PIECES = QUEUE_SIZE - 2

/**
 * A disk whose content is a file. What the guest wrote is in the file when it hears so; a flush puts it on the disk
 * below. A call that fails is an I/O error for the guest, and `failed` hears of it.
 * @see Virtual I/O Device (VIRTIO) Version 1.2, 5.2
 */
export const makeVirtioBlock = (disk: Disk, name: string, failed: (error: Error) => void): VirtioDevice => {
  const at = VirtioStruct.virtio_blk_config.fields
  const config = new DataView(new ArrayBuffer(at.blk_size + 4))
  config.setBigUint64(at.capacity, BigInt(disk.bytes / SECTOR), true)
  config.setUint32(at.size_max, PIECE_BYTES, true)
  config.setUint32(at.seg_max, PIECES, true)
  config.setUint32(at.blk_size, SECTOR, true)
  const bit = (feature: number) => 1 << feature
  return {
    type: Virtio.VIRTIO_ID_BLOCK,
    features: bit(Virtio.VIRTIO_BLK_F_SIZE_MAX) | bit(Virtio.VIRTIO_BLK_F_SEG_MAX) | bit(Virtio.VIRTIO_BLK_F_BLK_SIZE) |
      bit(Virtio.VIRTIO_BLK_F_FLUSH) | (disk.readOnly ? bit(Virtio.VIRTIO_BLK_F_RO) : 0),
    config: new Uint8Array(config.buffer),
    queues: [{
      polled: false,
      serve: (request, room) => {
        const head = VirtioStruct.virtio_blk_outhdr
        if (request.length < head.size || room === 0) return "broken"
        const view = new DataView(request.buffer, request.byteOffset)
        const type = view.getUint32(head.fields.type, true)
        const sector = view.getBigUint64(head.fields.sector, true)
        const answer = new Uint8Array(room) // what is read, then the status
        answer[room - 1] = transfer(
          disk,
          name,
          type,
          sector,
          request.subarray(head.size),
          answer.subarray(0, -1),
          failed
        )
        return answer
      }
    }]
  }
}

/** Do a request; gives its status. `sector` may be any number of 64 bits. */
const transfer = (
  disk: Disk,
  name: string,
  type: number,
  sector: bigint,
  data: Uint8Array,
  into: Uint8Array,
  failed: (error: Error) => void
): number => {
  const position = Number(sector) * SECTOR
  const fits = (length: number) => length % SECTOR === 0 && position + length <= disk.bytes
  const done = (good: boolean) => good ? Virtio.VIRTIO_BLK_S_OK : Virtio.VIRTIO_BLK_S_IOERR
  try {
    switch (type) {
      case Virtio.VIRTIO_BLK_T_IN:
        return done(
          fits(into.length) &&
            moveAll(into, position, (at, from) => readSync(disk.fd, into, at, into.length - at, from))
        )
      case Virtio.VIRTIO_BLK_T_OUT:
        return done(
          !disk.readOnly && fits(data.length) &&
            moveAll(data, position, (at, to) => writeSync(disk.fd, data, at, data.length - at, to))
        )
      case Virtio.VIRTIO_BLK_T_FLUSH:
        if (!disk.readOnly) fdatasyncSync(disk.fd)
        return Virtio.VIRTIO_BLK_S_OK
      case Virtio.VIRTIO_BLK_T_GET_ID:
        if (into.length < Virtio.VIRTIO_BLK_ID_BYTES) return Virtio.VIRTIO_BLK_S_IOERR
        into.set(new TextEncoder().encode(name).subarray(0, Virtio.VIRTIO_BLK_ID_BYTES))
        return Virtio.VIRTIO_BLK_S_OK
      default:
        return Virtio.VIRTIO_BLK_S_UNSUPP
    }
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error
    failed(error)
    return Virtio.VIRTIO_BLK_S_IOERR
  }
}

/** Move all of `bytes` in as many calls as it takes; false where the file has become shorter. */
const moveAll = (bytes: Uint8Array, position: number, move: (at: number, position: number) => number): boolean => {
  for (let done = 0; done < bytes.length;) {
    const count = move(done, position + done)
    if (count === 0) return false
    done += count
  }
  return true
}
