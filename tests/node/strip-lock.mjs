// Keeps the checksums of package-lock.json and drops its addresses: where packages come from is for the machine to say.
import { readFileSync, writeFileSync } from "node:fs";

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
for (const entry of Object.values(lock.packages)) {
  if (!entry.link) delete entry.resolved; // a link's is a folder of this checkout
  delete entry.funding;
}
writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n");
