// `ws`: a loop over its clients, as its documentation shows for broadcasts. Each viewer's frame is built by the library.
// A connection to /publish writes: each of its messages is an event. Prints the port it listens on.
"use strict";
const { WebSocketServer } = require("ws");

const viewers = new Set();
const server = new WebSocketServer(
  { host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false },
  () => console.log(server.address().port),
);
server.on("connection", (socket, request) => {
  socket.on("error", () => socket.terminate());
  if (request.url === "/publish") {
    socket.on("message", (event) => {
      for (const viewer of viewers) viewer.send(event, { binary: false });
    });
    return;
  }
  viewers.add(socket);
  socket.on("close", () => viewers.delete(socket));
});
