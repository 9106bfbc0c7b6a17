"""The order of stages follows from products; what cannot be ordered is said before any work."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from survey_ml.errors import ConfigError, GraphError, PluginError
from survey_ml.graph import Graph
from survey_ml.plugins import Origin, Registry
from survey_ml.products import Product, array, summary, table
from survey_ml.stage import Options, Stage, StageSpec, list_files

INGEST = StageSpec("ingest", "none:none", writes=(array("image"),))


class Knobs(Options):
    seed_snr: float = 5.0
    """Threshold."""
    catalogue: Path | None = None


class Plain(Stage):
    pass


class Tunable(Stage):
    options_type = Knobs


class Impostor:
    pass


def spec(
    name: str, reads: tuple[Product, ...] = (), writes: tuple[Product, ...] = (), kind=Plain
) -> StageSpec:
    return StageSpec(name, f"{__name__}:{kind.__name__}", reads, writes)


def registry(*specs: StageSpec) -> Registry:
    origin = Origin("dist", "1", "plugin")
    return Registry(offers=[(s, origin) for s in (INGEST, *specs)])


def build(wanted, *specs: StageSpec, **more) -> Graph:
    given = wanted if isinstance(wanted, dict) else {name: {} for name in wanted}
    return Graph.build(given, registry(*specs), **more)


def names(graph: Graph) -> list[str]:
    return [s.name for s in graph.order]


A = spec("a", (array("image"),), (summary("s"),))
B = spec("b", (summary("s"),), (table("t", "source"),))
C = spec("c", (table("t", "source"), array("image")), (table("u"),))


def test_what_a_stage_needs_is_added():
    graph = build(["c"], C, B, A)
    assert names(graph) == ["ingest", "a", "b", "c"]
    assert graph.reads("c") == {"t": "b", "image": "ingest"}
    assert graph.needs("c") == {"ingest", "a", "b"}
    assert graph.writer("t") == B
    assert set(graph.options) == {"a", "b", "c"}


def test_the_order_is_the_same_whatever_the_order_of_plugins():
    extra = spec("aa", (), (summary("other"),))
    orders = {tuple(names(build(["c", "aa"], *given))) for given in itertools.permutations([A, B, C, extra])}
    assert orders == {("ingest", "a", "aa", "b", "c")}


def test_ingest_comes_first_even_before_a_stage_that_reads_nothing():
    assert names(build(["a0"], spec("a0", (), (summary("q"),)))) == ["ingest", "a0"]


def test_an_optional_product_orders_but_does_not_pull_in():
    reader = spec("reader", (summary("s", optional=True),), (summary("z"),))
    assert names(build(["reader"], reader, A)) == ["ingest", "reader"]
    assert names(build(["reader", "a"], reader, A)) == ["ingest", "a", "reader"]


def test_a_missing_producer_is_named():
    with pytest.raises(GraphError, match="stage b reads product s, which no stage writes"):
        build(["b"], B)


def test_two_possible_producers_need_a_choice():
    other = spec("other", (), (summary("s"),))
    with pytest.raises(GraphError) as caught:
        build(["b"], B, A, other)
    assert "written by a and other" in caught.value.message
    assert "a: {}" in caught.value.hint
    assert names(build(["b", "other"], B, A, other)) == ["ingest", "other", "b"]


def test_two_writers_of_one_product_clash():
    with pytest.raises(GraphError, match="stages a and other both write product s"):
        build(["a", "other"], A, spec("other", (), (summary("s"),)))


def test_nobody_but_ingest_writes_the_image():
    with pytest.raises(GraphError, match="ingest and painter both write product image"):
        build(["painter"], spec("painter", (), (array("image"),)))


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (summary("t"), "kind summary"),
        (table("t", "row"), r"dims \(row\)"),
        (array("t"), "kind array"),
    ],
)
def test_a_type_mismatch_names_both_stages(read, what):
    with pytest.raises(GraphError, match=rf"stage r reads t with {what}, but stage b writes it with"):
        build(["r"], A, B, spec("r", (read,), (summary("z"),)))


def test_a_dtype_mismatch_is_an_error_and_an_empty_dtype_matches_all():
    maker = spec("maker", (), (array("mask", "uint8"),))
    with pytest.raises(GraphError, match="with dtype float32, but stage maker writes it with dtype uint8"):
        build(["r"], maker, spec("r", (array("mask", "float32"),), (summary("z"),)))
    assert build(["r"], maker, spec("r", (array("mask", ""),), (summary("z"),)))


def test_a_cycle_is_named():
    one = spec("one", (summary("y"),), (summary("x"),))
    two = spec("two", (summary("x"),), (summary("y"),))
    with pytest.raises(GraphError, match="one reads y of two, two reads x of one"):
        build(["one"], one, two)


def test_unknown_and_wrong_options_name_stage_key_and_place():
    tunable = spec("tunable", (), (summary("x"),), Tunable)
    with pytest.raises(ConfigError) as caught:
        build(
            {"tunable": {"seed_snrr": 6}},
            tunable,
            locate=lambda path: f"release.yaml:{len(path)}:{'.'.join(map(str, path))}",
        )
    assert caught.value.message == (
        "release.yaml:2:tunable.seed_snrr: unknown key seed_snrr of stage tunable; did you mean seed_snr?"
    )
    assert "catalogue, seed_snr" in caught.value.hint
    with pytest.raises(ConfigError, match="seed_snr of stage tunable: input should be a valid number"):
        build({"tunable": {"seed_snr": "high"}}, tunable)
    with pytest.raises(ConfigError, match=r"unknown key x of stage a\n"):
        build({"a": {"x": 1}}, A)


def test_options_reach_the_stage_and_their_paths_are_relative_to_the_yaml(tmp_path):
    tunable = spec("tunable", (), (summary("x"),), Tunable)
    given = {"tunable": {"seed_snr": 6, "catalogue": "lists/a.fits"}}
    options = build(given, tunable, base=tmp_path).options["tunable"]
    assert options == Knobs(seed_snr=6.0, catalogue=tmp_path / "lists/a.fits")
    away = {"tunable": {"catalogue": "/elsewhere/a.fits"}}
    assert build(away, tunable, base=tmp_path).options["tunable"].catalogue == Path("/elsewhere/a.fits")


def test_a_factory_that_is_no_stage_is_an_error():
    with pytest.raises(PluginError, match="of dist 1 is not a Stage"):
        build(["wrong"], spec("wrong", (), (summary("x"),), Impostor))


def test_text_and_mermaid_show_who_gives_what():
    graph = build(["c"], A, B, C)
    assert graph.to_text().splitlines()[-2:] == ["c       [tile]  t <- b; image <- ingest", "        -> u"]
    lines = [line.strip() for line in graph.to_mermaid().splitlines()]
    assert lines[0] == "graph LR"
    assert "ingest -->|image| a" in lines
    assert "b -->|t| c" in lines
    assert graph.to_mermaid() == build(["c"], C, B, A).to_mermaid()


class Weighty(Options):
    weights: Path = Path("weights.bin")
    """A file."""
    fault: str = ""
    """How files() fails."""

    def files(self):
        if self.fault == "told":
            raise ConfigError("there is no model x", "name another")
        return 1 / 0 if self.fault else {"weights": self.weights}


class Lifter(Stage):
    options_type = Weighty


def test_a_file_that_options_tell_must_be_there(tmp_path):
    lifter = spec("lifter", (), (summary("q"),), Lifter)
    with pytest.raises(ConfigError, match=r"stage lifter needs weights .*weights\.bin") as caught:
        build(["lifter"], lifter, base=tmp_path)
    assert caught.value.stage == "lifter" and caught.value.hint
    (tmp_path / "weights.bin").write_bytes(b"1")
    graph = build(["lifter"], lifter, base=tmp_path)
    assert graph.options["lifter"].files() == {"weights": tmp_path / "weights.bin"}


def test_what_files_raises_is_said(tmp_path):
    lifter = spec("lifter", (), (summary("q"),), Lifter)
    with pytest.raises(ConfigError, match="there is no model x"):
        build({"lifter": {"fault": "told"}}, lifter, base=tmp_path)
    with pytest.raises(PluginError, match="cannot tell their files: ZeroDivisionError"):
        build({"lifter": {"fault": "else"}}, lifter, base=tmp_path)


def test_an_option_called_files_is_no_method():
    with pytest.warns(UserWarning, match="shadows"):

        class Older(Options):
            files: tuple[str, ...] = ("a",)

    assert list_files(Older()) == {}
