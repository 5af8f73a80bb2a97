"""The method that the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from casm_bench import registry

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_method_on_a_linear_classifier(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "shown.py").write_text(code)
    method_class = registry.get(f"{tmp_path / 'shown.py'}:GradientTimesInput")

    linear = nn.Linear(3 * 4 * 4, 5)
    images_BCHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels_B = torch.tensor([4, 1])
    maps_BHW = method_class(nn.Sequential(nn.Flatten(), linear)).maps(images_BCHW, labels_B)

    weight_BCHW = linear.weight[labels_B].view(2, 3, 4, 4)
    expected_BHW = (weight_BCHW * images_BCHW).abs().amax(dim=1)
    torch.testing.assert_close(maps_BHW, expected_BHW.detach())
