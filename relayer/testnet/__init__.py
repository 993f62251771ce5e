"""The testnet harness: real nodes, sidecars, a broker and operator processes on this machine, a story in wall-clock time, a report."""
