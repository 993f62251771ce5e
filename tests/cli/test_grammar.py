"""Every command is documented, has an example and its exit codes in its help, and light ones import nothing heavy."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from relayer import cli
from relayer.commands.causes import _TEXTS

DOCS = Path(__file__).parents[2] / "docs"
README = Path(__file__).parents[2] / "README.md"


def get_commands():
    root = typer.main.get_command(cli.app)
    out = {}
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            out |= {f"{name} {sub}": inner for sub, inner in command.commands.items()}
            if command.invoke_without_command:
                out[name] = command
        else:
            out[name] = command
    return out


COMMANDS = get_commands()


def run(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_the_commands_of_the_product_are_there():
    expected = {
        "demo", "status", "positions", "margin", "packets", "plan", "explain", "prove", "verify", "replay", "archive export", "version",
    }  # fmt: skip
    assert expected <= COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_an_example_and_exit_codes_in_its_help_and_takes_json(name):
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert f"Example:\n    relayer {name}" in result.stdout
    assert "Exit codes:\n    0 ok\n    1 " in result.stdout
    assert "--json" in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_is_documented_with_the_example_of_its_help_and_its_own_options(name):
    text = (DOCS / "cli.md").read_text()
    start = text.index(f"## relayer {name}\n")
    section = text[start : text.find("\n## ", start + 1) if "\n## " in text[start + 1 :] else len(text)]
    help_text = run(*name.split(), "--help").stdout
    example = re.search(r"Example:\n    (relayer .*)\n", help_text)[1]
    assert f"    {example}\n" in section
    common = {"--config", "--json", "--full", "--help"}
    for option in re.findall(r"--[a-z-]+", "\n".join(help_text.split("Options:")[1].split("Example:")[0].splitlines())):
        assert option in common or option in section or option in example, f"{name} {option} is not in docs/cli.md"


def get_shell_commands(text):
    """Commands of the program in indented blocks, also inside of loops; loop variables get a value, as a shell would give them one."""
    lines = re.sub(r" *\\\n *", " ", text).splitlines()
    for line in lines:
        if not line.startswith("    "):
            continue
        for part in re.findall(
            r"(?:^|; |do |until |\$\(|-- )(?:\.venv/bin/)?(relayer (?:[^;|#>)\"]|\"[^\"]*\")*)", line.strip()
        ):
            command = re.sub(r"\s2$|\s&\s*$", "", part.rstrip()).split("  ")[0]
            yield command.replace("$n", "1").replace("$op", "op1").replace("...", "relayer.toml")


def get_documented_commands():
    for path in (README, *sorted(DOCS.glob("*.md"))):
        for command in get_shell_commands(path.read_text()):
            yield path.name, command
    for code, (_, next_step) in _TEXTS.items():
        for command in re.findall(r"`(relayer [^`]*)`", next_step):
            yield code, command


@pytest.mark.parametrize(("where", "line"), sorted(set(get_documented_commands())))
def test_each_command_line_in_the_documentation_parses(where, line):
    words = shlex.split(line)[1:]
    name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
    assert name is not None, f"{where}: no such command: {line}"
    COMMANDS[name].make_context(name, words[len(name.split()) :] or ["--json"])


def test_commands_of_every_page_are_found_in_loops_and_over_line_ends_too():
    found = {command.split(" --")[0] for name, command in get_documented_commands() if name == "quickstart.md"}
    assert {
        "relayer keys new op1/keys/$key.json", "relayer init op1", "relayer run -c op1/relayer.toml", "relayer testnet claim",
        "relayer keys export-public op1/keys/operator.json", "relayer prove 31337:5 -c op1/relayer.toml",
    } <= found  # fmt: skip
    assert any("--metrics-port 9461" in command for _, command in get_documented_commands())


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["status", "--nonsense"], ["margin"], ["packets", "--last", "0"], ["demo", "--seed", "x"]],
)
def test_wrong_usage_ends_with_2_and_words(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["margin", "--help"], ["archive", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom relayer.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'web3', 'eth_account', 'numpy', 'sqlite3', 'aiohttp', 'rich', 'structlog', 'coincurve'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_verifies_loads_no_client_library():
    code = (
        "import sys\nimport relayer.commands.proofs, chains.registry\n"
        "print(sorted({'web3', 'eth_account', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_demo_overwrites_nothing(tmp_path):
    (tmp_path / "something").write_text("mine")
    result = run("demo", "--keep", str(tmp_path))
    assert result.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["something"]


def test_a_bug_of_ours_is_told_apart_from_every_answer(monkeypatch, capsys):
    def fail(**_):
        raise RuntimeError("boom")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == cli.BUG
    assert "please report it" in capsys.readouterr().err


def test_version_tells_what_runs():
    result = run("version")
    assert result.exit_code == 0
    assert "optsettle-1" in result.stdout


def test_a_pipe_that_closes_early_is_no_error():
    script = f"{shlex.quote(sys.executable)} -c 'from relayer.cli import main; main()' version --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("0", "{0")
    assert "Traceback" not in done.stderr
