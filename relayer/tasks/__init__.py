"""The steps of a node, one short file each: no arithmetic, no SQL, no bytes (style.md 3.5)."""
