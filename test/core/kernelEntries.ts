import * as NodeContext from "@effect/platform-node/NodeContext"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { gzipSync } from "node:zlib"
import { kconfigHash } from "../../src/core/kernels/cache/CacheKey.ts"
import { type KernelContents, storeKernel } from "../../src/core/kernels/cache/KernelCache.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { bzImage, run } from "./samples.ts"

/** What the kernel stages need of the host. */
export const Host = Layer.merge(NodeContext.layer, NativeKoffi.layer)

/** A directory of the scope's. */
export const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-kernel-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Run with these environment variables alone. */
export const withVariables = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))

/** Write a file, and the directories above it; its path. */
export const put = (path: string, content: Uint8Array | string): string => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  return path
}

/** A bzImage of a release. */
export const image = (release: string): Uint8Array => bzImage(gzipSync(Buffer.from("kernel")), release)

/** An ELF file with the symbols, section and banner of a kernel; `lines` of C instead of all that where given. */
export const vmlinux = (
  release: string,
  lines: ReadonlyArray<string> = [
    "int runqueues = 1, __per_cpu_offset = 1;",
    "__attribute__((section(\".BTF\"))) char types[4] = {1};"
  ]
): Buffer => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-vmlinux-"))
  try {
    const banner = `const char linux_banner[] = "Linux version ${release} (builder@host) #1 SMP";`
    const source = put(join(directory, "kernel.c"), [banner, ...lines, ""].join("\n"))
    run("clang", ["-c", source, "-o", join(directory, "vmlinux")])
    return readFileSync(join(directory, "vmlinux"))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** A kernel to store: what it is, and the content of its files beside the image. */
export interface Sample extends Partial<Pick<KernelContents, "source" | "kconfigHash" | "extraKconfigHash">> {
  readonly release: string
  readonly vmlinux?: Uint8Array
  readonly config?: string
}

/** Store a kernel under a key, a second after the one before; its directory. */
export const store = (root: string, key: string, sample: Sample) =>
  TestClock.adjust("1 second").pipe(
    Effect.zipRight(storeKernel(root, key, (directory) =>
      Effect.sync(() => {
        put(join(directory, "bzImage"), image(sample.release))
        if (sample.vmlinux !== undefined) put(join(directory, "vmlinux"), sample.vmlinux)
        if (sample.config !== undefined) put(join(directory, "config"), sample.config)
        return {
          source: sample.source ??
            { kind: "tarball", version: sample.release, from: "https://example.org/linux.tar.xz" },
          release: sample.release,
          image: "bzImage",
          vmlinux: sample.vmlinux === undefined ? null : "vmlinux",
          config: sample.config === undefined ? null : "config",
          kconfigHash: sample.kconfigHash === undefined ? kconfigHash() : sample.kconfigHash,
          extraKconfigHash: sample.extraKconfigHash ?? null
        }
      }), { replace: true })),
    Effect.map((entry) => entry.directory)
  )
