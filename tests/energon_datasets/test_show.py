"""The tree counts what was written."""

from energon_datasets.lists import prepare
from energon_datasets.show import main


def test_the_tree_counts_clips_members_and_views(copy, capsys):
    prepare(copy, "motion > 2")
    assert main([str(copy)]) == 0
    text = capsys.readouterr().out
    for fact in (
        "27 clips: 24 kept, 3 dropped (motion 3)",
        "24 clips (20 train, 4 val)",
        "latents  3 shards, 24 members",
    ):
        assert fact in text
    assert "(motion > 2.0): 9 train, 3 val" in text  # clips 3, 4, 5, 9, 10, ... and 21, 22, 23


def test_a_folder_that_is_no_dataset_gives_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
