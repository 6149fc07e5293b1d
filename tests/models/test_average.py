"""The moving average of weights in pieces; of whole ones see `test_own`."""


def test_weights_in_pieces_have_the_average_of_whole_ones_and_its_file_serves_both(
    tmp_path, two_processes
):
    errors = two_processes("training.fsdp2_average", tmp_path)
    assert not any(errors), errors
