"""The worker: a miner without an address, which connects to an orchestrator and runs the jobs that it is sent."""
