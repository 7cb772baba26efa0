// Socket.IO on Node, over WebSocket alone: what one emits goes to all others in the room.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const server = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  // A run is shorter than this: the load generator need not answer its keepalive.
  pingInterval: 600_000,
});

server.on("connection", (socket) => {
  const room = socket.handshake.query.room ?? "room";
  socket.join(room);
  socket.on("data", (data) => socket.to(room).emit("data", data));
});

http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(`ready ${http.address().port}`);
});
