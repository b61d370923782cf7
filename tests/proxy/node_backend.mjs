// A backend of node:http. Prints its port; counts each id it is given; closes idle connections after 100 ms.
import { createServer } from "node:http";

const seen = new Map();
const server = createServer((request, response) => {
  if (request.url === "/counts") {
    response.end(JSON.stringify([...seen.values()]));
    return;
  }
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    seen.set(body, (seen.get(body) ?? 0) + 1);
    if (process.argv[2] === "silent") response.removeHeader("keep-alive");
    response.end(body);
  });
});
server.keepAliveTimeout = 100;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
