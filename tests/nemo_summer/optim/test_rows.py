from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_summer.optim.rows import cut_pieces


@settings(max_examples=300, deadline=None)
@given(start=st.integers(0, 60), held=st.integers(1, 60), length=st.integers(1, 17), first=st.integers(0, 9))
def test_every_number_of_a_share_lies_in_one_piece_under_its_own_row(
    start: int, held: int, length: int, first: int
) -> None:
    rows = {}
    for piece in cut_pieces(start, start + held, length, first):
        width, rest = divmod(piece.stop - piece.start, piece.rows)
        assert rest == 0
        for i in range(piece.stop - piece.start):
            assert piece.start + i not in rows
            rows[piece.start + i] = piece.first_row + i // width
    wanted = {i: first + (start + i) // length - start // length for i in range(held)}
    assert rows == wanted


def test_a_share_has_at_most_three_pieces() -> None:
    assert [len(cut_pieces(start, end, 10, 0)) for start, end in ((0, 50), (3, 50), (3, 47), (3, 8), (3, 14))] == [
        1,
        2,
        3,
        1,
        2,
    ]
