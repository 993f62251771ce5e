"""What the vaults promise on chain: sources, built artefacts and one reader of them per family."""
