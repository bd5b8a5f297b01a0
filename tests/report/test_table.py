"""From run directories to tables: what becomes a row, what stands in a cell, what is said beneath."""

from __future__ import annotations

import csv
import io
import re
import shutil
from itertools import product

import numpy as np
import pytest
import yaml

from cpanet.report.__main__ import main
from cpanet.report.summary import Summary
from cpanet.report.write import FILES, comma_separated, latex, markdown, write_report
from tests.report import sweeps
from tests.report.synthetic import ablation, write_failure, write_run

PAIR = ("cpp", "full")
PLAIN = {"names": (), "axes": {}, "seeds": [0], "reference": {}, "published": []}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The summary of two rows with two seeds each, which have everything."""
    return Summary([sweeps.modules(tmp_path_factory.mktemp("pair") / "s", PAIR)])


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The summary of all combinations, two seeds each."""
    return Summary([sweeps.modules(tmp_path_factory.mktemp("eight") / "s")])


@pytest.fixture(scope="module")
def by_k(tmp_path_factory):
    """The summary of a grid of modules and k."""
    return Summary([sweeps.ablation_by_k(tmp_path_factory.mktemp("by_k") / "s")])


def best(summary, *key):
    return summary.entries[key, "best"]


def scores(summary, *names, metric="miou", which="best"):
    """Percent, of runs by their names."""
    return [sweeps.score(summary.directories[0] / name, which, metric) for name in names]


def has_header(text, *headers):
    """Whether a Markdown table in ``text`` begins with these headers."""
    return any(
        [c.strip() for c in line.split("|")][1 : len(headers) + 1] == list(headers)
        for line in text.splitlines()
    )


def table_rows(summary, title, baseline=False):
    """Cells of the Markdown table under ``title``: the rows of runs, or those of the baseline."""
    part = markdown(summary).split(f"## {title}", 1)[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return [row for row in rows if row[0].endswith("baseline") == baseline]


class TestRows:
    def test_seeds_are_averaged_and_never_rows(self, pair):
        assert [key for key, _ in pair.entries] == [("cpp",), ("cpp",), ("full",), ("full",)]
        measured = scores(pair, "ablation=cpp,seed=0", "ablation=cpp,seed=1")
        assert best(pair, "cpp").score["miou"].mean == pytest.approx(np.mean(measured))
        assert best(pair, "cpp").score["miou"].sd == pytest.approx(np.std(measured, ddof=1))
        assert best(pair, "cpp").seeds == [0, 1]

    def test_the_publications_layout(self, eight):
        marks = ["– – –", "✓ – –", "– ✓ –", "– – ✓", "✓ ✓ –", "– ✓ ✓", "✓ – ✓", "✓ ✓ ✓"]
        assert [" ".join(row[:3]) for row in table_rows(eight, "Best epoch")] == marks

    def test_an_ad_hoc_multirun_is_a_grid_of_what_varies(self, by_k):
        assert has_header(markdown(by_k), "CPP", "SA", "SSA", "k = 0.0", "k = 0.2", "k = 0.4")
        rows = table_rows(by_k, "mIoU, best epoch")
        assert len(rows) == 3
        assert all(re.match(r"\d\d\.\d\d \(1\)", cell) for row in rows for cell in row[3:])

    def test_folds_by_shots_with_the_mean_over_folds(self, tmp_path):
        summary = Summary([sweeps.folds(tmp_path / "s")])
        assert has_header(markdown(summary), "shots", "fold 0", "fold 1", "fold 2", "mean over folds")
        per_seed = [
            np.mean(scores(summary, *(f"fold={fold},shot=5,seed={seed}" for fold in (0, 1, 2))))
            for seed in (0, 1)
        ]
        entry = best(summary, 5, "mean")
        assert entry.score["miou"].mean == pytest.approx(np.mean(per_seed))
        assert entry.score["miou"].sd == pytest.approx(np.std(per_seed, ddof=1))

    def test_a_sweep_over_folds_of_a_published_table_has_them_as_columns(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", PAIR, seeds=(0,))
        for name in PAIR:
            write_run(top / f"{name},fold=1", 0.4, {"ablation": ablation(name), "fold": 1})
        assert has_header(markdown(Summary([top])), "CPP", "SA", "SSA", "fold 0", "fold 1", "mean over folds")

    def test_a_mean_over_folds_waits_for_all_folds(self, tmp_path):
        top = sweeps.folds(tmp_path / "s", seeds=(0,))
        shutil.rmtree(top / "fold=1,shot=5,seed=0")
        assert best(Summary([top]), 5, "mean").score == {}

    @pytest.mark.parametrize(
        ("changes", "heading"),
        [
            ({"profile": "quick"}, "profile"),
            ({"data.image_size": 80}, "image size"),
            ({"protocol.backbone_mode": "train"}, "protocol.backbone_mode"),
            ({"recipe.clip_grad_norm": 5.0}, "recipe.clip_grad_norm"),
            ({"evaluate.episode_seed": 1}, "evaluate.episode_seed"),
        ],
    )
    def test_runs_that_differ_are_never_averaged_when_sweeps_are_merged(
        self, pair, tmp_path, changes, heading
    ):
        summary = Summary(
            [*pair.directories, sweeps.modules(tmp_path / "two", PAIR, seeds=(2, 3), changes=changes)]
        )
        assert len(summary.keys) == 4
        text = markdown(summary).replace("\\_", "_")
        assert f"differ in {heading}: compare within, not across" in text
        assert re.search(rf"\| {re.escape(heading)} +\|", text)
        assert all(len(entry.seeds) == 2 for entry in summary.entries.values())

    def test_other_data_under_the_same_name_are_another_row(self, tmp_path):
        write_run(tmp_path / "s" / "seed=0", 0.5, {"seed": 0})
        data = {"name": "embedded", "fingerprint": "0" * 64}
        write_run(tmp_path / "s" / "seed=1", 0.5, {"seed": 1}, dataset=data)
        summary = Summary([tmp_path / "s"])
        assert len(summary.keys) == 2
        assert "differ in data.fingerprint: compare within, not across" in markdown(summary)

    def test_more_seeds_of_the_same_rows_merge(self, pair, tmp_path):
        summary = Summary([*pair.directories, sweeps.modules(tmp_path / "two", PAIR, seeds=(2,))])
        assert best(summary, "cpp").seeds == [0, 1, 2]

    def test_seeds_from_before_data_sets_had_labels_merge(self, pair, tmp_path):
        labelled = sweeps.modules(tmp_path / "two", PAIR, seeds=(2,), changes={"data.label": "FSSD-12"})
        summary = Summary([*pair.directories, labelled])
        assert best(summary, "cpp").seeds == [0, 1, 2]

    def test_a_run_by_itself_is_a_table_of_one_row(self, tmp_path):
        assert len(Summary([write_run(tmp_path / "run", 0.5)]).keys) == 1

    def test_a_numbers_column_is_in_order_whoever_was_first(self, tmp_path):
        for k in (1.0, 0.2, 0.0, 10.0):
            write_run(tmp_path / "s" / f"loss.k={k}", 0.5, {"loss.k": k}, [f"loss.k={k}"])
        assert Summary([tmp_path / "s"]).pivot.values["loss.k"] == [0, 0.2, 1, 10]

    def test_variants_are_told_apart_by_all_they_set(self, tmp_path):
        variants = [
            {"label": "corrected", "overrides": {"protocol": "corrected"}},
            {"label": "drift", "overrides": {"protocol": "corrected", "protocol.backbone_mode": "train"}},
        ]
        top = sweeps.modules(tmp_path / "s", **PLAIN, variants=variants, rows=["variant"])
        write_run(top / "a", 0.5)
        write_run(top / "b", 0.4, {"protocol.backbone_mode": "train"})
        summary = Summary([top])
        assert summary.keys == [("corrected",), ("drift",)]
        assert best(summary, "drift").difference["miou"].difference < 0

    def test_a_relative_and_an_absolute_path_are_one_row(self, tmp_path):
        axes = {"backbone.weights": ["w/a.pth", "w/b.pth"]}
        top = sweeps.modules(tmp_path / "s", **{**PLAIN, "axes": axes}, rows=["backbone.weights"])
        kept = yaml.safe_dump({"hydra": {"runtime": {"cwd": str(tmp_path)}}})
        (top / "multirun.yaml").write_text(kept)
        for name, typed in (("a", "w/a.pth"), ("b", str(tmp_path / "w" / "b.pth"))):
            run = write_run(top / name, 0.5, {"backbone.weights": typed})
            (run / ".hydra" / "hydra.yaml").write_text(kept)
        rows = table_rows(Summary([top]), "Best epoch")
        assert [row[:2] for row in rows] == [["a.pth", "1"], ["b.pth", "1"]]


class TestWhatIsNotThere:
    def test_failed_and_missing_runs_are_marked(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", seeds=(0,))
        sweeps.fail(top / "ablation=cpp,seed=0", {"ablation": ablation("cpp")}, "CUDA out of memory")
        shutil.rmtree(top / "ablation=sa,seed=0")
        summary = Summary([top])
        rows = table_rows(summary, "Best epoch")
        assert rows[1][3:6] == ["0 of 1 [1]", "failed", "failed"]
        assert rows[2][4:6] == ["…", "…"]
        assert "[1] CPP, seed 0: failed: CUDA out of memory" in markdown(summary)
        assert sum("failed" in row[4] for row in rows) == 1

    def test_a_row_with_a_failed_seed_says_so_beside_its_mean(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", PAIR)
        changes = {"ablation": ablation("cpp"), "seed": 1}
        sweeps.fail(top / "ablation=cpp,seed=1", changes, "the loss is nan at iteration 3", "diverged")
        summary = Summary([top])
        assert table_rows(summary, "Best epoch")[0][3] == "1 of 2 [1]"
        assert "[1] CPP, seed 1: diverged: the loss is nan at iteration 3" in markdown(summary)

    def test_an_interrupted_run_is_still_to_come(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", PAIR, seeds=(0,))
        sweeps.fail(top / "ablation=cpp,seed=0", {"ablation": ablation("cpp")}, "", "interrupted")
        summary = Summary([top])
        assert table_rows(summary, "Best epoch")[0][4] == "…"
        assert "resume=true" in markdown(summary)

    def test_a_sweep_that_has_only_begun_shows_its_whole_table(self, tmp_path):
        sweeps.multirun(tmp_path / "s", "ablation=cpp,sa", "loss.k=0,0.4", "seed=0,1")
        write_run(tmp_path / "s" / "first", 0.5, {"ablation": ablation("cpp")}, ["ablation=cpp"])
        rows = table_rows(Summary([tmp_path / "s"]), "mIoU, best epoch")
        assert [row[3:] for row in rows][1] == ["…", "…"]

    def test_an_empty_sweep_makes_files_all_the_same(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", ())
        write_report([top], top)
        write_report([tmp_path], tmp_path / "out")
        assert all((tmp_path / "out" / name).is_file() for name in FILES)

    def test_a_run_without_any_configuration_is_named(self, tmp_path):
        (tmp_path / "s" / "broken").mkdir(parents=True)
        (tmp_path / "s" / "broken" / "result.json").write_text("{")
        sweeps.modules(tmp_path / "s", PAIR, seeds=(0,))
        assert "broken: result.json: damaged" in markdown(Summary([tmp_path / "s"]))

    def test_a_damaged_specification_falls_back_to_what_varies(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", PAIR)
        (top / "sweep.yaml").write_text("rows: 3")
        summary = Summary([top])
        assert len(table_rows(summary, "Best epoch")) == 2
        assert "not a sweep's table" in markdown(summary)


class TestDifferences:
    def test_differences_of_every_row_to_the_reference(self, tmp_path):
        summary = Summary([sweeps.modules(tmp_path / "s", seeds=(0, 1, 2))])
        none, full = best(summary, "none"), best(summary, "full")
        assert full.relation == "reference"
        found = none.difference["miou"]
        assert found.difference == pytest.approx(none.score["miou"].mean - full.score["miou"].mean)
        assert found.low < found.difference < found.high < 0
        assert found.excludes_zero
        text = table_rows(summary, "Best epoch")[0][6]
        assert re.fullmatch(r"−\d+\.\d\d\\\* \[−\d+\.\d\d, −\d+\.\d\d\]", text)

    def test_best_and_last_have_their_own_differences(self, pair):
        last = pair.entries[("cpp",), "last"]
        assert best(pair, "cpp").difference["miou"] != last.difference["miou"]
        assert best(pair, "cpp").score["miou"] != last.score["miou"]

    def test_other_test_episodes_are_refused(self, tmp_path):
        for name, fold in (("cpp", 0), ("full", 0), ("cpp", 1)):
            changes = {"ablation": ablation(name), "fold": fold}
            write_run(tmp_path / "s" / f"{name}{fold}", 0.5, changes, [f"ablation={name}", f"fold={fold}"])
        summary = Summary([tmp_path / "s"])
        assert best(summary, "cpp", 0).difference
        assert best(summary, "cpp", 1).difference == {}

    def test_unpaired_rows_say_why(self, tmp_path):
        for name in PAIR:
            run = write_run(tmp_path / "s" / name, 0.5, {"ablation": ablation(name)}, [f"ablation={name}"])
            if name == "cpp":
                text = (run / "episodes.csv").read_text()
                (run / "episodes.csv").write_text(text.replace("_1.jpg", "_77.jpg"))
        text = markdown(Summary([tmp_path / "s"]))
        assert "No interval to the reference (other test episodes): CPP." in text

    def test_the_reference_that_is_not_there_is_replaced_in_words(self, by_k):
        assert "The usual reference (ablation = full) is not in this sweep" in markdown(by_k)

    def test_one_seed_is_said_to_say_nothing_of_training(self, tmp_path):
        text = markdown(Summary([sweeps.modules(tmp_path / "s", PAIR, seeds=(0,))]))
        assert "not training noise" in text
        assert "the noise from training is not known" in text

    def test_a_trained_row_is_compared_with_a_training_free_one(self, tmp_path):
        for name in PAIR:
            write_run(tmp_path / "s" / name, 0.5, {"ablation": ablation(name)})
        write_run(tmp_path / "s" / "free", 0.3, {"method": "prototype"}, floor=None)
        summary = Summary([tmp_path / "s"], {"method": "prototype"})
        rows = table_rows(summary, "Best epoch" if not summary.pivot.columns else "Every")
        assert sum("reference" in row for row in rows) == 1
        (entry,) = [e for e in summary.entries.values() if "cpp" in e.key and e.which == "best"]
        cpp, free = scores(summary, "cpp", "free")
        assert entry.difference["miou"].difference == pytest.approx(cpp - free)
        assert entry.difference["miou"].excludes_zero


class TestSameFunction:
    def test_the_same_function_is_marked_and_its_spread_is_the_noise_of_training(self, tmp_path):
        top = sweeps.ablation_by_k(tmp_path / "s")
        for k in (0.0, 0.2, 0.4):
            write_run(top / f"cpp{k}", 0.42, {"ablation": ablation("cpp"), "loss.k": k, "seed": 1})
        summary = Summary([top])
        text = markdown(summary)
        same = (
            "CPP · k = 0.0 and CPP · k = 0.2 and CPP · k = 0.4 compute the same function; from seed to seed"
        )
        assert same in text
        assert f"sd {np.std(scores(summary, 'ablation=cpp,loss.k=0.0', 'cpp0.0'), ddof=1):.2f} points" in text
        assert "≡" in table_rows(summary, "mIoU, best epoch")[0][3]

    def test_a_job_left_out_is_shown_in_both_places(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", ("cpp_ssa", "full"), seeds=(0,))
        original = {"status": "duplicate", "duplicate_of": "../ablation=cpp_ssa,seed=0"}
        write_run(top / "k0", 0.1, {"loss.k": 0.0}, ["loss.k=0"], **original)
        summary = Summary([top])
        assert best(summary, "cpp_ssa", 0.4).score["miou"].mean == best(summary, "full", 0).score["miou"].mean

    def test_every_row_of_the_function_is_marked_and_no_other(self, by_k):
        cpp, sa, ssa = table_rows(by_k, "mIoU, best epoch")
        assert all(cell.endswith("≡") for cell in (*cpp[3:], *ssa[3:]))
        assert "≡" not in " ".join(sa)


class TestBaseline:
    @pytest.mark.parametrize("title", ["Best epoch", "Last epoch"])
    def test_one_baseline_where_all_share_it(self, eight, title):
        (row,) = table_rows(eight, title, baseline=True)
        (measured,) = scores(eight, "ablation=full,seed=0", which="floor")
        assert row[:5] == ["training-free baseline", "", "", "2", f"{measured:.2f}"]

    def test_a_row_for_every_baseline_that_says_whose_it_is(self, tmp_path):
        for (backbone, level), name in product((("vgg16", 0.2), ("resnet50", 0.4)), PAIR):
            changes = {"backbone.name": backbone, "ablation": ablation(name)}
            write_run(tmp_path / "s" / f"{backbone},{name}", 0.5, changes, floor=level)
        summary = Summary([tmp_path / "s"])
        rows = table_rows(summary, "Best epoch" if not summary.pivot.columns else "Every", True)
        assert {row[0] for row in rows} == {f"{of}, training-free baseline" for of in ("ResNet-50", "VGG-16")}

    def test_a_baseline_stands_under_the_columns_that_it_belongs_to(self, tmp_path):
        sweeps.multirun(tmp_path / "s", "fold=0,1", "shot=1,5")
        for fold, shot in product((0, 1), (1, 5)):
            changes = {"fold": fold, "shot": shot}
            write_run(tmp_path / "s" / f"{fold},{shot}", 0.5, changes, floor=0.2 + 0.1 * fold)
        summary = Summary([tmp_path / "s"])
        (row,) = table_rows(summary, "mIoU, best epoch", baseline=True)
        expected = scores(summary, "0,1", "1,1", which="floor")
        found = [float(cell.split()[0]) for cell in row[1:]]
        assert found == pytest.approx([*expected, np.mean(expected)], abs=0.01)

    def test_a_row_below_its_baseline_is_marked_and_the_others_are_not(self, tmp_path):
        for name, level in (("cpp", 0.15), ("full", 0.5)):
            write_run(tmp_path / "s" / name, level, {"ablation": ablation(name)})
        summary = Summary([tmp_path / "s"])
        below, above = table_rows(summary, "Last epoch")
        assert below[4].endswith("▼")
        assert "▼" not in " ".join(above)
        assert r"$\blacktriangledown$" in latex(summary)
        lines = list(csv.DictReader(io.StringIO(comma_separated(summary))))
        assert [line["below_baseline"] for line in lines if line["epoch"] == "last"] == ["1", "0"]

    def test_the_interval_above_the_baseline_is_paired(self, pair):
        entry = pair.entries[("full",), "last"]
        assert entry.above.difference == pytest.approx(entry.score["miou"].mean - entry.baseline["miou"].mean)
        assert entry.above.low < entry.above.difference < entry.above.high
        assert entry.above.excludes_zero
        assert not entry.below

    def test_runs_that_have_not_evaluated_the_baseline_have_none(self, tmp_path):
        write_run(tmp_path / "s" / "one", 0.5, floor=None)
        assert "aseline" not in markdown(Summary([tmp_path / "s"])).split("Noise of training")[0]


class TestPublished:
    def test_published_values_stand_beside_the_measured_with_the_difference(self, pair):
        mean = np.mean(scores(pair, "ablation=cpp,seed=0", "ablation=cpp,seed=1"))
        sign = "+" if mean > 42.3 else "−"
        assert table_rows(pair, "Best epoch")[0][-2] == f"42.30 ({sign}{abs(mean - 42.30):.2f})"
        assert "†" not in markdown(pair)
        assert "published" not in markdown(pair).split("## Last epoch")[1].split("\n\n")[1]

    @pytest.mark.parametrize(
        ("changes", "phrase"),
        [({"fold": 1}, "fold 0, here 1"), ({"data.name": "metal8"}, "data embedded, here metal8")],
    )
    def test_published_under_other_conditions_with_a_mark_and_a_sentence(self, tmp_path, changes, phrase):
        summary = Summary([sweeps.modules(tmp_path / "s", PAIR, changes=changes)])
        assert "†" in table_rows(summary, "Best epoch")[0][-2]
        said = f"† Not comparable with CPANet-Jittor, VGG-16: published with {phrase}"
        assert said in markdown(summary)

    def test_published_beside_random_features_with_a_mark(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", ("full",), seeds=())
        write_run(top / "run", 0.5, {"ablation": ablation("full")}, backbone_weights="random")
        assert "ImageNet features, here random ones" in markdown(Summary([top]))

    @pytest.mark.parametrize("both", [True, False])
    def test_published_about_another_backbone_only_without_one_about_this(self, tmp_path, both):
        other = {
            "source": "Paper, ResNet-50",
            "conditions": {"backbone": "resnet50_deep"},
            "values": [{"match": {"ablation": "cpp"}, "miou": 58.30}],
        }
        published = [*sweeps.PUBLISHED, other] if both else [other]
        text = markdown(Summary([sweeps.modules(tmp_path / "s", PAIR, published=published)]))
        assert ("58.30" in text) == (not both)

    def test_published_is_shown_before_the_first_run_is_done(self, tmp_path):
        top = sweeps.modules(tmp_path / "s", PAIR, seeds=(0,))
        shutil.rmtree(top / "ablation=cpp,seed=0")
        assert table_rows(Summary([top]), "Best epoch")[0][-2] == "42.30"


class TestFormats:
    @pytest.fixture
    def hostile(self, tmp_path):
        title = "a|b & <c> [x](http://y) $z_ \\input{w} %"
        top = sweeps.modules(tmp_path / "s", PAIR, title=title)
        changes = {"ablation": ablation("cpp"), "seed": 1}
        sweeps.fail(top / "ablation=cpp,seed=1", changes, "=cmd|'/c'!A1 & 50 % \\n_x")
        return Summary([top])

    def test_csv_holds_the_numbers_of_every_cell_and_epoch(self, eight):
        rows = list(csv.DictReader(io.StringIO(comma_separated(eight))))
        assert [row["epoch"] for row in rows] == ["best"] * 8 + ["last"] * 8
        full = rows[7]
        assert full["ablation"] == "full"
        assert float(full["miou_mean"]) == pytest.approx(best(eight, "full").score["miou"].mean, abs=1e-4)
        assert full["CPANet-Jittor, VGG-16: miou"] == "54.04"
        assert full["seeds"] == "0 1"

    def test_csv_holds_no_formulas(self, tmp_path):
        write_failure(tmp_path / "s" / "a", {"backbone.weights": "=HYPERLINK(1)"}, "x")
        write_failure(tmp_path / "s" / "b", {"backbone.weights": "+1+1"}, "y")
        rows = csv.reader(io.StringIO(comma_separated(Summary([tmp_path / "s"]))))
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+1+1", "@"))]
        assert "'=HYPERLINK(1)" in cells

    def test_tex_is_balanced_and_inert(self, hostile):
        text = latex(hostile)
        assert r"\input" not in text
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
        assert r"\toprule" in text
        assert text.isascii() or not re.search(r"[✓±−…†≡Δ]", text)
        plain = re.sub(r"\\.", "", text)
        assert plain.count("{") == plain.count("}")
        for line in text.splitlines():
            if line.endswith(r"\\") and "&" in line:
                assert len(re.findall(r"(?<!\\)&", line)) in (8, 10)

    def test_markdown_keeps_its_columns_and_its_links_to_itself(self, hostile):
        text = markdown(hostile)
        assert not re.search(r"(?<!\\)\]\(", text)
        assert "<c>" not in text.replace(r"\<c\>", "")
        assert len({len(row) for row in table_rows(hostile, "Best epoch")}) == 1

    def test_the_same_runs_give_the_same_files(self, pair, tmp_path):
        write_report(pair.directories, tmp_path / "one")
        write_report(pair.directories, tmp_path / "two")
        for name in FILES:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_a_report_that_cannot_be_written_says_where(self, pair, tmp_path, capsys):
        (tmp_path / "out" / "table.md" / "x").mkdir(parents=True)
        assert main([str(pair.directories[0]), "--output", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert "table.md" in said
        assert "None" not in said

    def test_files_are_replaced_whole(self, pair, tmp_path, monkeypatch):
        write_report(pair.directories, tmp_path)
        before = (tmp_path / "table.md").read_text()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            write_report(pair.directories, tmp_path)
        assert (tmp_path / "table.md").read_text() == before
        assert not list(tmp_path.glob(".*tmp"))
