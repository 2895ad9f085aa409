import * as Effect from "effect/Effect"
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http"

/** A request that a server of a test got. */
export interface Asked {
  readonly path: string
  readonly headers: IncomingHttpHeaders
}

/** Answers a request; `count` says how many came before it. */
export type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => void

/** A real HTTP server on loopback for the scope's life. `asked` grows with each request. */
export const serve = (answer: Answer) =>
  Effect.acquireRelease(
    Effect.async<{ readonly url: string; readonly asked: Array<Asked>; readonly close: () => void }>((resume) => {
      const asked: Array<Asked> = []
      const server = createServer((request, response) => {
        asked.push({ path: request.url ?? "", headers: request.headers })
        answer(request, response, asked.length - 1)
      })
      const close = () => {
        server.closeAllConnections()
        server.close()
      }
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" ? address?.port : undefined
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, asked, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

/** How `sendFile` treats one request; by default as a good server does. */
export interface Manners {
  readonly etag?: string
  readonly lastModified?: string
  /** Close the connection after so many bytes of this answer, and when `arrived` says that the client has them. */
  readonly cutAfter?: number | undefined
  readonly arrived?: () => boolean
  /** Answer with the whole file, whatever part is asked for. */
  readonly ignoreRange?: boolean
  /** Send the part although the file is another one than `If-Range` names. */
  readonly ignoreIfRange?: boolean
  readonly headers?: Record<string, string>
}

/** Serve bytes as RFC 9110 asks for: validators, ranges, and the whole file where `If-Range` names another one. */
export const sendFile = (request: IncomingMessage, response: ServerResponse, bytes: Uint8Array, manners: Manners) => {
  const { etag, lastModified } = manners
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0)
  const condition = request.headers["if-range"]
  const same = condition === undefined || condition === etag || condition === lastModified
  const partial = from > 0 && manners.ignoreRange !== true && (same || manners.ignoreIfRange === true)
  if (partial && from >= bytes.length) {
    response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end()
    return
  }
  const body = partial ? bytes.subarray(from) : bytes
  response.writeHead(partial ? 206 : 200, {
    "content-type": "application/x-xz",
    "content-length": body.length,
    ...(partial ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    ...(etag === undefined ? {} : { etag }),
    ...(lastModified === undefined ? {} : { "last-modified": lastModified }),
    ...manners.headers
  })
  if (manners.cutAfter === undefined) response.end(body)
  else {
    response.write(body.subarray(0, manners.cutAfter))
    hangUpWhen(response, manners.arrived ?? (() => true))
  }
}

/** Close a connection once `arrived`: a client drops what it has got and not yet handed on when one is cut. */
export const hangUpWhen = (response: ServerResponse, arrived: () => boolean): void => {
  if (arrived()) response.destroy()
  else setTimeout(() => hangUpWhen(response, arrived), 5)
}
