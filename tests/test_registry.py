"""The registry: three places for methods, and an answer to every way to get one wrong."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import casm_bench.methods
from casm_bench import api, registry
from casm_bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
GOOD = """
from dataclasses import dataclass

from casm_bench.api import BoxMethod, SaliencyMethod, register


@register("mine", title="Mine", family="other", paper="none", summary="Zeros.", knows_class=False,
          trained=False)
@dataclass
class Mine(SaliencyMethod):
    strength: float = 1.0

    def maps(self, images_BCHW, labels_B):
        return images_BCHW[:, 0] * 0
"""


@pytest.fixture
def clean():
    """What a test declares or imports is forgotten after it."""
    registry.load_all()
    declared, modules = dict(api.DECLARED), dict(sys.modules)
    yield
    api.DECLARED.clear()
    api.DECLARED.update(declared)
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


@pytest.fixture
def folder(clean, monkeypatch, tmp_path):
    """A folder of methods beside the real one: folder(file name, text)."""
    monkeypatch.setattr(
        casm_bench.methods, "__path__", [*casm_bench.methods.__path__, str(tmp_path)]
    )

    def add(name, text):
        (tmp_path / name).write_text(text)
        importlib.invalidate_caches()

    return add


@pytest.fixture
def plug_in(folder, monkeypatch, tmp_path):
    """An installed package's entry point: plug_in(name, module text)."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, text):
        (tmp_path / "_plugged.py").write_text(text)
        point = EntryPoint(name, "_plugged:Mine", registry.ENTRY_POINTS)
        monkeypatch.setattr(
            registry, "entry_points", lambda group: [point] if group == point.group else []
        )

    return install


def message_of(call, *arguments):
    """The one paragraph that the call raises."""
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_first_methods_are_there():
    assert {
        "baseline", "casm", "center", "full", "grad", "mask", "oracle", "random"
    } <= set(registry.names())  # fmt: skip
    assert registry.names() == sorted(registry.names())


def test_a_file_in_the_folder_is_enough(folder):
    folder("mine.py", GOOD)
    assert "mine" in registry.names()
    assert registry.get("mine")(None, strength=2.0).strength == 2.0
    assert [facts.title for facts in registry.all_facts() if facts.name == "mine"] == ["Mine"]


def test_files_with_an_underscore_are_shared_parts(folder):
    folder("_shared.py", "raise RuntimeError")
    registry.load_all()


def test_source_file_is_known(folder, tmp_path):
    folder("mine.py", GOOD)
    assert registry.get("mine").facts.source_file == str(tmp_path / "mine.py")


def test_plug_in(plug_in):
    plug_in("mine", GOOD)
    assert registry.get("mine").__name__ == "Mine"


def test_plug_in_under_another_name(plug_in):
    plug_in("yours", GOOD)
    assert "'yours'" in message_of(registry.names)


def test_plug_in_that_cannot_be_imported(plug_in):
    plug_in("mine", "import no_such_package")
    message = message_of(registry.names)
    assert "plug-in mine (_plugged:Mine)" in message
    assert "no_such_package" in message


@pytest.mark.parametrize("suffix", ["", ":Mine", ":mine"])
def test_file_on_the_command_line(clean, tmp_path, suffix):
    (tmp_path / "my method.py").write_text(GOOD)
    cls = registry.get(f"{tmp_path}/my method.py{suffix}")
    assert cls.facts.title == "Mine"
    assert registry.get(f"{tmp_path}/my method.py{suffix}") is cls


def test_file_of_the_folder_on_the_command_line():
    assert registry.get(f"{ROOT}/methods/casm.py:CASM") is registry.get("casm")


def test_file_without_or_with_several_methods(clean, tmp_path):
    file = tmp_path / "file.py"
    file.write_text("")
    assert "registers no method" in message_of(registry.get, str(file))
    other = tmp_path / "two.py"
    other.write_text(GOOD + GOOD.replace("mine", "yours").replace("Mine", "Yours"))
    assert "Mine, Yours" in message_of(registry.get, str(other))
    assert "Mine, Yours" in message_of(registry.get, f"{other}:Theirs")


def test_missing_file():
    assert "nowhere.py does not exist" in message_of(registry.get, "nowhere.py:Mine")


@pytest.mark.parametrize(("wrong", "near"), [("gard", "'grad'"), ("basline", "'baseline'")])
def test_unknown_name_names_the_nearest(wrong, near):
    message = message_of(registry.get, wrong)
    assert f"Did you mean {near}?" in message
    assert "casm" in message


def test_unknown_name_like_no_other():
    message = message_of(registry.get, "xyzzy-42")
    assert "Did you mean" not in message
    assert "path/to/file.py:ClassName" in message


def test_duplicate_name_says_both_files(folder, tmp_path):
    folder("another.py", GOOD.replace('"mine"', '"grad"'))
    message = message_of(registry.names)
    assert str(ROOT / "methods" / "grad.py") in message
    assert str(tmp_path / "another.py") in message


def test_a_file_cannot_take_a_shipped_name_though_nothing_else_was_loaded(tmp_path):
    (tmp_path / "own.py").write_text(GOOD.replace('"mine"', '"grad"'))
    code = f"from casm_bench import registry; registry.get({str(tmp_path / 'own.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "UsageError: Two methods are called 'grad'" in done.stderr


def test_a_file_cannot_take_the_name_of_a_method(clean, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD.replace('"mine"', '"grad"'))
    code = f"from casm_bench import registry; registry.get({str(tmp_path / 'mine.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Two methods are called 'grad'" in done.stderr


BAD = {
    "twice in a file": (GOOD + GOOD.replace("class Mine", "class Other"), "registers 'mine' twice"),
    "no maps": (GOOD.replace("def maps", "def map"), "no method maps(images_BCHW, labels_B)"),
    "no boxes": (GOOD.replace("Mine(Saliency", "Mine(Box"), "no method boxes("),
    "no base": (GOOD.replace("Mine(SaliencyMethod)", "Mine"), "must be a subclass of"),
    "no dataclass": (GOOD.replace("@dataclass", ""), "is not a dataclass"),
    "missing facts": (GOOD.replace('title="Mine", family="other",', ""), "'title' and 'family'"),
    "unknown fact": (GOOD.replace("title=", "colour=1, title="), "got colour"),
    "no such family": (GOOD.replace('family="other"', 'family="mine"'), "or 'supervised' or"),
    "no true value": (GOOD.replace("trained=False", "trained='no'"), "must be bool"),
    "no row": (
        GOOD.replace("trained=False", "trained=False, published=3"),
        "published=3, which must be",
    ),
    "bad name": (GOOD.replace('"mine"', '"My Method"'), "'My Method' must be lower-case"),
    "nothing": ("", "registers no method"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "import": ("import os\nimport no_such_package\n", "line 2, cannot be imported"),
    "inner error": ("import json\n\njson.loads('{')\n", "line 3, cannot be imported"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_bad_file_in_the_folder(folder, text, expected):
    folder("bad.py", text)
    message = message_of(registry.names)
    assert "bad.py" in message
    assert expected in message


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_bad_file_on_the_command_line(clean, tmp_path, text, expected):
    folder = tmp_path / "with a space"
    folder.mkdir()
    (folder / "bad.py").write_text(text)
    message = message_of(registry.get, f"{folder}/bad.py:Mine")
    assert str(folder / "bad.py") in message
    assert expected in message


def test_a_mended_file_can_be_read_again(clean, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import no_such_package\n")
    message_of(registry.get, str(file))
    file.write_text(GOOD)
    assert registry.get(str(file)).facts.name == "mine"


def test_a_class_can_be_declared_and_corrected_interactively(clean):
    namespace = {"__name__": "__interactive__"}
    for _ in range(2):
        exec(GOOD.replace("strength: float = 1.0", "pass"), namespace)
    assert registry.get("mine") is namespace["Mine"]


def test_listing_methods_imports_neither_torch_nor_numpy():
    code = (
        "import json, sys; from casm_bench import registry; facts = registry.all_facts();"
        "print(json.dumps([len(facts), sorted({'torch', 'numpy', 'timm'} & set(sys.modules))]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, heavy = json.loads(ran.stdout)
    assert count >= 8
    assert heavy == []
