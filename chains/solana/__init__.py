"""The Solana family. Nothing on Solana proves an account today; facts rest on observations that operators sign (protocol.md 11)."""
