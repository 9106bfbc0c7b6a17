"""Progress at a terminal and its silence elsewhere."""

from __future__ import annotations

import io

from survey_ml.engine.progress import PlainProgress, QuietProgress, RichProgress, choose_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use(progress):
    progress.begin("smooth", 3)
    for outcome in ("done", "skipped", "failed"):
        progress.advance("smooth", outcome)
    progress.end("smooth")


def test_quiet_away_from_a_terminal(capsys):
    progress = choose_progress(io.StringIO())
    assert isinstance(progress, QuietProgress)
    use(progress)
    assert capsys.readouterr() == ("", "")


def test_plain_line():
    stream = Terminal()
    use(PlainProgress(stream))
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("smooth")
    assert "3/3 tiles" in last
    assert "1 set aside" in last
    assert last.endswith("\n")


def test_bars(capsys):
    progress = choose_progress(Terminal())
    assert isinstance(progress, RichProgress)
    with progress:
        use(progress)
    shown = capsys.readouterr().err
    assert "smooth" in shown
    assert "3/3" in shown
