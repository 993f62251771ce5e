"""The demo: the story of a settlement on simulated chains, told by the real node, vaults, proofs and rules.

Only the chains, the price reporters and the clock are simulated. They enter through the same doors as real ones: endpoints
through the Reader, prices through the feed as signed reports, transactions through the Submitter or as signed raw bytes.
"""
