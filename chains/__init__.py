"""Chain families: readers, verifiers, submitters, and the seam between them and the relayer (`base`, `registry`)."""
