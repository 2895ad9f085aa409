import { Virtio, VirtioStruct } from "../abi/VirtioAbi.ts"
import type { VirtioDevice } from "./VirtioDevice.ts"

/** A terminal, which Linux calls hvc0. */
export interface VirtioConsole extends VirtioDevice {
  /** Bytes for the guest; how many of them there was room for. Ring the device then. */
  readonly receive: (bytes: Uint8Array) => number
}

/** Bytes that wait for the guest to read. */
const ROOM = 2 ** 16
const NOTHING = new Uint8Array(0)

/** The configuration that says how large the terminal is. 0 is unknown. */
export const terminalSize = (columns: number, rows: number): Uint8Array => {
  const { fields, size } = VirtioStruct.virtio_console_config
  const config = new DataView(new ArrayBuffer(size))
  config.setUint16(fields.cols, columns, true)
  config.setUint16(fields.rows, rows, true)
  return new Uint8Array(config.buffer)
}

/**
 * A console of one port.
 *
 * Linux spins with its interrupts off until what it sends was taken, then finds nothing to do in the interrupt that told
 * it so; after 99,900 such in a row it would switch the line off, and the input with it (`note_interrupt`,
 * kernel/irq/spurious.c, v6.12). So none is raised for the output.
 * @see Virtual I/O Device (VIRTIO) Version 1.2, 5.3; drivers/char/virtio_console.c, v6.12, `__send_to_port`
 */
export const makeVirtioConsole = (send: (bytes: Uint8Array) => void): VirtioConsole => {
  let waiting: Uint8Array = NOTHING
  return {
    type: Virtio.VIRTIO_ID_CONSOLE,
    features: 1 << Virtio.VIRTIO_CONSOLE_F_SIZE,
    config: terminalSize(0, 0),
    queues: [{
      polled: false,
      serve: (_, room) => {
        if (waiting.length === 0) return "wait"
        const bytes = waiting.subarray(0, room)
        waiting = waiting.subarray(bytes.length)
        return bytes
      }
    }, {
      polled: true,
      serve: (request) => {
        if (request.length > 0) send(request)
        return NOTHING
      }
    }],
    receive: (bytes) => {
      const part = bytes.subarray(0, ROOM - waiting.length)
      waiting = Buffer.concat([waiting, part])
      return part.length
    }
  }
}
