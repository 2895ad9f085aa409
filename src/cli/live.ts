import * as Layer from "effect/Layer"
import { LiveHost } from "../bpf/live/LiveHost.ts"
import * as NativeKoffi from "../core/NativeKoffi.ts"

/** What reading this host needs; its file system comes with the command. */
export const LiveLive = LiveHost.layer.pipe(Layer.provideMerge(NativeKoffi.layer))
