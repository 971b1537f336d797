"""Seeds of environments: how wide, how distinct, and whose."""

import numpy as np

from pgcli.machine.randomness import DISTINCT, WIDE, seeding


def test_no_two_environments_of_a_batch_share_a_seed():
    seeds = DISTINCT.draw(range(10), 0, 32_000)
    assert len(seeds) == len(set(seeds)) == 320_000  # 13 were shared with 32 random bits each
    assert min(seeds) >= 0
    assert max(seeds) < 2**31  # NumPy's legacy generators and envpool take no more
    assert len(set(DISTINCT.draw(range(3), 7, 100_000))) == 300_000


def test_a_seeds_environments_are_seeded_alike_whoever_plays_beside_them():
    for seed in (0, 5, 2**15, 2**40 + 1):
        alone = DISTINCT.draw([seed], 3, 16)
        assert DISTINCT.draw([seed + 1, seed, 9], 3, 16)[16:32] == alone
        assert DISTINCT.draw([seed], 3, 64)[:16] == alone  # as with fewer copies
        assert not set(alone) & set(DISTINCT.draw([seed], 4, 16))


def test_the_seeds_look_random():
    found = [np.array(DISTINCT.draw([seed], i, 65_536)) for seed, i in [(0, 0), (0, 1), (1, 0)]]
    bits = (found[0][:, None] >> np.arange(31)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef([*found, np.roll(found[0], 1)]) - np.eye(4)).max() < 0.02


def test_a_run_of_the_older_format_keeps_its_seeds():
    assert seeding(1) is WIDE
    assert seeding(2) is DISTINCT
    assert WIDE.draw([3, 4], 2, 2) == [4133085378, 3248721604, 3061669761, 457717559]
    assert WIDE.single([1, 2, 3]) == 3822189696
