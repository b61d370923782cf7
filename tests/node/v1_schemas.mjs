// Judges our answers by the schemas of x402's version 1, as x402-fetch and x402-axios bring them. Reads a list of
// { receipt, body } from standard input, an X-PAYMENT-RESPONSE decoded and a 402's body; prints what is wrong with each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const orders = JSON.parse(readFileSync(0, "utf8"));
const problems = orders.map(() => []);
for (const client of ["x402-fetch", "x402-axios"]) {
  const require = createRequire(createRequire(import.meta.url).resolve(client));
  const types = await import(pathToFileURL(require.resolve("x402/types")));
  orders.forEach(({ receipt, body }, at) => {
    const judge = (what, schema, value) => {
      const { error } = schema.safeParse(value);
      for (const issue of error?.issues ?? [])
        problems[at].push(`${client}: ${what}.${issue.path.join(".")}: ${issue.message}`);
    };
    judge("receipt", types.SettleResponseSchema, receipt);
    for (const offer of body.accepts) judge("accepts[]", types.PaymentRequirementsSchema, offer);
  });
}
console.log(JSON.stringify(problems));
