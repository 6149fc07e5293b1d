import torch

from lab.variants.direction import RandomDirection
from oprd.models.reader import Reader
from oprd.models.reading import View
from oprd.models.reference import Reference
from oprd.models.views import Views
from tests import tiny


def test_a_random_direction_leads_as_far_from_the_teacher_and_elsewhere():
    student, teacher, begun = (tiny.model(seed=seed) for seed in (1, 2, 3))
    views = Views((View.of_texts(torch.arange(12).reshape(2, 6)),))

    def states():
        return dict(Reader(teacher).read(student, views, [1, 3]).states)

    ahead = Reference(Reader(begun), 1.5).beyond(student, views, states())
    found = RandomDirection(Reader(begun), 1.5).beyond(student, views, states())
    for layer, rows in states().items():
        moved, straight = found[layer] - rows, ahead[layer] - rows
        torch.testing.assert_close(moved.norm(dim=1), straight.norm(dim=1))
        # Every row moves the same way, which is not where the reference points.
        torch.testing.assert_close(torch.cosine_similarity(moved, moved[:1]), torch.ones(len(rows)))
        assert torch.cosine_similarity(moved, straight).abs().max() < 0.9
