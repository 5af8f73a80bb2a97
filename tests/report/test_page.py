"""The page: whole, self-contained, escaped, and alive in a real browser."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from casm_bench import registry
from casm_bench.cli import main
from casm_bench.errors import WorkError
from casm_bench.records import per_image_table, save_private_pictures, save_record
from casm_bench.report.browser import picture_files
from casm_bench.report.cards import card
from casm_bench.report.page import write_page
from casm_bench.report.published import read_published

SIZE, GRID = 32, 8
NAMES = ["a", "b", "c"]
TRUTH = [(8, 8, 24, 24), (0, 0, 16, 32), (4, 4, 8, 8)]
EVIL = "<script>window.hacked = 1</script>&\"'"


def a_map(inner=200, outer=100):
    """Salient cells 2..5 of 8, and a weaker ring of one cell around them."""
    map_HW = np.zeros((GRID, GRID), np.float16)
    map_HW[1:7, 1:7] = outer / 255
    map_HW[2:6, 2:6] = inner / 255
    return map_HW


def pictures(shift=0):
    ramp = np.linspace(0, 255, SIZE).astype(np.uint8)
    images = np.stack(
        [np.stack(np.broadcast_arrays(ramp, ramp[:, None], 90 + 20 * i), -1) for i in range(3)]
    )
    masks = np.stack([np.roll(a_map(), shift, 1)] * 3)
    big = masks.repeat(4, 1).repeat(4, 2)
    return {
        "names": np.array(NAMES),
        "frame": np.array("crop"),
        "truth": np.array(TRUTH)[:, None],
        "images": images.astype(np.uint8),
        "masks": masks,
        "binary": big > 0.5,
    }


def boxes(x0, ious):
    return scored([(x0, 8, x0 + 16, 24)] * 3, ious)


def scored(found, ious):
    columns = {"name": NAMES, "label": [0] * 3, "group": [None] * 3, "protocol": ["casm"] * 3}
    sides = zip(*found, strict=True)
    columns |= dict(zip(("x0", "y0", "x1", "y1"), map(list, sides), strict=True))
    columns |= {"hit": [iou > 0.5 for iou in ious], "iou": ious, "f1": ious, "f1_mean": ious}
    return per_image_table(columns)


def epochs(loss):
    return [
        {"epoch": i + 1, "loss": loss / (i + 1), "mask_mean": 0.3, "seconds": 2.0} for i in range(3)
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory, a_record, scores):
    """Two methods on the same three pictures, a control, and pictures that nobody may share."""
    folder = tmp_path_factory.mktemp("original") / "results"
    casm = a_record("casm", training=epochs(3.0), title=f"CASM {EVIL}")
    save_record(casm, folder, boxes(8, [1.0, 0.4, 0.06]), pictures())
    baseline = a_record("baseline", 47, training=epochs(2.0))
    save_record(baseline, folder, boxes(12, [0.6, 0.2, 0.3]), pictures(shift=1))
    save_record(a_record("full", 30), folder, scores)
    private = a_record("grad", 50, data="secret", key="secret-key", metrics={EVIL: 1.0})
    save_record(private, folder, boxes(0, [0.1, 0.1, 0.1]))
    save_private_pictures(private, folder, pictures())
    return folder


@pytest.fixture(scope="module")
def page(original):
    return write_page(original, original.parent / "page").parent


@pytest.fixture
def results(original, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "results"))


@pytest.fixture
def own_page(page, tmp_path):
    return Path(shutil.copytree(page, tmp_path / "page"))


class Checked(HTMLParser):
    """Collects what makes a page sound."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.problems, self.open, self.scripts = [], [], [], [], 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        self.scripts += tag == "script" and values.get("type") != "application/json"
        if tag == "img" and not values.get("alt"):
            self.problems.append(f"img without alt: {values}")
        if tag in ("input", "select") and "label" not in self.open:
            self.problems.append(f"{tag} without a label")
        if any(name.startswith("on") for name in values):
            self.problems.append(f"inline handler in {tag}")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")


def html_files(page):
    return sorted(page.rglob("*.html"))


def test_pages_are_sound_and_need_nothing_from_elsewhere(page):
    assert len(html_files(page)) == 2 + 4 + 4  # index and browser, methods, records
    for path in html_files(page):
        found = Checked(path)
        assert not found.problems, path
        assert not found.open, path
        assert len(found.ids) == len(set(found.ids)), path
        for link in found.links:
            target = link.split("#")[0]
            assert not re.match(r"[a-z]+:|//", target), f"{path} asks for {link}"
            assert not target or (path.parent / target).is_file(), f"{path}: {link}"


def test_what_comes_from_records_is_escaped(page):
    scripts = {"index.html": 1, "browse.html": 2, "casm.html": 3, "baseline.html": 3}  # charts
    for path in html_files(page):
        expected = scripts.get(path.name, 1 if path.parent.name == "methods" else 0)
        assert Checked(path).scripts == expected, path
        assert "<script>window.hacked" not in path.read_text()
    text = (page / "methods" / "casm.html").read_text()
    assert "CASM &lt;script&gt;" in text


def test_every_number_leads_to_its_record(page):
    text = (page / "index.html").read_text()
    rows = re.findall(r"<tr data-data=.*?</tr>", text, re.S)
    assert len(rows) == 4 * 3  # methods by protocols
    assert all(re.search(r'href="records/[\w.-]+\.html"', row) for row in rows)
    record = (page / "records" / "madeup-quick-casm-seed0.html").read_text()
    assert "results/madeup/quick/casm-seed0.json" in record
    assert "40.00" in record


def test_pictures_that_may_not_be_shared_can_be_left_out(results, tmp_path):
    shown = write_page(results, tmp_path / "all").parent
    public = write_page(results, tmp_path / "public", public=True).parent
    assert "may not be shared" in (shown / "index.html").read_text()
    assert "may not be shared" not in (public / "index.html").read_text()
    assert "secret" in (shown / "sets" / "list.js").read_text()
    assert "secret" not in (public / "sets" / "list.js").read_text()


def test_bounds_and_marks_stand_on_every_page(tmp_path, a_record, rows, scores):
    """Baseline does not beat the whole frame, Grad was measured on a subset alone."""
    usual = ("casm", "wsol")
    config = a_record().config | {"limit": 10}
    metrics = {"official_metric (wsol)": 61.0}
    records = [a_record("baseline", 30, protocols=usual, metrics=metrics)]
    records.append(a_record("full", 50, protocols=usual))
    records.append(a_record("grad", 5, 10, protocols=usual, variant="n10", config=config))
    for record in records:
        save_record(record, tmp_path / "results", scores)
    page = write_page(tmp_path / "results", tmp_path / "page").parent
    for name in ("index.html", "methods/baseline.html", "records/madeup-quick-baseline-seed0.html"):
        text = (page / name).read_text()
        assert "wsol (upper bound)" in text
        assert ">wsol<" not in text
        if not name.startswith("records"):
            assert ">70.0‡</a>" in text
            assert "‡: the interval reaches" in text
    index = (page / "index.html").read_text()
    assert ">50.0§</a>" in index
    assert "§: on a seeded subset of 10 of the images only." in index
    assert "data-differs" not in index  # what stands for Grad is not hidden
    record = (page / "records" / "madeup-quick-baseline-seed0.html").read_text()
    assert "OM, top-1 localization error (wsol, upper bound, %)" in record
    assert '<td class="number">45</td>' in record  # F1a


def test_a_methods_page_has_its_card(tmp_path, a_record, scores):
    results = tmp_path / "results"
    for name in ("vgg-loc", "grad-cam"):
        save_record(replace(a_record(facts={}), method=name), results, scores)
    save_record(a_record("novel"), results, scores)  # of a plug-in that is not here
    page = write_page(results, tmp_path / "page").parent
    said = {path.stem: path.read_text() for path in (page / "methods").iterdir()}
    for heading, text in card(registry.get("grad-cam"), read_published(results)).items():
        assert heading == "says" or f"<dt>{heading}</dt>" in said["grad-cam"]
        assert str(escape(text)) in said["grad-cam"]
    assert "none: it predicts boxes directly" in said["vgg-loc"]
    assert "<dt>family</dt>\n<dd>other</dd>" in said["novel"]


def test_the_same_records_give_the_same_bytes(results, page, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert contents(write_page(results, tmp_path / "again").parent) == contents(page)


def test_what_no_longer_belongs_is_removed_and_nothing_else(results, own_page):
    mine, outside = own_page / "mine.txt", own_page.parent / "precious.txt"
    for path in (mine, outside):
        path.write_text("kept")
    with (own_page / "files.txt").open("a") as file:
        file.write("../precious.txt\n")  # nobody's manifest reaches out of its folder
    for path in results.glob("madeup/quick/*-seed0.json"):
        if not path.name.startswith("full"):
            path.unlink()
    write_page(results, own_page)
    assert not (own_page / "records" / "madeup-quick-baseline-seed0.html").exists()
    assert not (own_page / "methods" / "baseline.html").exists()
    assert (mine.read_text(), outside.read_text()) == ("kept", "kept")


def test_names_that_differ_in_case_or_punctuation_only(tmp_path, a_record, scores):
    for data in ("a b", "a-b", "A-B"):
        save_record(a_record(data=data), tmp_path / "results", scores)
    page = write_page(tmp_path / "results", tmp_path / "page").parent
    assert len(list((page / "records").iterdir())) == 3
    assert "No record in this folder keeps pictures" in (page / "browse.html").read_text()


def test_records_without_true_boxes_and_without_scores(tmp_path, a_record, scores):
    old = {name: value for name, value in pictures().items() if name not in ("truth", "frame")}
    record = a_record(protocols=("fong",))  # nothing that compares in the frame
    save_record(record, tmp_path / "results", scores, old)
    page = write_page(tmp_path / "results", tmp_path / "page").parent
    data = (page / "sets" / "0.js").read_text()
    assert '"truth": null' in data
    assert '"scores": [null, null, null]' in data


def test_no_records_and_edited_ones(results, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WorkError, match="There are no records"):
        write_page(empty, tmp_path / "page")
    path = results / "madeup" / "quick" / "casm-seed0.json"
    path.write_text(path.read_text().replace('"hits": 60', '"hits": 99'))
    assert main(["report", "--results", str(results), "--out", str(tmp_path / "page")]) == 1
    assert "was edited" in capsys.readouterr().err


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    with sync_api.sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("there is no Chromium: install one, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, page):
    """Opens a file of the page; complaints of the browser fail the test."""
    complaints, tabs = [], []

    def open_file(name, **options):
        tab = browser.new_page(**options)
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
        tab.goto((page / name).as_uri())
        tabs.append(tab)
        return tab

    yield open_file
    assert not complaints
    assert not any(tab.evaluate("window.hacked") for tab in tabs)
    for tab in tabs:
        tab.close()


def captions(tab):
    tab.wait_for_function("document.querySelector('#views figure')")
    return [text.strip() for text in tab.locator("#views figcaption").all_inner_texts()]


def test_sorting_and_filtering(visit):
    tab = visit("index.html")
    column = "tbody tr:not([hidden]) td:nth-child(5)"
    assert len(tab.locator(column).all()) == 12
    tab.get_by_role("button", name="LE, %").click()
    values = [float(text) for text in tab.locator(column).all_inner_texts()]
    assert values == sorted(values)
    tab.get_by_role("button", name="LE, %").click()
    assert [float(t) for t in tab.locator(column).all_inner_texts()] == sorted(values)[::-1]
    tab.locator("select[name=protocol]").select_option("warp")
    tab.get_by_label("controls").uncheck()
    assert tab.locator("output").inner_text() == "3 of 12 rows"
    tab.get_by_label("Search").fill("baseline")
    assert tab.locator(column).all_inner_texts() == ["53.0"]
    tab.locator("tbody tr:not([hidden]) th a").click()
    assert tab.get_by_role("heading", level=1).inner_text() == "Baseline"


def test_variants_are_shown_when_they_are_asked_for(browser, tmp_path, a_record, scores):
    config = a_record().config | {"strategy": "L"}
    for record in (a_record(), a_record(seed=0, variant="0123abcd", config=config)):
        save_record(record, tmp_path / "results", scores)
    tab = browser.new_page()
    tab.goto(write_page(tmp_path / "results", tmp_path / "page").as_uri())
    assert tab.locator("output").inner_text() == "3 of 6 rows"
    assert not tab.get_by_role("button", name="what differs").is_visible()
    tab.get_by_label("variants, subsets").check()
    assert tab.locator("output").inner_text() == "6 of 6 rows"
    assert "strategy=L" in tab.locator("tbody").inner_text()
    tab.close()


def test_curves_are_drawn_and_can_be_read(visit):
    tab = visit("methods/casm.html")
    charts = tab.locator("figure.chart")
    assert charts.locator("figcaption").all_inner_texts() == ["loss", "mask mean"]
    charts.first.scroll_into_view_if_needed()
    charts.first.locator("canvas").wait_for()
    plot = tab.evaluate("document.querySelector('figure.chart').plot.data")
    assert plot == [[1, 2, 3], [3, 1.5, 1]]
    assert "loss of CASM" in charts.first.get_by_role("img").get_attribute("aria-label")
    charts.first.locator("summary").click()
    cells = charts.first.locator("details tbody tr").nth(1).locator("th, td").all_inner_texts()
    assert cells == ["2", "1.5"]


def test_boxes_follow_the_threshold(visit, tmp_path):
    tab = visit("browse.html")
    tab.locator("figcaption").first.wait_for()
    assert captions(tab)[0].startswith("Baseline: IoU 0.60 (casm), box 12, 8, 28, 24")
    casm = captions(tab)[1]
    assert casm.startswith(f"CASM {EVIL}: IoU 1.00 (casm), box 8, 8, 24, 24")
    slider = tab.get_by_role("slider")
    slider.fill("150")  # inner cells alone: exactly the true box
    assert "IoU 1.00 (threshold 0.59), box 8, 8, 24, 24" in captions(tab)[1]
    slider.fill("50")  # with the ring: 24 x 24 around a true box of 16 x 16
    assert f"IoU {256 / 576:.2f} (threshold 0.20), box 4, 4, 28, 28" in captions(tab)[1]
    slider.fill("220")
    assert "IoU 0.00 (threshold 0.86), no box" in captions(tab)[1]
    tab.get_by_role("button", name="Own rule").click()
    assert captions(tab)[1] == casm
    tab.screenshot(path=tmp_path / "browse.png")
    assert (tmp_path / "browse.png").stat().st_size > 10_000


def test_the_sliders_iou_is_the_records(browser, tmp_path, a_record):
    """A true box that leaves the frame counts whole under casm, else its visible part."""
    for protocol, iou in (("casm", 256 / 512), ("casm-clipped", 256 / 384)):
        shown = pictures() | {"truth": np.array([(-8, 8, 24, 24)] * 3)[:, None]}
        table = scored([(8, 8, 24, 24)] * 3, [iou] * 3).to_pydict()
        scores = per_image_table(table | {"protocol": [protocol] * 3})
        save_record(a_record(protocols=(protocol,)), tmp_path / protocol, scores, shown)
        tab = browser.new_page()
        tab.goto((write_page(tmp_path / protocol, tmp_path / f"of {protocol}").parent).as_uri())
        tab.goto((tmp_path / f"of {protocol}" / "browse.html").as_uri())
        own = captions(tab)[0]
        assert own.startswith(f"CASM: IoU {iou:.2f} ({protocol}), box 8, 8, 24, 24")
        tab.get_by_role("slider").fill("150")
        assert f"IoU {iou:.2f} (threshold 0.59), box 8, 8, 24, 24" in captions(tab)[0]
        tab.close()


def test_two_methods_that_find_nothing_do_not_disagree(browser, tmp_path, a_record):
    nothing, box, near = (0, 0, 0, 0), (8, 8, 24, 24), (12, 8, 28, 24)
    for method, found in (("casm", [nothing, box, box]), ("baseline", [nothing, near, nothing])):
        save_record(a_record(method), tmp_path / "results", scored(found, [0.0] * 3), pictures())
    tab = browser.new_page()
    tab.goto((write_page(tmp_path / "results", tmp_path / "page").parent / "browse.html").as_uri())
    captions(tab)
    tab.get_by_label("Order").select_option(label="Baseline against CASM")
    assert [i.get_attribute("alt") for i in tab.locator("#strip img").all()] == ["c", "b", "a"]
    tab.close()


def test_an_empty_mask_predicts_what_the_rule_says(browser, tmp_path, a_record):
    rule = {"kind": "value", "alpha": 0.35, "component": "all", "empty": "full"}
    record = a_record(facts={"family": "other", "rule": rule})
    save_record(record, tmp_path / "results", boxes(8, [0.5] * 3), pictures())
    tab = browser.new_page()
    tab.goto((write_page(tmp_path / "results", tmp_path / "page").parent / "browse.html").as_uri())
    captions(tab)
    tab.get_by_role("slider").fill("220")
    assert f"IoU {256 / 1024:.2f} (threshold 0.86), box 0, 0, 32, 32" in captions(tab)[0]
    tab.close()


def test_keyboard_order_and_views(visit):
    tab = visit("browse.html")
    tab.locator("figcaption").first.wait_for()
    position = tab.locator("#position")
    assert position.inner_text() == "1 of 3: a"
    tab.locator("body").press("ArrowRight")
    assert position.inner_text() == "2 of 3: b"
    tab.locator("body").press("ArrowLeft")
    tab.locator("body").press("ArrowLeft")
    assert position.inner_text() == "3 of 3: c"
    tab.locator("figcaption", has_text="IoU 0.06").wait_for()
    tab.locator("body").press("ArrowUp")
    assert "threshold 0.53" in captions(tab)[0]
    tab.locator("body").press("o")
    tab.locator("body").press("v")
    assert tab.get_by_label("View").input_value() == "inside"
    tab.get_by_label("Order").select_option(label="failures of Baseline")
    assert [i.get_attribute("alt") for i in tab.locator("#strip img").all()] == ["b", "c", "a"]
    tab.locator("figcaption", has_text="IoU 0.20").wait_for()
    tab.get_by_label("Baseline", exact=True).uncheck()
    assert len(captions(tab)) == 1
    tab.get_by_label(re.compile("^Pictures of")).select_option(index=1)
    tab.locator("figcaption", has_text="Grad").wait_for()
    assert "not to be shared" in tab.get_by_label(re.compile("^Pictures of")).inner_text()


def seen(tab, canvas):
    """A canvas as it looks; 448 pixels on each side stand for 32."""
    shot = Image.open(io.BytesIO(tab.locator("#views canvas").nth(canvas).screenshot()))
    return np.asarray(shot.convert("RGB").resize((448, 448), Image.Resampling.NEAREST))


def written(image_HW3):
    """A picture as the page has it."""
    (content,) = picture_files({"images": [image_HW3]}).values()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_pictures_take_few_bytes_and_faint_stripes_stay():
    """Drawn shapes' second cue is a stripe of some 13 grey levels under noise."""
    rng = np.random.default_rng(0)
    stripe_HW1 = np.where(np.arange(64) // 4 % 2, 122, 135)[:, None, None]
    noisy_HW3 = np.broadcast_to(stripe_HW1, (64, 64, 3)) + rng.normal(0, 8, (64, 64, 3))
    image_HW3 = noisy_HW3.round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "PNG")
    (content,) = picture_files({"images": [image_HW3]}).values()
    assert len(content) < len(buffer.getvalue()) / 4
    rows_H = written(image_HW3).mean((1, 2))
    assert np.abs(rows_H - image_HW3.mean((1, 2))).max() < 2


def test_masked_pictures_hide_what_they_say(visit):
    tab = visit("browse.html")
    tab.locator("figcaption").first.wait_for()
    inside, outside = (16 * 14 + 7, 17 * 14 + 7), (2 * 14 + 7, 30 * 14 + 7)  # row, column
    plain = written(pictures()["images"][0])
    for view, grey, kept in (("inside", outside, inside), ("outside", inside, outside)):
        tab.get_by_label("View").select_option(view)
        row, column = (side // 14 for side in kept)
        look = seen(tab, 1).astype(int)
        assert np.abs(look[grey] - 89).max() <= 2
        assert np.abs(look[kept] - plain[row, column]).max() <= 2


def test_dark_and_narrow(visit):
    colours = {
        scheme: visit("index.html", color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    for name in ("index.html", "browse.html", "methods/casm.html"):
        tab = visit(name, viewport={"width": 360, "height": 700})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, name
