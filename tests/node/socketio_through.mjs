// A Socket.IO server that prints its port (`server`), or clients through a proxy (`client URL HEADERS_FILE`, a list of
// headers, one for each): they print "open", speak until standard input ends, then what came back and what was lost.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Server } from "socket.io";
import { io } from "socket.io-client";

const [mode, url, headersFile] = process.argv.slice(2);

function serve() {
  const server = createServer();
  const sockets = new Server(server, { transports: ["websocket"] });
  sockets.on("connection", (socket) => socket.on("say", (text, answer) => answer(text.toUpperCase())));
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

async function speak() {
  const each = JSON.parse(readFileSync(headersFile));
  const lost = [];
  let answers = 0;
  let speaking = true;
  const sockets = each.map((extraHeaders) => io(url, { transports: ["websocket"], extraHeaders, reconnection: false }));
  await Promise.all(
    sockets.map(
      (socket) =>
        new Promise((open, fail) => {
          socket.on("connect", open);
          socket.on("connect_error", fail);
        }),
    ),
  );
  for (const socket of sockets) socket.on("disconnect", (why) => lost.push(why));
  console.log("open");
  process.stdin.on("end", () => (speaking = false)).resume();
  while (speaking) {
    for (const socket of sockets) {
      const said = await socket.timeout(5000).emitWithAck("say", `word ${answers}`).catch(String);
      if (said === `WORD ${answers}`) answers += 1;
      else lost.push(said);
    }
  }
  console.log(JSON.stringify({ answers, lost }));
  process.exit(0);
}

await (mode === "server" ? serve() : speak());
