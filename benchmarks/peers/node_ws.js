// Node and its `ws`. Arguments: a port, and the folder of the package ws.
const { createServer } = require("node:http");
const { WebSocketServer } = require(process.argv[3]);

const members = new Set();
const server = createServer((request, response) => {
  response.writeHead(200, { "content-type": "text/plain" });
  response.end("a page that never changes.");
});

new WebSocketServer({ server, perMessageDeflate: false, backlog: 1024 }).on("connection", (socket, request) => {
  if (request.url === "/echo") {
    socket.on("message", (data) => socket.send(data, { binary: false }));
    return;
  }
  members.add(socket);
  socket.on("close", () => members.delete(socket));
  socket.on("message", (data) => {
    for (const member of members) member.send(data, { binary: false });
  });
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 1024 });
