"""What models were asked and what it cost, and what it may cost."""

import streamlit as st

from app.client import ApiError, Role, Usage
from app.ui import draw, problems, ranges, session


def _models(found: Usage) -> None:
    rows: dict[str, list[float]] = {}
    for each in found.data:
        row = rows.setdefault(each.model, [0, 0, 0, 0, 0, 0.0])
        tokens = (each.prompt_tokens, each.cached_tokens, each.completion_tokens)
        for place, more in enumerate((each.calls, each.answered, *tokens, each.cost_usd)):
            row[place] += more
    draw.table(
        ["Model", "Calls", "Answered", "Tokens in", "of them cached", "Tokens out", "Cost"],
        [
            (draw.text(model), *(f"{int(value):,}" for value in row[:5]), f"${row[5]:,.4f}")
            for model, row in sorted(rows.items(), key=lambda pair: -pair[1][5])
        ],
        numbers=range(1, 7),
    )


def _budgets(found: Usage) -> None:
    st.html('<div class="ci-heading">Budgets</div>')
    if found.budgets:
        draw.table(
            ["Whose", "A", "Limit", "Spent", "Left"],
            [
                (
                    draw.text(each.scope),
                    each.period,
                    *(f"${value:,.2f}" for value in (each.limit_usd, each.spent_usd)),
                    f"${each.left_usd:,.2f}",
                )
                for each in found.budgets
            ],
            numbers=(2, 3, 4),
        )
    else:
        draw.empty("No budget is set", "Without one, models may cost whatever is asked of them.")
    if not session.may(Role.ADMIN):
        return
    with st.popover("Set the workspace's budget"), st.form("budget", border=False):
        day = st.number_input("US dollars a day (none: no limit)", min_value=0.0, value=None)
        month = st.number_input("US dollars a month (none: no limit)", min_value=0.0, value=None)
        if st.form_submit_button("Set", type="primary"):
            try:
                session.client().set_budget("workspace", day, month)
            except ApiError as error:
                problems.show(error)
            else:
                st.rerun()


def show() -> None:
    """Draws the page."""
    draw.title("Usage and cost", "Calls of models by day, in UTC.")
    query = ranges.choose("usage-range", "30 days")
    with st.spinner("Counting ..."):
        found = session.client().usage(**query)
    draw.metrics(
        ("Cost", f"${found.cost_usd:,.4f}"),
        ("Calls", f"{sum(each.calls for each in found.data):,}"),
        ("Tokens in", f"{sum(each.prompt_tokens for each in found.data):,}"),
        ("Tokens out", f"{sum(each.completion_tokens for each in found.data):,}"),
    )
    if found.data:
        values = [
            {"day": f"{each.day:%Y-%m-%d}", "model": each.model, "calls": each.calls, "cost": f"${each.cost_usd:,.4f}"}
            for each in found.data
        ]
        axis = {"format": "%d %b", "labelOverlap": True, "grid": False, "title": None}
        encoding = {
            "x": {"field": "day", "type": "temporal", "timeUnit": "utcyearmonthdate", "axis": axis},
            "y": {"field": "calls", "type": "quantitative", "title": "Calls"},
            "color": {"field": "model", "type": "nominal", "title": None, "legend": {"orient": "bottom"}},
            "tooltip": [
                {"field": "day", "title": "Day"},
                {"field": "model", "title": "Model"},
                {"field": "calls", "title": "Calls"},
                {"field": "cost", "title": "Cost"},
            ],
        }
        draw.chart(values, 260, {"mark": {"type": "bar"}, "encoding": encoding})
        _models(found)
    else:
        draw.empty("No model was asked in this range", "The built-in engine costs nothing, and is not counted.")
    _budgets(found)


show()
