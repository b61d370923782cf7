// The checksum of an address, without loading the code that pays before it is needed.

export async function checksummedLazily(address: string): Promise<string> {
  return (await import("./spending")).checksummed(address);
}
