"""The play-money facilitator: x402's /verify, /settle and /supported over books that are worth nothing."""
