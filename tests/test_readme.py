"""The method that the README shows works as it stands there, and its tables are the records'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.records import load_records
from casm_bench.report.marked import with_tables
from casm_bench.report.measured import in_paper_order
from casm_bench.report.published import read_published, table1_rows

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_method_on_a_linear_classifier(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "shown.py").write_text(code)
    method_class = registry.get(f"{tmp_path / 'shown.py'}:GradientTimesInput")
    assert method_class.facts.scale_free  # a trained classifier's gradients know no bounds

    linear = nn.Linear(3 * 4 * 4, 5)
    images_BCHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels_B = torch.tensor([4, 1])
    maps_BHW = method_class(nn.Sequential(nn.Flatten(), linear)).maps(images_BCHW, labels_B)

    weight_BCHW = linear.weight[labels_B].view(2, 3, 4, 4)
    expected_BHW = (weight_BCHW * images_BCHW).abs().amax(dim=1)
    torch.testing.assert_close(maps_BHW, expected_BHW.detach())


@pytest.mark.parametrize(("name", "tables"), [("README.md", 3), ("docs/findings.md", 5)])
def test_tables_are_those_of_the_records(name, tables):
    """`make paper` writes them."""
    results = README.parent / "results"
    rows = table1_rows(read_published(results))
    records = in_paper_order(load_records(results), rows)
    text = (README.parent / name).read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->") == tables
    assert with_tables(text, records, rows) == text
