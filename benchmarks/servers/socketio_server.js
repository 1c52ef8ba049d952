// Socket.IO on its default engine, WebSocket only, no compression (its default). An event `publish` of one connection is
// emitted as `e` to every other. Prints the port it listens on.
"use strict";
const http = require("http");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server, { transports: ["websocket"], serveClient: false });
io.on("connection", (socket) => {
  socket.on("publish", (event) => socket.broadcast.emit("e", event));
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(server.address().port));
