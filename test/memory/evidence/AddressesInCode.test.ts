import { assert, describe, it } from "@effect/vitest"
import { addressesInCode } from "../../../src/memory/evidence/AddressesInCode.ts"

const addresses = (start: bigint, ...words: ReadonlyArray<number>) =>
  [...addressesInCode(new Uint8Array(Uint32Array.from(words).buffer), start)].map((address) => address.toString(16))

// The words are of Debian's 6.1.0-57-cloud-arm64; the addresses are as `aarch64-linux-gnu-objdump -d` has them.
describe("the addresses in arm64 code", () => {
  it("are an adrp's page and what is added to it, in steps too: bpf_map_get_curr_or_next", () => {
    assert.deepStrictEqual(addresses(0xffff_c14a_2323_2530n, 0xb000b535, 0x910c02b5, 0x910382b5), [
      "ffffc14a248d7300",
      "ffffc14a248d73e0"
    ])
  })

  it("are before the code, too: sd_flags_show behind its table", () => {
    assert.deepStrictEqual(addresses(0xffff_c14a_23bf_e010n, 0xf0ffffe0, 0x91000000), ["ffffc14a23bfd000"])
  })

  it("are those of variables that are read and written: tick_do_update_jiffies64", () => {
    const words = [0xf000c662, 0x913a0042, 0xd2800025, 0xf9400440, 0x914f4000, 0x91240000, 0x9000b523]
    assert.deepStrictEqual(addresses(0xffff_c14a_2317_35b4n, ...words, 0x914f4004), [
      "ffffc14a24a42e80",
      "ffffc14a24a42e88"
    ])
  })

  it("are none where no adrp was before", () => {
    assert.deepStrictEqual(addresses(0n, 0x910c02b5, 0xf9400440, 0xd503201f), [])
    assert.deepStrictEqual(addresses(0n), [])
  })
})
