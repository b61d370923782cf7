// Posts by fetch or node:http: `fetch|http URL HEADERS_FILE BODY_FILE|half`. What arrives goes to standard output as it
// comes; how it ended to standard error, as JSON. `half` sends a part of a body and never ends it.
import { readFileSync } from "node:fs";
import { request } from "node:http";

const [how, url, headersFile, bodyFile] = process.argv.slice(2);
const headers = JSON.parse(readFileSync(headersFile));
const part = Buffer.alloc(100_000, "x");
const body = bodyFile === "half" ? undefined : readFileSync(bodyFile);
let status = 0;

function end(error) {
  process.stderr.write(JSON.stringify({ status, error: error ? String(error.cause?.code ?? error.message) : "" }), () =>
    process.exit(0),
  );
}

if (how === "fetch") {
  const unended = new ReadableStream({ start: (controller) => controller.enqueue(part) });
  try {
    const answer = await fetch(url, { method: "POST", headers, body: body ?? unended, duplex: "half" });
    status = answer.status;
    for await (const data of answer.body) process.stdout.write(data);
    end();
  } catch (error) {
    end(error);
  }
} else {
  const length = body ? { "content-length": body.length } : {};
  const sending = request(url, { method: "POST", headers: { ...headers, ...length } }, (answer) => {
    status = answer.statusCode;
    answer.on("data", (data) => process.stdout.write(data));
    answer.on("error", end);
    answer.on("end", () => end());
  });
  sending.on("error", (error) => status || end(error));
  if (body) sending.end(body);
  else sending.write(part);
}
