/**
 * Unpack LZO1X into exactly `length` bytes; undefined where the data are not that.
 * @see lib/lzo/lzo1x_decompress_safe.c and Documentation/staging/lzo.rst, v6.12
 */
export const unpackLzo = (data: Uint8Array, length: number): Uint8Array | undefined => {
  const out = new Uint8Array(length)
  let at = 0
  let filled = 0
  /** Literals that followed the last match; 4 after a run of literals. */
  let state = 0

  const literals = (count: number): boolean => {
    if (at + count > data.length || filled + count > length) return false
    out.set(data.subarray(at, at + count), filled)
    at += count
    filled += count
    return true
  }
  /** A length that goes on in the bytes that follow; NaN where they end. */
  const longer = (base: number): number => {
    let sum = base
    while (at < data.length && data[at] === 0) {
      sum += 255
      at++
    }
    return at < data.length ? sum + data[at++] : NaN
  }

  if (data.length > 0 && data[0] > 17) {
    const count = data[at++] - 17
    if (!literals(count)) return undefined
    state = Math.min(count, 4)
  }
  while (at < data.length) {
    const token = data[at++]
    if (token < 16 && state === 0) {
      const count = (token === 0 ? longer(15) : token) + 3
      if (!(count >= 0) || !literals(count)) return undefined
      state = 4
      continue
    }
    let distance: number
    let count: number
    let next = token & 3
    if (token < 16) {
      distance = (token >> 2) + (data[at++] << 2) + (state === 4 ? 0x801 : 1)
      count = state === 4 ? 3 : 2
    } else if (token >= 64) {
      distance = 1 + (token >> 2 & 7) + (data[at++] << 3)
      count = (token >> 5) + 1
    } else {
      const near = token >= 32
      const mask = near ? 31 : 7
      count = ((token & mask) === 0 ? longer(mask) : token & mask) + 2
      const word = data[at] | data[at + 1] << 8
      at += 2
      next = word & 3
      distance = (word >> 2) + (near ? 1 : (token & 8) << 11)
      if (!near && distance === 0) return filled === length && at === data.length ? out : undefined
      if (!near) distance += 0x4000
    }
    if (at > data.length || !copyBack(out, filled, distance, count)) return undefined
    filled += count
    if (!literals(next)) return undefined
    state = next
  }
  return undefined
}

/**
 * Unpack a snappy block of exactly `length` bytes; undefined where the data are not that.
 * @see format_description.txt of github.com/google/snappy
 */
export const unpackSnappy = (data: Uint8Array, length: number): Uint8Array | undefined => {
  let at = 0
  let said = 0
  for (let shift = 0;; shift += 7) {
    if (at >= data.length || shift > 28) return undefined
    const byte = data[at++]
    said += (byte & 127) * 2 ** shift
    if (byte < 128) break
  }
  if (said !== length) return undefined
  const out = new Uint8Array(length)
  let filled = 0
  const number = (bytes: number): number => {
    let value = 0
    for (let i = 0; i < bytes; i++) value += data[at++] * 2 ** (8 * i)
    return value // NaN behind the end
  }
  while (at < data.length) {
    const token = data[at++]
    if ((token & 3) === 0) {
      const short = token >> 2
      const count = (short < 60 ? short : number(short - 59)) + 1
      if (!(at + count <= data.length && filled + count <= length)) return undefined
      out.set(data.subarray(at, at + count), filled)
      at += count
      filled += count
      continue
    }
    const close = (token & 3) === 1
    const count = close ? 4 + (token >> 2 & 7) : 1 + (token >> 2)
    const distance = close ? (token >> 5) * 256 + number(1) : number((token & 3) === 2 ? 2 : 4)
    if (!copyBack(out, filled, distance, count)) return undefined
    filled += count
  }
  return filled === length ? out : undefined
}

/** Repeat `count` bytes from `distance` back, perhaps of those that this writes. */
const copyBack = (out: Uint8Array, filled: number, distance: number, count: number): boolean => {
  if (!(distance > 0 && distance <= filled && filled + count <= out.length)) return false
  for (let i = 0; i < count; i++) out[filled + i] = out[filled + i - distance]
  return true
}
