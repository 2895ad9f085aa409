import koffi from "koffi"
import { createRequire } from "node:module"
import { type KvmNative, kvmNativeOver } from "./KvmNative.ts"

/** The main thread's. */
export const loadKvmNative = (): KvmNative => kvmNativeOver(koffi)

/** What a thread passes to `require` to get koffi. A CommonJS bundle has no `import.meta.url`, but `require`. */
export const koffiPath = (): string =>
  (import.meta.url === undefined ? require : createRequire(import.meta.url)).resolve("koffi")
