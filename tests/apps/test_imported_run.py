"""The page opens runs from elsewhere as it opens ours."""

import pytest
from hf_folders import make_folder
from test_page import text_of

import workbench as wb
from workbench.runs.foreign import import_run


@pytest.mark.parametrize(("family", "number"), [("gpt2", 1), ("llama", 0), ("bert", 0)])
def test_an_imported_run_opens(page, tmp_path, family, number):
    import_run(make_folder(tmp_path / family, family, number), tmp_path / "runs" / family)
    test = page(tmp_path / "runs")
    assert not test.error
    assert test.selectbox(key="run").value == family
    words = text_of(test)
    if family != "bert":
        assert "prefers" in words
        assert wb.load(tmp_path / "runs" / family).checkpoint.config.n_heads > 1
