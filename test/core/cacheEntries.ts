import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type CacheEntry, readEntry, storeKernel } from "../../src/core/kernels/cache/KernelCache.ts"

/** Entries of the kernel cache whose files are a few words; kernelEntries.ts makes ones that look like kernels. */
export const KEY = "6.99.1-tarball-x86_64-kc0123abcd"

export const contents = {
  source: { kind: "tarball" as const, version: "6.99.1", from: "https://example.org/linux-6.99.1.tar.xz" },
  release: "6.99.1-test",
  image: "bzImage",
  vmlinux: "vmlinux",
  config: "config",
  kconfigHash: "0123abcd",
  extraKconfigHash: null
}

export const fill = (text: string) => (directory: string) =>
  Effect.sync(() => {
    for (const name of ["bzImage", "vmlinux", "config"]) writeFileSync(join(directory, name), `${name} ${text}`)
    return contents
  })

export const store = (root: string, key: string, text: string, replace = true) =>
  storeKernel(root, key, fill(text), { replace })

/** Store entries one after the other, each at a later time. */
export const storeAll = (root: string, keys: ReadonlyArray<string>) =>
  Effect.forEach(keys, (key) => Effect.zipLeft(store(root, key, key), Effect.sleep("2 millis")))

export const visible = (root: string) => readdirSync(root).filter((name) => name !== ".locks")

/** `key`, or `key: kind`, of each entry. */
export const brief = (entries: ReadonlyArray<CacheEntry>) =>
  entries.map((entry) => entry._tag === "Valid" ? entry.key : `${entry.key}: ${entry.kind}`)

export const fault = (root: string, key: string) =>
  Effect.map(readEntry(root, key), (entry) => {
    if (Option.isNone(entry)) return "no entry"
    return entry.value._tag === "Valid" ? "valid" : `${entry.value.kind}: ${entry.value.why}`
  })
