"""The relayer node: store, keys, gossip, tasks, service, command line."""
