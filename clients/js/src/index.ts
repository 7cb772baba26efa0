export { Client, type ClientOptions, type JoinOptions, QueueEnded, type Standing } from "./client.js";
export { Connection, type ConnectionEvents } from "./connection.js";
export {
  BrowserStore,
  CredentialKeeper,
  type Credentials,
  type CredentialStore,
  MemoryStore,
} from "./credentials.js";
export { Emitter } from "./emitter.js";
export {
  type Detail,
  Disconnected,
  ErrorCode,
  type ErrorObject,
  ProtocolError,
  Refused,
  TimedOut,
} from "./errors.js";
export { type DataOf, type DataPathsOf, Http, type Method, type RequestOf } from "./http.js";
export { type ConnectionOptions } from "./kept_socket.js";
export { LiveMap } from "./live_map.js";
export { type Json, type JsonObject, merged } from "./merge_patch.js";
export type * from "./protocol.js";
export { CloseCode } from "./protocol.js";
export { type Interest, type Kept, Room, type RoomEvents, type SetOptions } from "./room.js";
export { type SessionEvents, SessionSocket, type Watched } from "./session.js";
export { type SocketClass, type SocketLike } from "./socket.js";
export { Backoff } from "./timing.js";
