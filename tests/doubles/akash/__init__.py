"""An honest double of Akash: a chain with its REST surface, and providers that start real nodes.

Built from the wire facts and golden vectors, never from `engram.provisioning.akash`: client and double share no code,
so that they cannot share a mistake. `python -m tests.doubles.akash --help` runs it as a process of its own.

- `wire`, `messages`, `transaction`, `addresses`: bytes to what they mean, strictly
- `store`, `bank`, `escrow`, `deployment`, `market`, `minting`: the rules, with the chain's own codes and texts
- `chain`: transactions are checked, wait, enter a block
- `answers`, `rest`: what a node of the chain answers
- `provider`, `bidding`, `gateway`, `tokens`, `manifests`, `workloads`, `certificates`: a provider
- `faults`, `control`: what a test makes go wrong
"""
