"""Options and arguments that several commands of the command line take, so that a flag reads alike wherever it stands; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_CONFIG: Final = Path("relayer.toml")

_EXIT_CODES: Final = {
    "2": "2 wrong usage",
    "3": "3 configuration wrong",
    "4": "4 store unusable (missing, damaged, too new)",
    "75": "75 not available now, try again",
}

# ---- of every command

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="RELAYER_CONFIG", help="The operator's relayer.toml.", show_default=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: one JSON object with stable keys.")]
FullOption = Annotated[bool, typer.Option("--full", help="Whole identifiers instead of unique beginnings.")]

# ---- of decisions

OutOption = Annotated[Path, typer.Option("--out", help="The new parameters file; never overwritten.")]
FromOption = Annotated[
    str, typer.Option("--from", help="When nodes begin to use the new set: 2026-12-24T18:00Z or unix seconds.")
]
ParametersArgument = Annotated[Path, typer.Argument(help="A parameters file.")]
SignaturesOutOption = Annotated[
    Path | None, typer.Option("--out", help="Signatures file; beside the parameters otherwise.")
]

# ---- of key files

PasswordOption = Annotated[
    str | None, typer.Option("--password", help="file:PATH (mode 0600) or fd:NUMBER; a person is asked otherwise.")
]
NewPasswordFileOption = Annotated[
    Path | None, typer.Option("--new-password-file", help="Make a random password and write it to this new file.")
]
ThrowawayOption = Annotated[
    bool, typer.Option("--throwaway", help="For tests: cheap password guard; nodes refuse it unless told otherwise.")
]
NewKeyArgument = Annotated[Path, typer.Argument(help="A new file; never overwritten.")]
KeyArgument = Annotated[Path, typer.Argument(help="A keystore v3 file.")]

# ---- of the demo and the testnet

SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Another seed: other prices, premiums and sizes.")]
FolderOption = Annotated[Path | None, typer.Option("--folder", help="Of the run; a temporary one otherwise.")]
OldFolderOption = Annotated[Path, typer.Option("--folder", help="Of the run.")]
GivenOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Given endpoints and keys instead of nodes on this machine.")
]
FamiliesOption = Annotated[
    str,
    typer.Option(
        "--chains",
        help="Families of two or three chains: evm, cosmos, solana. wasmd is built once with go, surfpool with cargo.",
    ),
]
ExpiryOption = Annotated[
    int, typer.Option("--expiry-minutes", min=1, max=10_000, help="From the opening of the story.")
]
NetChainOption = Annotated[str, typer.Option("--chain", help="Its number or CAIP-2 name.")]
WholeOption = Annotated[int, typer.Option("--amount", min=1, max=1_000_000, help="In whole USDC.")]


def make_epilog(
    example: str, *, no: str = "the answer is no, or nothing has that name", codes: str = "2 3 4 75"
) -> str:
    """Return what the help of a command ends with: its example and its exit codes; ``no`` says what code 1 means."""
    return "\n".join(
        [
            "\b",
            "Example:",
            f"  {example}",
            "",
            "\b",
            "Exit codes:",
            "  0 ok",
            f"  1 {no}",
            *(f"  {_EXIT_CODES[c]}" for c in codes.split()),
        ]
    )


def make_group(root: typer.Typer, name: str, text: str, *, is_command: bool = False) -> typer.Typer:
    """Add a group of commands; ``is_command`` lets its name alone be one too."""
    group = typer.Typer(
        no_args_is_help=not is_command, invoke_without_command=is_command, rich_markup_mode=None, help=text
    )
    root.add_typer(group, name=name)
    return group
