"""One condition, two back ends, one list."""

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energon_datasets.columns import SCHEMA
from energon_datasets.view import View

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 5.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]),
    st.floats(allow_nan=True, allow_infinity=True),
)
TEXTS = st.one_of(
    st.none(), st.sampled_from(["", "still", "pan left", "'; drop table clips; --", "Ünï", '"']), st.text()
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["kept", "kept", "dropped"]),
            "motion": NUMBERS,
            "height": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
            "camera": TEXTS,
            "nice": st.one_of(st.none(), st.booleans()),
        }
    ),
    max_size=8,
)
SMALL = pa.schema(
    [
        ("clip_id", pa.string()),
        ("status", pa.string()),
        ("motion", pa.float64()),
        ("height", pa.int64()),
        ("camera", pa.string()),
        ("nice", pa.bool_()),
        ("empty", pa.null()),
    ]
)

literals = st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(repr), st.integers(-9, 9).map(str))
quoted = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=4).map(repr)
number = st.recursive(
    st.one_of(literals, st.sampled_from(["motion", "height", "empty"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        inner.map(lambda p: f"(-{p})"),
    ),
    max_leaves=4,
)
compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
atom = st.one_of(
    st.tuples(number, compare, number).map(" ".join),
    st.tuples(number, compare, number, compare, number).map(" ".join),
    st.tuples(st.sampled_from(["camera", "empty"]), compare, quoted).map(" ".join),
    st.tuples(quoted, st.sampled_from(["in", "not in"]), st.just("camera")).map(" ".join),
    st.tuples(number, st.sampled_from(["in", "not in"]), st.lists(literals, min_size=1, max_size=3)).map(
        lambda p: f"{p[0]} {p[1]} [{', '.join(p[2])}]"
    ),
    st.lists(quoted, min_size=1, max_size=3).map(lambda v: f"camera in [{', '.join(v)}]"),
    st.sampled_from(["nice", "nice == True", "nice != False", "camera is None", "motion is not None", "empty is None"]),
    number.map(lambda n: f"{n} is None"),
)
condition = st.recursive(
    atom.map(lambda a: f"({a})"),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({' '.join(p)})"),
        inner.map(lambda p: f"(not {p})"),
    ),
    max_leaves=5,
)


def table_of(rows):
    return pa.Table.from_pylist([{"clip_id": f"c{i}"} | row for i, row in enumerate(rows)], schema=SMALL)


@settings(max_examples=40, deadline=None)
@given(ROWS, condition)
def test_python_and_sql_choose_the_same_clips(rows, where):
    table, view = table_of(rows), View(where)
    chosen = view.predicate(table.schema)
    python = [row["clip_id"] for row in table.to_pylist() if row["status"] == "kept" and chosen(row) is True]
    assert view.keys(table) == python


@settings(max_examples=50, deadline=None)
@given(condition)
def test_the_canonical_text_reads_back_to_itself(where):
    canonical = View(where).canonical
    again = canonical.replace("is null", "is None").replace("true", "True").replace("false", "False")
    assert View(again).canonical == canonical


ROW = [
    {"status": "kept", "motion": 6.0, "camera": "pan left", "height": 64},
    {"status": "kept", "motion": None, "camera": "still", "height": 64},
    {"status": "kept", "motion": 2.0, "camera": None, "height": 64},
    {"status": "dropped", "motion": 9.0, "camera": "still", "height": 64},
]


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("", ["c0", "c1", "c2"]),
        ("motion > 5", ["c0"]),
        ("not (motion > 5)", ["c2"]),
        ("motion != 6 or camera == 'still'", ["c1", "c2"]),
        ("'pan' in camera", ["c0"]),
        ("'pan' not in camera", ["c1"]),
        ("1 < motion < 5", ["c2"]),
        ("motion / 0 > 0", []),
        ("motion is None and camera is not None", ["c1"]),
        ("-motion < -5", ["c0"]),
        ("height in (64, 128)", ["c0", "c1", "c2"]),
    ],
)
def test_what_is_missing_is_never_chosen_by_a_comparison(where, keys):
    assert View(where).keys(table_of(ROW)) == keys


def test_dropped_clips_are_asked_for_by_name():
    assert View("motion > 5").keys(table_of(ROW), status="dropped") == ["c3"]


def test_rows_as_dictionaries_give_the_same_list():
    table = table_of(ROW)
    assert View("motion > 5").keys(table.to_pylist()) == View("motion > 5").keys(table)


def test_spellings_of_one_condition_share_an_id_and_others_do_not():
    same = ["motion>5 and camera in ('a','b')", "(motion > 5.0) and camera in ['b', \"a\", 'a']"]
    assert len({View(where).id for where in same}) == 1
    assert View("").id == View("True").id == View("  ").id
    different = ["", "motion > 5", "motion >= 5", "motion > 5.1", "camera == 'a'", "camera == 'A'", "'a' in camera"]
    assert len({View(where).id for where in different}) == len(different)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("__import__('os').system('true')", "cannot hold"),
        ("motion.real > 1", "cannot hold `motion.real`"),
        ("[x for x in (1,)] == 1", "cannot hold"),
        ("motion ** 2 > 1", "cannot hold"),
        ("f'{motion}' == 'a'", "cannot hold"),
        ("(lambda: 1)() == 1", "cannot hold"),
        ("motion[0] > 1", "cannot hold"),
        ("motion == None", "cannot hold `None`"),
        ("motion is 5", "use =="),
        ("motion >", "cannot be read"),
        ("motion > 1; True", "cannot be read"),
        ("camera in camera", "wanted is a list"),
        ("motion in ()", "one or more"),
        ("motion in (1, 'a')", "one or more"),
        ("motion > 1e999", "beyond 1e308"),
        ("not " * 60 + "nice", "nested more than"),
        ("(" * 300 + "nice" + ")" * 300, "cannot be read"),
        ("nice and " * 1000 + "nice", "characters long"),
    ],
)
def test_what_the_language_does_not_have_is_refused_by_name(where, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        View(where)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("motoin > 5", "no column motoin: did you mean motion?"),
        ("motion == 'a'", "is a number"),
        ("camera > 5", "compares two of a kind"),
        ("motion", "wanted is true or false"),
        ("motion and nice", "beside `and`"),
        ("camera + 1 > 2", "beside +"),
        ("nice > False", "no order"),
        ("'a' in motion", "after `in`"),
    ],
)
def test_a_condition_that_does_not_fit_the_columns_says_why(where, message):
    with pytest.raises(ValueError) as caught:
        View(where).keys(table_of(ROW))
    assert message in str(caught.value)


def test_every_column_of_the_dataset_but_the_shape_can_be_asked_for():
    for field in SCHEMA:
        ask = View(f"{field.name} is not None")
        if field.name == "latent_shape":
            with pytest.raises(ValueError, match="neither numbers nor text"):
                ask.keys(SCHEMA.empty_table())
        else:
            assert ask.keys(SCHEMA.empty_table()) == []
