export { type Dump, jsonDocument, ndjsonRecords } from "./DumpWriter.ts"
export { type EntryWalk, Trouble } from "./EntryWalk.ts"
export { layerGuestMaps, makeGuestMapAccessor } from "./GuestMapAccessor.ts"
export { BpfUnreadable, type Listing, MapAccessor, MapNotFound, MapProblem } from "./MapAccessor.ts"
export { MapInfo } from "./MapInfo.ts"
export { decodeEntry, type MapEntry, type MapReader, problemOf } from "./MapReader.ts"
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
