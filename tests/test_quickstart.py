"""docs/quickstart.md is true: its commands run as they stand, from a fresh clone to four operators that stop cleanly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from relayer.testnet.broker import find_mosquitto
from relayer.testnet.nodes import find_anvil
from tests.quickstart import LIMIT_S, PAGE, get_blocks, make_script, run


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 300)
@pytest.mark.parametrize("part", [1, 2])
def test_every_command_of_the_page_works_in_a_fresh_clone(tmp_path, part):
    if part == 2 and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    if part == 2 and find_anvil() is None and shutil.which("npm") is None:
        pytest.skip("neither anvil nor npm, which installs it, is there")
    code, said = run(part, tmp_path)
    assert said[-1] == "@@ end", "\n".join(said[-40:])
    assert code == 0
    if part == 2:
        assert sum("stopped cleanly" in line for line in said) == 4
        assert any(line.startswith("SAME: ") for line in said)


def test_the_session_stops_at_the_first_command_that_fails_and_names_its_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One\n\n    echo first\n\nwords\n\n    false\n\n# Two\n\n    for n in 1 2; do\n        echo $n\n    done\n"
    )
    assert get_blocks(page, 2) == [("Two", "for n in 1 2; do\n    echo $n\ndone")]
    done = subprocess.run(["bash", "-c", make_script(get_blocks(page))], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["@@ 0 One", "first", "@@ 1 One"]


def test_both_parts_of_the_page_have_commands():
    assert len(get_blocks(PAGE, 1)) > 5
    assert len(get_blocks(PAGE, 2)) > 8
    assert isinstance(PAGE, Path)
