"""The Ethereum family: sync-committee light client, account and storage proofs, adapter, simulated chain."""
