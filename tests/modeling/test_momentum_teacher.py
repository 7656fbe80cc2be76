import pytest
import torch
from torch import nn

from pixelclip.modeling.momentum_teacher import MomentumTeacher


def test_update_moves_towards_the_student():
    student = nn.Linear(3, 2)
    teacher = MomentumTeacher(student, momentum=0.9)
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    teacher.update(student)
    teacher.update(student)
    for old, new in zip(before, teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 1 - 0.9**2)


def test_held_it_does_not_move_and_lets_go_after_an_error():
    student = nn.Linear(3, 2)
    teacher = MomentumTeacher(student, momentum=0.0)
    before = teacher.image_encoder.weight.clone()
    with torch.no_grad():
        student.weight.add_(1.0)
    with pytest.raises(KeyboardInterrupt), teacher.held():
        teacher.update(student)
        assert torch.equal(teacher.image_encoder.weight, before)
        raise KeyboardInterrupt
    teacher.update(student)
    assert torch.equal(teacher.image_encoder.weight, student.weight)


def test_never_trains_and_stays_in_eval_mode():
    student = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    teacher = MomentumTeacher(student, momentum=0.999)
    teacher.train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.ones(1, 3)).requires_grad
    assert all(m.training for m in student.modules())


def test_is_a_copy():
    student = nn.Linear(3, 2)
    teacher = MomentumTeacher(student, momentum=1.0)
    with torch.no_grad():
        student.weight.zero_()
    teacher.update(student)
    assert teacher.image_encoder.weight.abs().sum() > 0


def test_momentum_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"1\.5.*between 0 and 1"):
        MomentumTeacher(nn.Linear(1, 1), momentum=1.5)
