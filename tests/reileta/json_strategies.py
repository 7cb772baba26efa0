"""JSON for Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reileta.rules.resource.json_values import Json

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=3)
)
names = st.sampled_from(["a", "b", "c", "é"])
values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
patches: st.SearchStrategy[dict[str, Json]] = st.dictionaries(names, values, max_size=4)
