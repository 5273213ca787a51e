"""Importing a CSV: dropped, matched, sent as it is read, and told row by row."""

import streamlit as st

from app.client import ApiError, Imported, Role
from app.ui import draw, problems, session, uploads
from app.ui.csv_file import FIELDS, REQUIRED, Header, blocks, read_header

LEFT_OUT = "(left out)"
STATE = "imported"


def _match(header: Header) -> dict[str, str]:
    """Draws which column is which field, and returns the field of each column that is used."""
    if header.fits:
        return {name: name for name in header.names}
    st.html('<div class="ci-heading">Which column is what?</div>')
    chosen: dict[str, str] = {}
    places = st.columns(3)
    for number, field in enumerate(FIELDS):
        options = [LEFT_OUT, *header.names]
        guess = header.guess(field)
        label = field + (" (required)" if field in REQUIRED else "")
        found = places[number % 3].selectbox(
            label, options, index=options.index(guess) if guess else 0, key=f"column-{field}"
        )
        if found and found != LEFT_OUT:
            chosen[found] = field
    left = [name for name in header.names if name not in chosen]
    if left:
        st.html(f'<p class="ci-note">Left out: {draw.chips(left)}</p>')
    return chosen


def _report(name: str, report: Imported) -> None:
    rows = report.stored + report.duplicates + report.rejected
    kind: draw.Kind = "good" if not report.rejected else "warning"
    draw.alert(kind, f"{rows:,} rows read", name)
    draw.metrics(
        ("Stored", f"{report.stored:,}"),
        ("Duplicates", f"{report.duplicates:,}"),
        ("Rejected", f"{report.rejected:,}"),
    )
    if report.errors:
        st.html('<div class="ci-heading">Rejected rows</div>')
        draw.table(
            ["Line", "Code", "What is wrong"],
            [(str(error.line), draw.text(error.code), draw.text(error.detail)) for error in report.errors],
            numbers=[0],
        )
        st.html(
            '<p class="ci-note">Mend these rows and import the file again: what is stored already counts as'
            " a duplicate, as long as rows have a message_id.</p>"
        )
        if report.rejected > len(report.errors):
            st.html(f'<p class="ci-note">The first {len(report.errors):,} of {report.rejected:,}.</p>')
    if report.stored or report.duplicates:
        st.page_link("views/conversations.py", label="See the conversations", icon=":material/forum:")


def show() -> None:
    """Draws the page."""
    draw.title("Import", "A CSV with a row for each message; separated by comma, semicolon or tab.")
    if not session.may(Role.EDITOR):
        draw.alert("warning", "You are a viewer", "To import, ask an admin of the workspace for the role of an editor.")
        return
    uploads.allow()
    file = st.file_uploader("CSV file", type=["csv", "tsv", "txt"], key="csv")
    if file is None:
        draw.table(
            ["Column", "What it holds"],
            [(f"<code>{name}</code>", draw.text(what)) for name, what in FIELDS.items()],
        )
        st.html(
            '<p class="ci-note">Other names can be matched after dropping. Without <code>message_id</code>, importing'
            " the file again stores it again.</p>"
        )
        return
    try:
        header = read_header(file)
    except ValueError as error:
        draw.alert("bad", "This file cannot be read", str(error))
        return
    columns = _match(header)
    missing = [field for field in REQUIRED if field not in columns.values()]
    if missing:
        draw.alert("warning", "Columns are missing", f"Choose one for: {', '.join(missing)}.")
    safe = "message_id" in columns.values()
    advice = "importing the file again goes on from there" if safe else "importing the file again stores that twice"
    st.html(
        f'<p class="ci-note">Stay here until it is done: leaving the page stops it, what was sent by then is stored,'
        f" and {advice}.</p>"
    )
    if st.button("Import", type="primary", disabled=bool(missing)):
        st.session_state.pop(STATE, None)
        bar = st.progress(0.0, "Sending ...")

        def tell(done: float) -> None:
            said = f"Sending ... {done:.0%}" if done < 1 else "Sent. Waiting for the last rows to be stored ..."
            bar.progress(min(done, 1.0), said)

        try:
            report = session.client().import_csv(blocks(file, header, columns, tell))
        except ApiError as error:
            problems.show(error)
            if safe:
                draw.alert("info", "Import it again when this is mended", "What was stored counts as duplicate then.")
            else:
                draw.alert("warning", "A part of it may be stored", "Importing it again would store that part twice.")
            return
        except ValueError as error:
            draw.alert("bad", "The file stops making sense", str(error), "What comes before that line may be stored.")
            return
        finally:
            bar.empty()
        st.session_state[STATE] = (file.file_id, report)
    known = st.session_state.get(STATE)
    if known and known[0] == file.file_id:
        _report(file.name, known[1])


show()
