import torch

from oprd.models.windows import Windows, join_rows


def marked(*places):
    """A [B, 8] mask, true from each sequence's first place up to its second."""
    columns = torch.arange(8)
    return torch.stack([(columns >= start) & (columns < end) for start, end in places])


IDS = torch.arange(24).view(3, 8)
REAL = marked((2, 7), (0, 8), (3, 8))
WINDOW = marked((5, 6), (4, 8), (0, 0))


def test_windows_start_in_one_column_behind_their_prefixes():
    windows = Windows.of(IDS, REAL.long(), WINDOW, WINDOW)
    assert windows.prefix == 4
    assert windows.attention_mask.tolist() == [
        [0, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    read = windows.attention_mask.bool()
    assert windows.input_ids[0][read[0]].tolist() == [2, 3, 4, 5]
    assert windows.input_ids[1][read[1]].tolist() == list(range(8, 16))
    assert [part.tolist() for part in windows.split(WINDOW)] == [
        [[False] * 4] * 3,
        [[True, False, False, False], [True] * 4, [False] * 4],
    ]


def test_padding_that_all_sequences_have_is_left_out():
    windows = Windows.of(IDS[:1], REAL[:1].long(), WINDOW[:1], WINDOW[:1])
    assert windows.input_ids.tolist() == [[2, 3, 4, 5]]
    assert windows.attention_mask.all()


def test_rows_that_are_wanted_behind_the_window_are_read():
    windows = Windows.of(IDS, REAL.long(), WINDOW, marked((3, 7), (0, 0), (0, 0)))
    assert windows.attention_mask[0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    before, inside = windows.split(marked((3, 7), (0, 0), (0, 0)))
    assert before[0].tolist() == [False, False, True, True]
    assert inside[0].tolist() == [True, True, False, False]


def test_without_any_window_a_column_of_padding_stands_for_each_part():
    none = torch.zeros_like(WINDOW)
    windows = Windows.of(IDS, REAL.long(), none, none)
    assert windows.input_ids.shape == (3, 2)
    assert windows.prefix == 1
    assert not windows.attention_mask.any()


def test_a_window_from_the_first_token_has_a_prefix_of_padding():
    windows = Windows.of(IDS, REAL.long(), REAL, REAL)
    assert windows.prefix == 1
    assert windows.attention_mask.sum(1).tolist() == [5, 8, 5]


def test_rows_of_both_parts_are_joined_in_the_order_of_the_whole():
    mask = torch.rand(4, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    states = torch.randn(4, 9, 3)
    parts = mask[:, :5], mask[:, 5:]
    rows = states[:, :5][parts[0]], states[:, 5:][parts[1]]
    assert torch.equal(join_rows(parts, rows), states[mask])
