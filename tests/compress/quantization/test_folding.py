"""Folding keeps a network's answers, and refuses what it cannot fold."""

import pytest
import torch
import torchvision
from torch import nn

import kdutils as kd
from kdutils.compress import fold_batch_norms


def lively(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            if not module.affine:
                continue
            module.weight.data.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(module.num_features, generator=generator))
    return model.eval()


MODELS = {
    "resnet8": lambda: kd.models.resnet8(classes=5, channels=3),
    "ResNet-18": lambda: torchvision.models.resnet18(num_classes=5),
    "MobileNetV2": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 7), nn.BatchNorm1d(7)),
    "no scales": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_outputs_stay_to_a_millionth(name):
    torch.manual_seed(0)
    model = lively(MODELS[name]()).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    folded = fold_batch_norms(model)
    with torch.no_grad():
        assert torch.allclose(folded(images), model(images), rtol=1e-6, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())


def test_a_norm_whose_input_goes_elsewhere_too_is_kept():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.two, self.other = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = self.one(images)
            return self.other(self.two(self.norm(seen) + seen))

    model, images = lively(Twice()), torch.randn(2, 3, 9, 9)
    folded = fold_batch_norms(model)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert isinstance(folded.other, nn.Identity)
    assert torch.allclose(folded(images), model(images), atol=1e-5)


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match="there is none to fold"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)))
    masked = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="parametrizations"):
        fold_batch_norms(kd.compress.prune(masked, 0.5))
