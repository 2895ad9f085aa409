import * as Effect from "effect/Effect"
import { execFileSync, spawnSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, normalize } from "node:path"
import { serve } from "../core/httpServer.ts"

/** Mounting needs root, or a kernel where users may make namespaces. */
export const mayMount = spawnSync("unshare", ["--mount", "true"]).status === 0

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
export const RELEASE = "6.99.1-cloud-amd64"
const PACKAGE = `linux-image-${RELEASE}`
const VERSION = "6.99.1-1"
/** Enough that each step takes its time. */
const MODULES = 400

/**
 * A mirror of Debian on loopback whose suite sid has one kernel, `debian:sid/6.99-cloud`, signed with a key of its own.
 * `wrap` gives the command that runs another where that key is Debian's, in a mount namespace of its own, as the process
 * that was started; `env` makes the mirror the machine's.
 * @param change what is changed in the package's files before it is built
 */
export const debianMirrorOf = (change: (files: string) => void) =>
  Effect.gen(function*() {
    const root = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-mirror-"))),
      (root) => Effect.sync(() => rmSync(root, { recursive: true, force: true }))
    )
    const keyring = makeRepository(root, change)
    const server = yield* serve((request, response) => {
      const path = join(root, normalize(new URL(request.url ?? "/", "http://mirror").pathname))
      try {
        response.end(readFileSync(path))
      } catch {
        response.writeHead(404).end()
      }
    })
    const configuration = join(root, "apt.conf")
    writeFileSync(join(root, "sources.list"), `deb ${server.url}/debian sid main\n`)
    writeFileSync(
      configuration,
      `Dir::Etc::sourcelist "${join(root, "sources.list")}";\nDir::Etc::sourceparts "/dev/null";\n` +
        `Acquire::http::Proxy::127.0.0.1 "DIRECT";\n`
    )
    const script = `mount --bind "$0" ${KEYRING} && exec "$@"`
    return {
      id: "debian:sid/6.99-cloud",
      env: { APT_CONFIG: configuration, http_proxy: undefined },
      wrap: (...words: ReadonlyArray<string>): ReadonlyArray<string> => [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        keyring,
        ...words
      ]
    }
  })

/** As `debianMirrorOf`, of a package as it should be. */
export const debianMirror = debianMirrorOf(() => undefined)

/** Fill the directory with what such a mirror serves; the path of its keyring. */
const makeRepository = (root: string, change: (files: string) => void): string => {
  const put = (path: string, content: Uint8Array | string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), content)
  }
  put(
    "tree/DEBIAN/control",
    `Package: ${PACKAGE}\nVersion: ${VERSION}\nArchitecture: amd64\nMaintainer: T <t@t.example>\nDescription: a kernel\n`
  )
  put(`tree/boot/vmlinuz-${RELEASE}`, randomBytes(2 ** 22))
  put(`tree/boot/config-${RELEASE}`, "CONFIG_64BIT=y\n")
  put(`tree/lib/modules/${RELEASE}/modules.builtin`, "")
  for (let n = 0; n < MODULES; n++) put(`tree/lib/modules/${RELEASE}/kernel/m${n}.ko`, randomBytes(2 ** 14))
  change(join(root, "tree"))
  const deb = `pool/${PACKAGE}_${VERSION}_amd64.deb`
  mkdirSync(join(root, "debian/pool"), { recursive: true })
  execFileSync("dpkg-deb", [
    "--build",
    "--root-owner-group",
    "-Zgzip",
    "-z1",
    join(root, "tree"),
    join(root, "debian", deb)
  ], {
    stdio: "ignore"
  })
  const described = (path: string) => {
    const bytes = readFileSync(join(root, path))
    return { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }
  }
  const { sha256, size } = described(`debian/${deb}`)
  const lists = "main/binary-amd64/Packages"
  put(
    `debian/dists/sid/${lists}`,
    `Package: ${PACKAGE}\nVersion: ${VERSION}\nArchitecture: amd64\nFilename: ${deb}\nSize: ${size}\nSHA256: ${sha256}\nDescription: a kernel\n`
  )
  const index = described(`debian/dists/sid/${lists}`)
  put(
    "debian/dists/sid/Release",
    `Origin: Debian\nSuite: unstable\nCodename: sid\nDate: ${
      new Date().toUTCString()
    }\nArchitectures: amd64\nComponents: main\n` +
      `SHA256:\n ${index.sha256} ${index.size} ${lists}\n`
  )
  const home = join(root, "gpg")
  mkdirSync(home, { mode: 0o700 })
  const gpg = (...words: ReadonlyArray<string>) =>
    execFileSync("gpg", ["--homedir", home, "--batch", "--quiet", "--yes", "--passphrase", "", ...words], {
      stdio: "pipe"
    })
  const release = join(root, "debian/dists/sid/Release")
  try {
    gpg("--quick-generate-key", "t@t.example", "rsa2048", "sign", "never")
    gpg("--output", join(dirname(release), "InRelease"), "--clearsign", release)
    gpg("--output", join(root, "keyring.gpg"), "--export")
  } finally {
    execFileSync("gpgconf", ["--homedir", home, "--kill", "all"])
  }
  return join(root, "keyring.gpg")
}
