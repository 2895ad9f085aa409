export { type ByteRun, encodeAt, EncodeError, encodeKey, encodeValue } from "../btf/render/ValueEncoder.ts"
export type { EntryWalk } from "./EntryWalk.ts"
export * as GuestMapAccessor from "./guest/GuestMapAccessor.ts"
export { listLinks } from "./guest/links/Links.ts"
export { listPrograms } from "./guest/programs/ProgramWalk.ts"
export { type MapAssignment, MapWriteError, type MapWritten, writeMaps } from "./guest/write/MapWrite.ts"
export { type InnerMaps, openInnerMaps } from "./InnerMaps.ts"
export { Attachment, Link } from "./Link.ts"
export { makeAccessor } from "./MakeAccessor.ts"
export {
  BpfUnreadable,
  type Listing,
  MapAccessor,
  type MapAccessorService,
  MapNotFound,
  MapProblem
} from "./MapAccessor.ts"
export { MapInfo } from "./MapInfo.ts"
export { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"
export { Program, ProgramTarget } from "./Program.ts"
export {
  Consistency,
  Details,
  DumpDocument,
  DumpRecord,
  Entry,
  Freeze,
  Header,
  Kernel,
  MapDump,
  PlainJson,
  ProgramInfo,
  Source
} from "./Report.ts"
export { Change, DiffDocument, FieldChange } from "./report/DiffChange.ts"
export { parseDump } from "./report/DiffInput.ts"
export { type Dump, jsonDocument, ndjsonRecords } from "./report/DumpWriter.ts"
export type { EntryTexts } from "./report/EntryJson.ts"
export { watchMaps, WatchTick } from "./report/MapWatch.ts"
export {
  type DiffMap,
  type DiffSide,
  diffSnapshots,
  NotADump,
  secondsBetween,
  sideOfDocument,
  sideOfReaders
} from "./report/SnapshotDiff.ts"
