// Bun's own server (uWebSockets, C++): what one publishes goes to all other subscribers of the room.
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request, server) {
    const room = new URL(request.url).pathname;
    if (server.upgrade(request, { data: { room } })) return undefined;
    return new Response("expected a WebSocket", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    // The highest it takes: by default it drops messages for a receiver that is 1 MiB behind.
    backpressureLimit: 256 * 1024 * 1024,
    open(socket) {
      socket.subscribe(socket.data.room);
    },
    message(socket, message) {
      socket.publish(socket.data.room, message);
    },
  },
});

console.log(`ready ${server.port}`);
