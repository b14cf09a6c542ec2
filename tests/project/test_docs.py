"""What a newcomer reads is true: blocks of code run, YAMLs are checked, files exist, tables name what there is."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
import re
import runpy
import shutil
import sys
import types
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from spaces import CHANNELS, conv, fresh_dynamic

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, Repeat
from torch import nn

import nni_dynconv
from examples.video_denoising.space import DenoisingSpace
from nni_dynconv import (
    ArchitectureEncoder,
    DynamicConv2d,
    DynamicWeightMutator,
    diagnosis,
    export,
    functional,
    ops,
    samplers,
)
from nni_dynconv.commands import cli
from nni_dynconv.errors import ConfigError, SpaceError
from nni_dynconv.generation import context, controllers
from nni_dynconv.search import ranking
from nni_dynconv.settings import (
    TABLES,
    BaselineSettings,
    Named,
    RunSettings,
    StrategySettings,
    check_class_args,
    check_config,
    parts,
)
from nni_dynconv.settings.checking import range_of, settings_of
from nni_dynconv.settings.recipe import BASES, DELTAS
from nni_dynconv.settings.run import MODES
from nni_dynconv.testing.suites import ControllerSuite, OpSuite, SamplerSuite

ROOT = Path(__file__).parents[2]
DOCS = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", *DOCS]
SUITES = (ControllerSuite, OpSuite, SamplerSuite)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


LONG = {
    "max_epochs=4": "max_epochs=1",
    "final_epochs=10": "final_epochs=1, rerank_steps=5",
    '"random": 2': '"random": 1',
}
"""What a search of README's, of minutes, is shortened by; the whole of it is run among the slow tests."""


def blocks(language):
    """Each block of a language as a parameter that is named by page and line."""
    found = []
    for page in PAGES:
        text = read(page)
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            marks = [pytest.mark.whole] if is_a_search(match.group(1)) else []
            found.append(pytest.param(page, line, match.group(1), id=f"{page}:{line}", marks=marks))
    return found


def is_a_search(code):
    """Whether a block searches and trains to the end, which takes a while."""
    return all(long in code for long in LONG)


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(page):
    """Where the links of a page lead: (path, anchor) of each, both relative to the page; the web is left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(read(page)))
    return [tuple(target.partition("#")[::2]) for target in targets if not target.startswith("https://")]


def anchors(text):
    """The anchors that GitHub makes of the headings, each of which stands once."""
    heads = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads]


def table(page, before):
    """Rows of the first table from a text on, each a list of cells; the head is left out."""
    text = read(page)
    rows = re.search(r"(?:^\|.*\n)+", text[text.index(before) :], re.MULTILINE).group(0).splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def first_words(page, before):
    """The first words in backticks of a table's first cells."""
    return [re.match(r"`([^`]+)`", cell).group(1) for cell, *_ in table(page, before) if cell.startswith("`")]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A run of the quickstart with untrained weights."""
    folder = tmp_path_factory.mktemp("quickstart")
    sample = {"filter": "conv7", "first": "conv5", "second": "conv3"}
    example = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    export.save(fresh_dynamic(sample, seed=0), folder, architecture=sample, example=example)
    return folder


@pytest.fixture
def workplace(quickstart, tmp_path, monkeypatch):
    """An own folder with the examples, an own home, and a run of the quickstart."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(quickstart, tmp_path / "runs" / "quickstart")
    yield tmp_path
    logging.getLogger("nni").handlers.clear()


# Code


def shortened(code):
    return functools.reduce(lambda text, long: text.replace(long, LONG[long]), LONG, code)


@pytest.mark.parametrize(("page", "line", "code"), blocks("python"))
def test_a_python_block_runs_alone_and_its_suites_pass(page, line, code, workplace, monkeypatch):
    code = shortened(code)
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a saved network names the module of its classes
    names = vars(module)
    exec(compile("\n" * (line - 1) + code, str(ROOT / page), "exec"), names)  # noqa: S102 (that is the test)
    for suite in [one for one in names.values() if isinstance(one, type) and issubclass(one, SUITES)]:
        if suite not in SUITES:
            run_suite(suite)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_readmes_search_ends_in_a_network_that_beats_its_static_twin(workplace):
    """It used to print "held-out loss 2.28 before, 1.13 after" and to save a network that was right in 20 %."""
    (code,) = [one.values[2] for one in blocks("python") if is_a_search(one.values[2])]
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 (that is the test)
    saved, hits = nni_dynconv.load("runs/digits"), []
    with torch.no_grad():
        for (x, c), y in names["evaluator"].test_dataloaders:
            hits.append((saved(x, c).argmax(1) == y).float())
    accuracy = torch.cat(hits).mean().item()
    (twin,) = names["strategy"].comparison.of("static twin")
    assert accuracy >= max(0.9, twin.metrics["test_acc"])
    assert "The search itself, against the mean of" in str(names["strategy"].comparison)


def run_suite(suite):
    tests = [name for name in dir(suite) if name.startswith("test_")]
    assert len(tests) > 5
    for name in tests:
        getattr(suite(), name)()


@pytest.mark.parametrize(("page", "line", "text"), blocks("yaml"))
def test_a_yaml_block_that_is_a_whole_experiment_passes_the_check(page, line, text, workplace):
    if "tuner" not in yaml.safe_load(text):
        pytest.skip("a part of a YAML")
    path = workplace / "experiment.yml"
    path.write_text(text)
    assert check_config(path).space == "video_denoising.denoising:DenoisingSpace"


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yml")), ids=lambda path: path.name)
def test_a_config_passes_the_check(config):
    check_config(config, checkpoint_needed=False)


@pytest.mark.parametrize("kind", list(TABLES))
def test_the_comments_of_a_config_name_every_part(kind):
    """They used to name one controller of five, and three contexts of four."""
    (comment,) = re.findall(rf"((?:^ +#.*\n)+) +{kind}: ", read("configs/one_shot.yml"), re.MULTILINE)
    named = re.findall(r"\w+", comment.split(": ", 1)[1].split("module:Class")[0])
    assert set(named) - {"null", "or"} == set(TABLES[kind])


def test_the_comments_of_a_config_name_every_setting_and_every_base_and_delta():
    text = read("configs/one_shot.yml")
    keys = {one.name for one in dataclasses.fields(RunSettings)}
    assert keys - set(re.findall(r"^ +(?:#   )?(\w+):", text, re.MULTILINE)) == {"checkpoint"}
    for key, (*names, last) in {"base": BASES, "delta": DELTAS}.items():
        assert f"{key}: {', '.join(names)}, or {last}" in text


def test_what_the_comments_of_a_config_give_as_examples_may_be_written():
    text = re.sub(r"^    #   (?=\w+:)", "    ", read("configs/one_shot.yml"), flags=re.MULTILINE)
    class_args = yaml.safe_load(text.replace("    sampler: gdas\n", ""))["tuner"]["classArgs"]
    settings = check_class_args(class_args)
    recipes = {name: getattr(settings, name) for name in ("base", "delta", "rank", "per_site")}
    mutator = DynamicWeightMutator(
        DenoisingSpace(), architecture=ArchitectureEncoder(**settings.architecture), **recipes
    )
    mutator.strategy(**settings.strategy)


def test_the_pages_have_blocks_of_each_kind():
    assert len(blocks("python")) >= 9
    assert len(blocks("yaml")) >= 2


# Files, links, commands


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(page):
    for path, anchor in links(page):
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), path
        if anchor:
            assert anchors(file.read_text(encoding="utf-8")).count(anchor) == 1, f"{path}#{anchor}"


def test_the_guide_links_every_page():
    linked = {f"docs/{path}" for path, _ in links("docs/guide.md")}
    assert set(DOCS) - {"docs/guide.md"} <= linked


def test_readme_links_the_guide():
    assert ("docs/guide.md", "") in links("README.md")


MADE_BY_A_RUN = ("runs/", "supernet/", "static_twin/", "checkpoints/", ".venv/")
FILE = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.(?:py|yml|md|png|js))?|[\w-]+\.md)`")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    not_yet = read(page).split("## Where it departs", 1)[0]
    for name in FILE.findall(not_yet):
        places = (ROOT, ROOT / "nni_dynconv", *(ROOT / "nni_dynconv").glob("*/"))
        assert name.startswith(MADE_BY_A_RUN) or any((place / name).exists() for place in places), name


def test_the_targets_of_make_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", read(page))}
    assert {"search", "test"} <= named <= targets


def test_the_subcommands_that_are_named_exist():
    known = {command.__name__ for command in cli.COMMANDS}
    named = {name for page in PAGES for name in re.findall(r"nni-dynconv (\w+)", read(page))}
    assert named == known


def test_the_picture_is_drawn_by_its_script(tmp_path):
    names = {"__name__": "drawing", "__file__": str(ROOT / "docs" / "draw_overview.py")}
    exec(read("docs/draw_overview.py"), names)  # noqa: S102 (docs/ is no package)
    names["draw"](tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 10_000
    assert names["PICTURE"].is_file()


def test_a_result_stands_with_the_command_that_makes_it():
    """A section of README with a measured number (two decimals) names a target of make."""
    for section in re.split(r"^(?=##+ )", read("README.md"), flags=re.MULTILINE):
        prose = without_code(section)
        if re.search(r"\b\d+\.\d\d\b|\bdB\b", prose):
            assert re.search(r"`make [a-z]+`", section), section.splitlines()[0]


def test_the_results_say_what_is_ahead():
    rows = {name: values for name, *values in table("README.md", "### What `make search` found")}
    for column in (0, 1):
        noisy, saved, scratch, twin, shuffled, drawn = (float(values[column]) for values in rows.values())
        assert noisy < twin < scratch and shuffled < saved, "generated weights, and the right context, are worth it"
        assert saved > drawn, "so is the search"


# Tables


def test_readme_lists_every_op_sampler_controller_and_encoder():
    named_ops = {name for cell, *_ in table("README.md", "| op |") for name in re.findall(r"`(\w+)`", cell)}
    assert named_ops | {"DynamicOp"} == set(ops.__all__)
    assert {*first_words("README.md", "| controller |"), "Controller"} == set(controllers.__all__)
    assert set(first_words("README.md", "| context encoder |")) == set(context.__all__)
    named = {name for name in samplers.__all__ if name.endswith("Sampler")}
    assert {*first_words("README.md", "| sampler |"), "Sampler", "DifferentiableSampler"} == named


@pytest.mark.parametrize("kind", ["sampler", "controller", "context encoder"])
def test_readme_gives_each_part_its_name_in_the_yaml(kind):
    names = TABLES[kind.split()[0]]
    rows = [row for row in table("README.md", f"| {kind} |") if row[0].startswith("`")]
    named = {row[1].strip("`"): re.match(r"`(\w+)`", row[0]).group(1) for row in rows}
    assert named == {name: part.dotted.split(":")[1] for name, part in names.items()}


def default_of(one):
    if one.default is not dataclasses.MISSING:
        return one.default
    if one.default_factory is not dataclasses.MISSING:
        made = one.default_factory()
        return made.name if isinstance(made, Named) else made
    return "required"


def test_the_yaml_reference_has_every_key_of_class_args_with_its_default():
    listed = {row[0].strip("`"): row[1] for row in table("docs/yaml.md", "<!-- table: RunSettings -->")}
    fields = {one.name: default_of(one) for one in dataclasses.fields(RunSettings)}
    assert list(listed) == ["mode", "space", "evaluator", *[name for name in fields if name in listed][3:]]
    assert {name: yaml.safe_load(value.strip("`")) for name, value in listed.items()} == fields


def test_the_yaml_reference_has_every_setting_of_every_part_with_its_default_and_range():
    rows = table("docs/yaml.md", "<!-- table: parts -->")
    listed = {
        (part.strip("`"), key.strip("`")): (yaml.safe_load(value.strip("`")), a) for part, key, value, a, _ in rows[1:]
    }
    tables = {name: part.settings for names in TABLES.values() for name, part in names.items()}
    tables |= {"strategy": StrategySettings, "baselines": BaselineSettings}
    expected = {
        (name, one.name): (default_of(one), range_of(settings_of(settings)[one.name]))
        for name, settings in tables.items()
        for one in dataclasses.fields(settings)
        if one.name != "seed" or name == "baselines"
    }
    assert listed == expected


def test_the_yaml_reference_is_made_of_the_settings_by_its_script():
    script = runpy.run_path(str(ROOT / "docs" / "make_yaml_tables.py"))
    assert script["page"](read("docs/yaml.md")) == read("docs/yaml.md")
    stale = read("docs/yaml.md").replace("| `64` |", "| `65` |")
    assert script["page"](stale) == read("docs/yaml.md")
    assert script["schema"]() == script["SCHEMA_FILE"].read_text(encoding="utf-8")


def test_the_table_of_choices_is_made_of_the_benchmarks_results():
    from benchmarks.quality import choices

    rows = json.loads(choices.TABLE.read_text(encoding="utf-8"))
    assert choices.page(read("docs/your_own_search.md"), rows) == read("docs/your_own_search.md")
    assert list(rows) == list(choices.CHOICES)


def test_the_tables_of_saved_networks_are_made_of_the_sweeps_results_by_their_script():
    script = runpy.run_path(str(ROOT / "docs" / "make_saving_table.py"))
    assert script["page"](read("docs/saving.md")) == read("docs/saving.md"), "python docs/make_saving_table.py"
    counts = {row[0]: row[1:] for row in table("docs/saving.md", "<!-- table: saved -->")}
    for name, (_, tried, same, otherwise, refused, limit, *_) in counts.items():
        assert int(tried) == int(same) + int(refused) + int(limit) and otherwise == "0", name


def test_the_yaml_reference_says_what_each_setting_means_and_which_words_it_takes():
    """It used to give names and defaults alone."""
    words = {
        "scale_rule": parts.ScaleRule,
        "encoding": parts.Encoding,
        "nesting": parts.Nesting,
        "routing": parts.Routing,
        "shares": parts.Shares,
    }
    for part, key, *_, meaning in table("docs/yaml.md", "<!-- table: parts -->"):
        assert len(meaning.split()) > 1, (part, key)
        assert {f"`{word}`" for word in get_args(words.get(key.strip("`")))} <= set(re.findall(r"`\w+`", meaning))


# The support matrix


class PartSpace(ModelSpace):
    """A dynamic stem and one part to try."""

    def __init__(self, make):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 1)
        self.part = make()

    def forward(self, x):
        return self.part(self.stem(x))


class InputSpace(PartSpace):
    def forward(self, x):
        x = self.stem(x)
        return self.part([x, 2 * x, 3 * x])


class CellSpace(PartSpace):
    def forward(self, x):
        return self.part([self.stem(x)])


def choice(label="choice"):
    return LayerChoice({"a": conv(1), "b": conv(3)}, label=label)


def inputs(**options):
    return InputSpace(make=lambda: InputChoice(3, label="inputs", **options))


def repeat(depth, **options):
    return PartSpace(make=lambda: Repeat(lambda index: conv(3), depth, **options))


def cell(candidates, **options):
    sizes = {"num_nodes": 2, "num_ops_per_node": 2, "num_predecessors": 1}
    return CellSpace(make=lambda: Cell(candidates, **sizes, label="cell", **options))


def factories():
    return {"conv": lambda *place: conv(3), "skip": lambda *place: nn.Identity()}


def padded():
    sizes = {"kernel_size": nni.choice("kernel", [1, 3]), "padding": nni.choice("padding", [0, 1])}
    return MutableConv2d(CHANNELS, CHANNELS, **sizes)


def widened():
    width = nni.choice("width", [2, CHANNELS])
    first, last = (
        MutableConv2d(CHANNELS, width, 1),
        MutableConv2d(width, CHANNELS, nni.choice("kernel", [1, 3]), padding=1),
    )
    return nn.Sequential(first, MutableBatchNorm2d(width), last)


def strided():
    return MutableConv2d(CHANNELS, CHANNELS, 1, stride=nni.choice("stride", [1, 2]))


def grouped():
    return MutableConv2d(CHANNELS, CHANNELS, 1, groups=nni.choice("groups", [1, 2]))


def chosen_kernel():
    return DynamicConv2d(CHANNELS, nni.choice("width", [4, 8]), nni.choice("kernel", [1, 3]), padding="same")


def chosen_delta():
    return DynamicConv2d(CHANNELS, 4, 1, base="learned", delta=nni.choice("delta", ["none", "scale", "full"]))


def constrained():
    space = PartSpace(make=lambda: nn.Sequential(choice("first"), choice("second")))
    first, second = (module.choice for module in space.part)
    space.add_mutable(ExpressionConstraint((first == "b") | (second == "b")))
    return space


# The matrix's rows, in its order: what makes spaces of each.
ROWS = (
    (
        lambda: PartSpace(make=choice),
        lambda: PartSpace(make=lambda: LayerChoice([nn.Sequential(choice("inner")), conv(1)], label="outer")),
        lambda: PartSpace(make=lambda: nn.Sequential(choice(), choice())),
    ),
    (lambda: inputs(n_chosen=2), lambda: inputs(n_chosen=2, reduction="mean")),
    (lambda: inputs(n_chosen=2, reduction="concat"),),
    (lambda: inputs(n_chosen=2, reduction="none"),),
    (lambda: inputs(n_chosen=None),),
    (
        lambda: PartSpace(make=lambda: Repeat(lambda index: choice(f"block{index}"), 2)),
        lambda: repeat((0, 2), label="depth"),
        lambda: repeat(nni.choice("depth", [1, 3])),
    ),
    (lambda: repeat(nni.choice("depth", [1, 2]) * 2),),
    (lambda: cell([conv(1), conv(3)]), lambda: cell(factories())),
    (lambda: cell(factories(), merge_op="loose_end"),),
    (lambda: PartSpace(make=chosen_kernel), lambda: PartSpace(make=chosen_delta)),
    (lambda: PartSpace(make=widened),),
    (lambda: PartSpace(make=padded), lambda: PartSpace(make=strided), lambda: PartSpace(make=grouped)),
    (lambda: PartSpace(make=lambda: MutableBatchNorm2d(CHANNELS, momentum=nni.uniform("momentum", 0.1, 0.2))),),
    (constrained,),
    (lambda: PartSpace(make=lambda: conv(3)),),
)
SAMPLERS = tuple(TABLES["sampler"])


def refusals():
    """The words of `docs/support.md` by their number."""
    words = read("docs/support.md").split("## The words", 1)[1]
    return dict(re.findall(r"^(\d)\. `` (.*?) ``", words, re.MULTILINE))


@pytest.mark.parametrize("corner", ["| primitive |", "| |"])
def test_the_matrix_has_a_column_for_each_sampler(corner):
    """The fair one used to be missing."""
    (head,) = re.findall(rf"^{re.escape(corner)}(.*)\|$", read("docs/support.md"), re.MULTILINE)
    assert [name.strip(" `") for name in head.split("|")] == list(SAMPLERS)


def test_the_matrix_has_a_row_for_each_that_is_tried():
    assert len(table("docs/support.md", "| primitive |")) == len(ROWS)
    assert sorted(refusals()) == list("123456789")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_the_support_matrix_is_true(row, name):
    cell = table("docs/support.md", "| primitive |")[row][1 + SAMPLERS.index(name)]
    for make in ROWS[row]:
        build = TABLES["sampler"][name].dotted
        sampler = getattr(samplers, build.split(":")[1])(seed=0)
        if cell == "yes":
            _search(DynamicWeightMutator(make(), sampler=sampler))
        else:
            words = refusals()[re.fullmatch(r"no \((\d)\)", cell).group(1)]
            with pytest.raises(SpaceError, match=re.escape(words)):
                DynamicWeightMutator(make(), sampler=sampler)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("mode", MODES)
def test_the_modes_of_a_yaml_are_true(mode, name):
    (row,) = [row for row in table("docs/support.md", "## Modes") if row[0] == f"YAML, `{mode}`"]
    shared = {"checkpoint": "supernet"} if mode == "multi_trial" else {}
    class_args = {"mode": mode, "space": "toy:Space", "evaluator": "toy:evaluator", "sampler": name, **shared}
    if row[1 + SAMPLERS.index(name)] == "yes":
        check_class_args(class_args)
    else:
        with pytest.raises(ConfigError, match=re.escape(_refusals_of_modes()[name])):
            check_class_args(class_args)


def _refusals_of_modes():
    """The words of `docs/support.md` on multi-trial mode, by sampler."""
    lines = re.findall(r"^- (`.*`): `` (.*) ``$", read("docs/support.md").split("## Modes", 1)[1], re.MULTILINE)
    return {name.strip("`"): words for names, words in lines for name in names.split(", ")}


def _search(mutator):
    x = torch.randn(3, 1, 6, 6)
    for _ in range(2):
        mutator.reset()
        mutator(x).sum().backward()
    mutator.eval()
    best = mutator.export()
    with mutator.using(best):
        torch.testing.assert_close(mutator.freeze(best)(x), mutator(x))


def test_too_many_subsets_are_refused_in_the_words_of_the_matrix():
    space = InputSpace(make=lambda: InputChoice(20, n_chosen=10, label="inputs"))
    with pytest.raises(SpaceError, match=re.escape(refusals()["7"])):
        DynamicWeightMutator(space)


# Docstrings


MODULES = [nni_dynconv, context, controllers, diagnosis, export, functional, ops, ranking, samplers]
PUBLIC = {
    f"{one.__module__}.{one.__qualname__}": one
    for module in MODULES
    for one in (getattr(module, name) for name in module.__all__)
    if not isinstance(one, types.ModuleType)
}


def arguments_of(one):
    """The arguments that its own code names: not those of a base class of torch's or NNI's."""
    if hasattr(one, "_fields"):
        return one._fields
    if isinstance(one, type):
        one = next(vars(base)["__init__"] for base in one.__mro__ if "__init__" in vars(base))
        if not getattr(one, "__module__", "").startswith("nni_dynconv"):
            return []
    return [name for name in inspect.signature(one).parameters if name != "self"]


def documented(one, section):
    """The names, by the line that says them, of a section of a docstring."""
    text = re.split(rf"^{section}\n-+\n", inspect.cleandoc(one.__doc__), flags=re.MULTILINE)[1:]
    lines = re.split(r"\n\n\w+\n-+\n", text[0])[0].splitlines() if text else []
    heads = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [name.strip("* ") for head in heads for name in head.split(",")]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_docstring_says_what_every_parameter_is(name):
    """Those of several functions and ops used to say only whose they are like."""
    assert set(arguments_of(PUBLIC[name])) <= set(documented(PUBLIC[name], "Parameters"))


RAISING = {
    "ConfigError": (controllers.ChunkedController, controllers.FlatController, controllers.CoordinateController),
    "ContextError": (context.VectorContext, context.FeatureMapContext, context.SequenceContext),
    "ExportError": (export.load, export.save, export.load_supernet, export.save_supernet),
    "RankError": (ranking.fidelity, ranking.interval, ranking.kendall_tau, ranking.precision, ranking.regret),
    "ShapeError": tuple(
        one for one in map(vars(functional).get, functional.__all__) if "Tensor" in str(inspect.signature(one))
    ),
    "SpaceError": (nni_dynconv.lift, nni_dynconv.unlift, samplers.choices_of),
}


@pytest.mark.parametrize(("error", "one"), [(error, one) for error, ones in RAISING.items() for one in ones])
def test_a_public_docstring_says_what_is_raised(error, one):
    assert error in documented(one, "Raises")


def test_no_page_names_a_place_of_one_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:home|work|tmp|root|usr)/", read(page)), page


def test_the_public_names_that_pages_import_exist():
    for page in PAGES:
        for names in re.findall(r"^from nni_dynconv import (.*)$", read(page), re.MULTILINE):
            for name in names.split(", "):
                assert hasattr(nni_dynconv, name), name
