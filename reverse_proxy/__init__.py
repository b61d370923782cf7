"""The reverse proxy under the name that it has in Bittensor's subnets: `python -m reverse_proxy.server`."""
