// uWebSockets.js: its own publish/subscribe, the fastest way it has. Up to 4 MiB may wait per viewer, nobody is cut off.
// A connection to /publish writes: each of its messages is an event. Prints the port it listens on.
"use strict";
const uWS = require("uwebsockets");

const quiet = { idleTimeout: 0, sendPingsAutomatically: false, maxBackpressure: 4 * 1024 * 1024 };
const app = uWS.App();
app
  .ws("/publish", { ...quiet, message: (_, event) => app.publish("room", event, false) })
  .ws("/*", { ...quiet, open: (socket) => socket.subscribe("room") })
  .listen("127.0.0.1", 0, (listening) => {
    if (!listening) process.exit(1);
    console.log(uWS.us_socket_local_port(listening));
  });
