// A worker on npm's socket.io client, which answers jobs with their payload: the other side of the reference
// orchestrator. `node worker_client.mjs URL INTRODUCTION [TRANSPORT…]`; without one it begins by polling. Says what
// happens as lines of JSON.
import { io } from "socket.io-client";

const [url, introduction, ...transports] = process.argv.slice(2);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const socket = io(url, { reconnection: false, ...(transports.length > 0 && { transports }) });
socket.on("connect", () => {
  say({ connected: true });
  socket.emit("authenticate", JSON.parse(introduction));
});
socket.on("auth_success", (data) => {
  say({ auth_success: data });
  socket.emit("reconcile", { jobs: [] }, (answer) => say({ reconcile: answer }));
});
socket.on("auth_failed", (data) => say({ auth_failed: data }));
socket.on("job", (data, ack) => {
  ack?.(data.payload);
  if (data.id) socket.emit("job_result", { id: data.id, result: data.payload }, (answer) => say({ delivered: answer }));
});
socket.on("disconnect", (reason) => {
  say({ disconnected: reason });
  process.exit(0);
});
socket.on("connect_error", (error) => say({ error: String(error) }));
