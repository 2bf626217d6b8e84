import base64
import io

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from nbconvert import HTMLExporter
from PIL import Image

from run_notebook import EchoingPreprocessor
from unet_helpers.plots.figures import WIDTH, add_legend, new_figure

ALT = 'mIoU "0.5" of <road> & sky'


def jpeg(figure):
    data, _ = figure._repr_mimebundle_()
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))))


def test_a_notebook_gets_a_jpeg_with_an_alt_text_and_may_replace_it():
    cells = [
        f"from unet_helpers.plots.figures import new_figure\nnew_figure({ALT!r})[0]",
        "shown = display(new_figure('before')[0], display_id=True)",
        "import matplotlib.pyplot\nshown.update(new_figure('after')[0])\nnew_figure('with pyplot')[0]",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    EchoingPreprocessor(timeout=60).preprocess(notebook, {"metadata": {"path": "."}})
    outputs = [output for cell in notebook.cells for output in cell.outputs if "data" in output]
    assert [output.metadata["image/jpeg"]["alt"] for output in outputs] == [ALT, "after", "with pyplot"]
    assert {tuple(output.data) for output in outputs} == {("image/jpeg", "text/plain")}
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(html, "html.parser").select("img")] == [ALT, "after", "with pyplot"]


def test_pyplots_formats_do_not_apply():
    shell = InteractiveShell.instance()
    try:
        set_matplotlib_formats("png", "svg")
        figure, _ = new_figure("alone")
        plain = Figure()
        plain.subplots()
        assert "image/png" in shell.display_formatter.format(plain)[0]
        assert set(shell.display_formatter.format(figure)[0]) == {"image/jpeg", "text/plain"}
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize("theme", ["default", "dark_background"])
def test_figures_are_black_on_white_in_every_theme(theme):
    with style.context(theme):
        figure, axes = new_figure("theme", size=(4, 2))
        axes.set_title("title")
        picture = jpeg(figure)
    assert picture[[0, -1]].min() > 230  # white, as far as a JPEG knows
    assert picture.min() < 80


def test_a_figure_is_as_wide_as_a_notebook_and_grows_by_its_legend():
    figure, axes = new_figure("", 2, 3, size=(WIDTH, 3))
    assert axes.shape == (2, 3)
    assert jpeg(figure).shape[1] == 800
    add_legend(figure, [(f"a class with a long name {k}", (0, 0, 0)) for k in range(7)])
    assert figure.get_figheight() > 3.9
    assert jpeg(figure).shape[0] == pytest.approx(100 * figure.get_figheight(), abs=1)
    height = figure.get_figheight()
    add_legend(figure, [])
    assert figure.get_figheight() == height


def test_a_legend_fits_into_the_figure():
    for length in (3, 12, 40, 64):
        figure, _ = new_figure("", size=(WIDTH, 3))
        add_legend(figure, [(("pavement marking " * 4)[k : k + length], (0, 0, 0)) for k in range(9)])
        jpeg(figure)
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_a_figure_full_of_pictures_takes_little_of_a_notebook():
    figure, axes = new_figure("", 3, 4, size=(WIDTH, 5))
    noise = np.random.default_rng(0).normal(128, 12, (3, 4, 96, 128, 3))  # as rough as a picture of a street
    for index in np.ndindex(3, 4):
        axes[index].imshow(np.uint8(noise[index].clip(0, 255)))
    data, _ = figure._repr_mimebundle_()
    assert len(data["image/jpeg"]) < 100_000
