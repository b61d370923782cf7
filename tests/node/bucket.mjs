// A bucket named "vault" on npm's s3rver, whose key is S3RVER with the secret S3RVER. `node bucket.mjs FOLDER`; prints its
// port. Lists of more than one page need --openssl-legacy-provider.
import S3rver from "@20minutes/s3rver";

const configureBuckets = [{ name: "vault" }];
const server = new S3rver({ address: "127.0.0.1", port: 0, silent: true, directory: process.argv[2], configureBuckets });
console.log((await server.run()).port);
