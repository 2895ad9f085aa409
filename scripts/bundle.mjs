// How the command's parts are bundled, for what builds them and for what measures them.
import { build } from "esbuild"

/** One CommonJS file of a program and what it imports, but for native modules. */
export const bundle = (options) =>
  build({
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    minify: true,
    lineLimit: 160, // Node prints the line where a program broke
    external: ["koffi", "lzma-native", "lz4-napi", "numcodecs"],
    logLevel: "warning",
    logOverride: { "empty-import-meta": "silent" }, // src/kvm/native/abi/Koffi.ts knows that it may be in a CommonJS bundle
    ...options
  })

/** The same as the function that src/cli/start.cjs calls: V8 takes the file as it is, without a copy of its text. */
export const bundleStarted = (options) =>
  bundle({
    banner: { js: "(function(require,importModule){" },
    footer: { js: "})" },
    ...options
  })
