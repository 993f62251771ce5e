"""`relayer completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

from relayer.render import Answer

PROGRAM = "relayer"
VARIABLE = "_RELAYER_COMPLETE"


def show_completion(shell: str) -> Answer:
    """The script of a shell, as its text: to be evaluated or kept in a file."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # typer keeps it there

    script = get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)
    return Answer({"schema": "relayer/completion/1", "shell": shell, "script": script}, [script])
