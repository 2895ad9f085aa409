import type { Json } from "../../../src/btf/render/RenderedValue.ts"

/** An entry that test/bpf-src/contract.bpf.c or contract-fill.sh put into a map, in every form that we give it. */
interface ContractEntry {
  /** The members of an NDJSON record after its name, in their order. */
  readonly json: { readonly [member: string]: Json }
  readonly keyHex: string
  /** The value's bytes; in per-CPU maps every CPU's. */
  readonly valuesHex: ReadonlyArray<string>
}

/** A map that every source has, with the same contents. */
export interface ContractMap {
  readonly name: string
  readonly type: string
  readonly flags: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly hasTypes: boolean
  readonly entries: ReadonlyArray<ContractEntry>
}

const hex = (number: number | bigint, bytes: number): string => {
  const out = Buffer.alloc(8)
  out.writeBigInt64LE(BigInt(number))
  return out.toString("hex", 0, bytes)
}

/** `key` and `value` are little-endian numbers of 4 and `bytes` bytes. */
const numbers = (bytes: number, pairs: ReadonlyArray<readonly [key: number, value: number]>) =>
  pairs.map(([key, value]) => ({ json: { key, value }, keyHex: hex(key, 4), valuesHex: [hex(value, bytes)] }))

const copies = (key: number, bytes: number, values: ReadonlyArray<number>): ContractEntry => ({
  json: { key, cpus: values },
  keyHex: hex(key, 4),
  valuesHex: values.map((value) => hex(value, bytes))
})

const bytesOf = (keyHex: string, valueHex: string): ContractEntry => ({
  json: { key: keyHex, value: valueHex },
  keyHex,
  valuesHex: [valueHex]
})

const text = (value: string): string => Buffer.from(value.padEnd(8, "\0"), "latin1").toString("hex")

const prefix = (length: number, address: ReadonlyArray<number>, value: number | string, valueHex: string) => ({
  json: { key: { length, address }, value },
  keyHex: `${hex(length, 4)}${Buffer.from(address).toString("hex")}`,
  valuesHex: [valueHex]
})

const record = (position: number, state: string, valueHex: string): ContractEntry => ({
  json: { key: position, value: { state, length: valueHex.length / 2, data: valueHex } },
  keyHex: hex(position, 8),
  valuesHex: [valueHex]
})

const hiding = `${hex(2, 8)}${hex(3, 4)}${hex(0, 4)}${text("a\0b")}`

/** The maps whose entries every source reads whole. Two have one name, in the order of their ids. */
export const contractMaps = (possibleCpus: number): ReadonlyArray<ContractMap> => {
  const cpus = (first: number) => Array.from({ length: possibleCpus }, (_, cpu) => first === 0 ? 0 : first + cpu)
  const map = (
    name: string,
    type: string,
    [keySize, valueSize, maxEntries]: readonly [number, number, number],
    entries: ReadonlyArray<ContractEntry>,
    { flags = 0, hasTypes = true }: { readonly flags?: number; readonly hasTypes?: boolean } = {}
  ): ContractMap => ({ name, type, flags, keySize, valueSize, maxEntries, hasTypes, entries })
  return [
    map("ct_hash", "hash", [4, 24, 16], [
      {
        json: { key: 7, value: { wide: "1234567890123456789", negative: -5, mode: "MODE_ON", text: "first" } },
        keyHex: hex(7, 4),
        valuesHex: [`${hex(1234567890123456789n, 8)}${hex(-5, 4)}${hex(1, 4)}${text("first")}`]
      },
      {
        json: { key: 8, value: { wide: 2, negative: 3, mode: "MODE_OFF", text: "a" }, valueBytes: hiding },
        keyHex: hex(8, 4),
        valuesHex: [hiding]
      }
    ]),
    map("ct_array", "array", [4, 8, 3], numbers(8, [[0, 0], [1, 1], [2, 4]])),
    map("ct_lru", "lru_hash", [4, 8, 64], numbers(8, [[0, 0], [1, 1], [2, 4]])),
    map("ct_percpu", "percpu_array", [4, 4, 2], [copies(0, 4, cpus(0)), copies(1, 4, cpus(100))]),
    map("ct_percpu_hash", "percpu_hash", [4, 8, 8], [copies(1, 8, cpus(200))]),
    map("ct_lru_percpu", "lru_percpu_hash", [4, 8, 64], [copies(1, 8, cpus(300))]),
    map("ct_trie", "lpm_trie", [8, 8, 16], [
      prefix(24, [10, 0, 1, 0], "72623859790382856", "0807060504030201"),
      prefix(8, [10, 0, 0, 0], 8, hex(8, 8))
    ], { flags: 1 }),
    map("ct_empty", "hash", [4, 4, 4], []),
    map("ct_ring", "ringbuf", [0, 0, 4096], [
      record(0, "committed", hex(8, 8)),
      record(16, "discarded", "5a5a5a5a"),
      record(32, "committed", "616263")
    ], { hasTypes: false }),
    map("ct_inner", "array", [4, 8, 2], numbers(8, [[0, 0], [1, 11]])),
    map("ct_twin", "hash", [5, 3, 8], [bytesOf("0100ff0708", "0102fd")], { hasTypes: false }),
    map("ct_twin", "hash", [5, 3, 8], [bytesOf("0200ff0708", "0202fd")], { hasTypes: false }),
    map("ct_plain", "array", [4, 6, 2], [
      { json: { key: 0, value: "000000000000" }, keyHex: hex(0, 4), valuesHex: ["000000000000"] },
      { json: { key: 1, value: "010203040506" }, keyHex: hex(1, 4), valuesHex: ["010203040506"] }
    ], { hasTypes: false })
  ]
}

/** The rest: their entries name other objects, or sources show more or less of them. In the order of their names. */
export const OTHER_MAPS = ["ct_ops", "ct_outer", "ct_outer_hash", "ct_progs", "ct_queue", "ct_stack"]
