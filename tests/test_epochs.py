from unet_helpers.recipe import EPOCH_LADDER, choose_epochs, expected_seconds, stage_of

STAGES = ((0.5, 0.5), (1, 1))


def test_epochs_are_the_most_of_the_ladder_that_fit():
    assert [stage_of(epoch, 4, STAGES) for epoch in range(4)] == [0, 0, 1, 1]
    assert stage_of(0, 1, STAGES) == 1  # the last epoch has the full size, however few there are
    assert stage_of(4, 5, ((0.9, 0.25), (0.95, 0.5), (1, 1))) == 2
    assert expected_seconds(20, STAGES, (6, 14)) == 200
    assert choose_epochs(240, STAGES, (6, 14)) == 24
    assert choose_epochs(239.9, STAGES, (6, 14)) == 20
    assert choose_epochs(10, STAGES, (6, 14)) == EPOCH_LADDER[0] == 1
    assert choose_epochs(1e9, STAGES, (6, 14)) == EPOCH_LADDER[-1]


def test_machines_that_are_about_equal_choose_equally():
    """A tenth faster or slower must not change the result as a rule: so the steps of the ladder are coarse."""
    assert all(later / earlier >= 1.2 for earlier, later in zip(EPOCH_LADDER, EPOCH_LADDER[1:], strict=False))
    chosen = {choose_epochs(220, STAGES, (6 * speed, 14 * speed)) for speed in (0.95, 1, 1.05)}
    assert chosen == {20}
