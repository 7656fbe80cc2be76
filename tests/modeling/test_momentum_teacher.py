import pytest
import torch
from torch import nn

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.modeling.momentum_teacher import MomentumTeacher


def test_update_moves_toward_the_student():
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


def test_has_no_gradients_and_follows_the_mode():
    student = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    teacher = MomentumTeacher(student, momentum=0.999)
    assert not any(p.requires_grad for p in teacher.parameters())
    for mode in (True, False):
        teacher.train(mode)
        assert all(m.training == mode for m in teacher.modules())
        assert not teacher(torch.ones(1, 3)).requires_grad


def test_stochastic_depth_is_active_in_training(tiny_convnext_json):
    encoder = DenseImageEncoder(load_clip(tiny_convnext_json, "").visual)
    teacher = MomentumTeacher(encoder, momentum=0.999)
    image = torch.rand(1, 3, 64, 64)
    draws = [teacher.train()(image) for _ in range(20)]
    assert any(not torch.equal(draws[0], draw) for draw in draws[1:])
    assert torch.equal(teacher.eval()(image), teacher(image))


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
