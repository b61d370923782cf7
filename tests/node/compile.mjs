// Prints { compiler, settings, abi, runtime } of the one contract in a Solidity file: node compile.mjs FILE NAME
import { readFileSync } from "node:fs";
import solc from "solc";

const [file, name] = process.argv.slice(2);
const settings = {
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 200 },
  viaIR: true,
  metadata: { appendCBOR: false, bytecodeHash: "none" },
};
const input = {
  language: "Solidity",
  sources: { [`${name}.sol`]: { content: readFileSync(file, "utf8") } },
  settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.deployedBytecode.object"] } } },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const problems = (output.errors ?? []).map((problem) => problem.formattedMessage);
if (problems.length) {
  console.error(problems.join("\n"));
  process.exit(1);
}
const { abi, evm } = output.contracts[`${name}.sol`][name];
console.log(JSON.stringify({ compiler: solc.version(), settings, abi, runtime: "0x" + evm.deployedBytecode.object }, null, 1));
