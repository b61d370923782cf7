// An orchestrator on npm's socket.io server. Commands are lines of JSON on standard input, what happens is lines of JSON
// on standard output. `node orchestrator.mjs PORT [PING_INTERVAL_MS PING_TIMEOUT_MS]`
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const [port, pingInterval = 5000, pingTimeout = 5000] = process.argv.slice(2).map(Number);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const http = createServer();
const io = new Server(http, { pingInterval, pingTimeout, connectTimeout: 5000 });
let latest;
const byHotkey = new Map();

// Bytes as hex, so that a line shows them.
const shown = (value) =>
  Buffer.isBuffer(value)
    ? { hex: value.toString("hex") }
    : Array.isArray(value)
      ? value.map(shown)
      : value && typeof value === "object"
        ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, shown(each)]))
        : value;
const made = (value) =>
  value && typeof value === "object"
    ? typeof value.hex === "string"
      ? Buffer.from(value.hex, "hex")
      : Array.isArray(value)
        ? value.map(made)
        : Object.fromEntries(Object.entries(value).map(([name, each]) => [name, made(each)]))
    : value;

io.on("connection", (socket) => {
  say({ connected: socket.id, hotkey: socket.handshake.headers["x-miner-hotkey"] });
  socket.on("authenticate", (data, ack) => {
    latest = socket;
    byHotkey.set(data.hotkey, socket);
    say({ authenticate: data, wants_ack: ack !== undefined });
  });
  socket.on("job_result", (data, ack) => {
    say({ job_result: shown(data) });
    ack?.({ ok: true });
  });
  socket.on("disconnect", (reason) => say({ disconnected: reason }));
});

const commands = {
  // A job as the seed's orchestrator sends it: by acknowledgement.
  job: ({ data }) => latest.emit("job", made(data), (result) => say({ answer: shown(result), id: data?.id })),
  tell: ({ data }) => latest.emit("job", made(data)),
  emit: ({ name, data }) => latest.emit(name, data),
  use: ({ hotkey }) => (latest = byHotkey.get(hotkey)),
  drop: () => latest.disconnect(),
  cut: () => latest.conn.transport.socket._socket.destroy(),
  // Many jobs in turn, `lanes` at once; says how long all took and the median of one, in ms.
  burst: async ({ count, lanes, data, named }) => {
    const times = [];
    const began = process.hrtime.bigint();
    let next = 0;
    const lane = async () => {
      while (next < count) {
        const number = next++;
        const sent = process.hrtime.bigint();
        await new Promise((resolve) =>
          latest.emit("job", named ? { ...data, id: `${named}-${number}` } : data, resolve),
        );
        times.push(Number(process.hrtime.bigint() - sent) / 1e6);
      }
    };
    await Promise.all(Array.from({ length: lanes }, lane));
    times.sort((one, other) => one - other);
    say({ burst: { all_ms: Number(process.hrtime.bigint() - began) / 1e6, p50_ms: times[times.length >> 1] } });
  },
};
createInterface({ input: process.stdin }).on("line", async (line) => {
  const command = JSON.parse(line);
  await commands[command.do](command);
});
http.listen(port, "127.0.0.1", () => say({ listening: http.address().port }));
