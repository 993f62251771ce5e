"""The Cosmos family: CometBFT light client, ICS-23 proofs, CosmWasm vault (protocol.md 11)."""
