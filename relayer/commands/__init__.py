"""What each command of the command line does, one short file per group; `relayer.cli` holds the grammar."""
