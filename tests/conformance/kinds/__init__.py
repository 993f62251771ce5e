"""One module per kind of vectors, named like its folder, each with discover(folder) -> Iterator[Case]."""
