// The networks that the app pays on, each with its one dollar token of 6 decimals. Others are "not with this app".

export interface Network {
  readonly name: string;
  readonly caip2: string;
  readonly chainId: bigint;
  readonly asset: string;
  readonly assetName: string;
  readonly assetVersion: string;
  readonly kind: "play" | "test" | "real";
  readonly label: string;
}

export const NETWORKS: readonly Network[] = [
  {
    name: "engram-play",
    caip2: "eip155:31337",
    chainId: 31337n,
    asset: "0x504c4159000000000000000000000000000000d5",
    assetName: "Engram Play USD",
    assetVersion: "2",
    kind: "play",
    label: "Play money",
  },
  {
    name: "base",
    caip2: "eip155:8453",
    chainId: 8453n,
    asset: "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
    assetName: "USD Coin",
    assetVersion: "2",
    kind: "real",
    label: "Base",
  },
  {
    name: "base-sepolia",
    caip2: "eip155:84532",
    chainId: 84532n,
    asset: "0x036cbd53842c5426634e7929541ec2318f3dcf7e",
    assetName: "USDC",
    assetVersion: "2",
    kind: "test",
    label: "Base Sepolia",
  },
];

/** Find a network by either of its names. */
export function network(name: string): Network | undefined {
  return NETWORKS.find((each) => each.name === name || each.caip2 === name);
}
