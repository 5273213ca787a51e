"""Log lines: where they go, and that nothing depends on it."""

import subprocess
import sys

import pytest

from app.settings import ROOT

WRITE = (
    "import structlog; from app.logs import configure_logs; configure_logs('info');"
    " log = structlog.get_logger(); log.info('told', number=1); log.debug('not told'); log.error('told'); print('done')"
)


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_lines_that_nobody_takes_harm_nothing(where: str) -> None:
    command = ["/bin/sh", "-c", f'"$0" -c "$1" {where}', sys.executable, WRITE]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE).stdout == b"done\n"


def test_a_line_is_an_object_of_json() -> None:
    lines = subprocess.run([sys.executable, "-c", WRITE], cwd=ROOT, capture_output=True, check=True).stderr.splitlines()
    assert [line.partition(b',"timestamp"')[0] for line in lines] == [
        b'{"number":1,"event":"told","level":"info"',
        b'{"event":"told","level":"error"',
    ]
