/**
 * Virtio's numbers. `test/kvm/native/abi/VirtioAbi.test.ts` has a C compiler print each of them from the kernel's headers
 * and compares; the names are the headers' own for that.
 * @see Virtual I/O Device (VIRTIO) Version 1.2: 2.1, 2.7, 4.2.2, 5.2, 5.3; include/uapi/linux/virtio_*.h, v6.12
 */
export const Virtio = {
  // the registers of virtio-mmio: byte offsets in a device's window
  VIRTIO_MMIO_MAGIC_VALUE: 0x000,
  VIRTIO_MMIO_VERSION: 0x004,
  VIRTIO_MMIO_DEVICE_ID: 0x008,
  VIRTIO_MMIO_VENDOR_ID: 0x00c,
  VIRTIO_MMIO_DEVICE_FEATURES: 0x010,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL: 0x014,
  VIRTIO_MMIO_DRIVER_FEATURES: 0x020,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL: 0x024,
  VIRTIO_MMIO_QUEUE_SEL: 0x030,
  VIRTIO_MMIO_QUEUE_NUM_MAX: 0x034,
  VIRTIO_MMIO_QUEUE_NUM: 0x038,
  VIRTIO_MMIO_QUEUE_READY: 0x044,
  VIRTIO_MMIO_QUEUE_NOTIFY: 0x050,
  VIRTIO_MMIO_INTERRUPT_STATUS: 0x060,
  VIRTIO_MMIO_INTERRUPT_ACK: 0x064,
  VIRTIO_MMIO_STATUS: 0x070,
  VIRTIO_MMIO_QUEUE_DESC_LOW: 0x080,
  VIRTIO_MMIO_QUEUE_DESC_HIGH: 0x084,
  VIRTIO_MMIO_QUEUE_AVAIL_LOW: 0x090,
  VIRTIO_MMIO_QUEUE_AVAIL_HIGH: 0x094,
  VIRTIO_MMIO_QUEUE_USED_LOW: 0x0a0,
  VIRTIO_MMIO_QUEUE_USED_HIGH: 0x0a4,
  VIRTIO_MMIO_SHM_LEN_LOW: 0x0b0,
  VIRTIO_MMIO_SHM_LEN_HIGH: 0x0b4,
  VIRTIO_MMIO_CONFIG_GENERATION: 0x0fc,
  VIRTIO_MMIO_CONFIG: 0x100,
  /** Bits of INTERRUPT_STATUS. */
  VIRTIO_MMIO_INT_VRING: 1,
  VIRTIO_MMIO_INT_CONFIG: 2,
  // bits of STATUS
  VIRTIO_CONFIG_S_DRIVER_OK: 4,
  VIRTIO_CONFIG_S_FEATURES_OK: 8,
  VIRTIO_CONFIG_S_NEEDS_RESET: 0x40,
  VIRTIO_CONFIG_S_FAILED: 0x80,
  /** A feature's number, not its bit, as all that have an F. */
  VIRTIO_F_VERSION_1: 32,
  // split queues
  VRING_DESC_F_NEXT: 1,
  VRING_DESC_F_WRITE: 2,
  VRING_DESC_F_INDIRECT: 4,
  VRING_AVAIL_F_NO_INTERRUPT: 1,
  // types of devices
  VIRTIO_ID_BLOCK: 2,
  VIRTIO_ID_CONSOLE: 3,
  VIRTIO_CONSOLE_F_SIZE: 0,
  VIRTIO_BLK_F_SIZE_MAX: 1,
  VIRTIO_BLK_F_SEG_MAX: 2,
  VIRTIO_BLK_F_RO: 5,
  VIRTIO_BLK_F_BLK_SIZE: 6,
  VIRTIO_BLK_F_FLUSH: 9,
  VIRTIO_BLK_ID_BYTES: 20,
  VIRTIO_BLK_T_IN: 0,
  VIRTIO_BLK_T_OUT: 1,
  VIRTIO_BLK_T_FLUSH: 4,
  VIRTIO_BLK_T_GET_ID: 8,
  VIRTIO_BLK_S_OK: 0,
  VIRTIO_BLK_S_IOERR: 1,
  VIRTIO_BLK_S_UNSUPP: 2
} as const

/** Sizes and byte offsets of the structures in use. */
export const VirtioStruct = {
  vring_desc: { size: 16, fields: { addr: 0, len: 8, flags: 12, next: 14 } },
  /** A flexible array of 2-byte heads, then 2 bytes that are not in use here. */
  vring_avail: { size: 4, fields: { flags: 0, idx: 2, ring: 4 } },
  vring_used_elem: { size: 8, fields: { id: 0, len: 4 } },
  /** In memory it is 4 bytes and a flexible array of `vring_used_elem`. */
  vring_used: { size: 4, fields: { flags: 0, idx: 2, ring: 4 } },
  virtio_blk_outhdr: { size: 16, fields: { type: 0, sector: 8 } },
  /** It grows from version to version. */
  virtio_blk_config: { fields: { capacity: 0, size_max: 8, seg_max: 12, blk_size: 20 } },
  virtio_console_config: { size: 12, fields: { cols: 0, rows: 2 } }
} as const
