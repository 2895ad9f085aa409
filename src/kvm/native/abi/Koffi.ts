import koffi from "koffi"
import { createRequire } from "node:module"
import { type KvmNative, kvmNativeOver } from "./KvmNative.ts"

/** The main thread's. */
export const loadKvmNative = (): KvmNative => kvmNativeOver(koffi)

/**
 * The path that a thread passes to `require` to load koffi. A CommonJS bundle has no `import.meta.url`, but `require`.
 */
export const koffiPath = (): string =>
  (import.meta.url === undefined ? require : createRequire(import.meta.url)).resolve("koffi")
