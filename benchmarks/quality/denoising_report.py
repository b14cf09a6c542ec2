"""What the denoising benchmark found, from its file of results: numbers first, then table, words and picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from benchmarks.quality.denoising_contenders import DYNAMIC, DYNAMICS, PAIRS
from benchmarks.quality.denoising_names import NAMES, SETS
from benchmarks.quality.denoising_plot import draw
from benchmarks.quality.denoising_training import TEST_SETS, Job, structure, width_key

__all__ = ["HEADING", "replaced", "section", "summarise", "table", "write"]

HEADING = "## Video denoising"
CONTROLLERS = {"dynamic": "experts", "dynamic_chunked": "chunked"}

Row = dict[str, Any]


def summarise(data: Mapping[str, Any]) -> dict[str, Any]:
    """Gather means and deviations over seeds, the front, and the place of the searched one among random ones."""
    widths = data["settings"]["widths"]
    rows = [_row(data, *pair, width) for width in widths for pair in PAIRS]
    fronts = [
        {"chosen": dynamic == _chosen(rows, width), **_front(rows, width, dynamic, test)}
        for width in widths
        for dynamic in DYNAMICS
        for test in TEST_SETS
    ]
    parts = {"rows": rows, "front": fronts, "random": _random(data, rows)}
    return {"settings": data["settings"], **parts, "searches": [_search(data, width) for width in widths]}


def _search(data: Mapping[str, Any], width: int) -> Row:
    """Return what a search cost, and where what it found stands among all by generated weights."""
    search = data["searches"][str(width)]
    ordered = sorted(search["supernet"], key=search["supernet"].__getitem__, reverse=True)
    place = ordered.index(search["found"]) + 1
    return {"budget": width, "trained": len(search["trained"]), "place": place, "of": len(ordered)}


def _row(data: Mapping[str, Any], dynamic: str, contender: str, width: int) -> Row:
    name = data["searches"][str(width)]["found"]
    wide = width if contender in DYNAMICS else data["widths"][width_key(dynamic, contender, name, width)]
    rate = data["learning_rates"][contender]
    budget = {"budget": width, "dynamic": dynamic}
    row = {**budget, "contender": contender, "architecture": name, "width": wide, "learning_rate": rate}
    own = structure(contender, name)
    sizes = data["sizes"][f"{contender}/{own}/{wide}"]
    return {**row, **sizes, "psnr": _over_seeds(data, contender, own, wide)}


def _over_seeds(data: Mapping[str, Any], contender: str, name: str, width: int) -> dict[str, dict[str, float]]:
    rate = data["learning_rates"][contender]
    jobs = [Job(contender, name, width, rate, seed) for seed in data["settings"]["seeds"]]
    runs = [data["runs"][job.key]["psnr"] for job in jobs]
    sets = ("validation", *TEST_SETS)
    return {test: {"mean": fmean(v), "std": stdev(v)} for test in sets for v in ([run[test] for run in runs],)}


def _own(rows: Sequence[Row], width: int, dynamic: str) -> Row:
    return next(row for row in rows if row["budget"] == width and row["contender"] == dynamic)


def _chosen(rows: Sequence[Row], width: int) -> str:
    """Return the dynamic network that reaches most on validation shots."""
    return max(DYNAMICS, key=lambda dynamic: _own(rows, width, dynamic)["psnr"]["validation"]["mean"])


def _front(rows: Sequence[Row], width: int, dynamic: str, test: str) -> Row:
    """Return the lead over the best rival of a budget, and whether none of all that cost no more reaches as much."""
    own = _own(rows, width, dynamic)
    rivals = [row for row in rows if row["contender"] not in DYNAMICS]
    level = own["psnr"][test]["mean"]

    def lead(some: Sequence[Row]) -> tuple[float | None, str | None]:
        best = max(some, key=lambda row: row["psnr"][test]["mean"], default=None)
        return (None, None) if best is None else (level - best["psnr"][test]["mean"], best["contender"])

    equals = [row for row in rivals if row["budget"] == width and row["dynamic"] == dynamic]
    matched, matched_by = lead([row for row in equals if "parameters" not in row["contender"]])
    cheaper, _ = lead([row for row in rivals if row["multiply_adds"] <= own["multiply_adds"]])
    on_front = cheaper is None or cheaper > 0
    place = {"budget": width, "dynamic": dynamic, "set": test}
    return {**place, "on_front": on_front, "lead": matched, "best_rival": matched_by}


def _random(data: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Compare the searched architecture with those that were drawn: each mean over seeds, and the pooled deviation."""
    ((width, names),) = data["random"].items()
    found = _own(rows, int(width), DYNAMIC)
    drawn = {name: _over_seeds(data, DYNAMIC, name, int(width)) for name in names}
    sizes = {name: data["sizes"][f"{DYNAMIC}/{name}/{width}"]["multiply_adds"] for name in names}
    sets = {test: _place(found["psnr"][test]["mean"], [one[test] for one in drawn.values()]) for test in TEST_SETS}
    return {"budget": int(width), "searched": found["architecture"], "drawn": drawn, "sizes": sizes, "sets": sets}


def _place(searched: float, drawn: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = [one["mean"] for one in drawn]
    pooled = fmean(one["std"] ** 2 for one in drawn) ** 0.5
    ahead = searched - median(means)
    return {"searched": searched, "median": median(means), "best": max(means), "ahead": ahead, "spread": pooled}


def table(summary: Mapping[str, Any]) -> str:
    """Write the contenders as a table, a row each."""
    head = ("budget of", "contender", "width", "M multiply-adds", "without making", "parameters", *SETS.values())
    rows = [_cells(row) for row in summary["rows"]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _cells(row: Row) -> Sequence[str]:
    millions = [f"{row[key] / 1e6:.2f}" for key in ("multiply_adds", "without_making")]
    psnr = [f"{row['psnr'][test]['mean']:.2f} ± {row['psnr'][test]['std']:.2f}" for test in SETS]
    name = NAMES[row["contender"]]
    if row["contender"] in DYNAMICS:
        name = f"**{name}** ({row['architecture']})"
    return (
        f"{CONTROLLERS[row['dynamic']]}, {row['budget']}",
        name,
        f"{row['width']}",
        *millions,
        f"{row['parameters']:,}",
        *psnr,
    )


def section(summary: Mapping[str, Any]) -> str:
    """Write the section of ``docs/quality.md``."""
    return "\n".join(_lines(summary)) + "\n"


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    own = summary["settings"]
    seeds, steps, batch = len(own["seeds"]), own["steps"], own["batch"]
    yield HEADING
    yield ""
    yield "`python -m benchmarks.quality.denoising` makes this section, and goes on where it was stopped."
    yield ""
    yield (
        f"PSNR in dB on 64x64 tiles whose noise no contender is told, mean and deviation over {seeds} seeds. Each "
        f"contender is trained from scratch for {steps} steps of {batch} patches, for PSNR, on the same batches. Its "
        f"learning rate is the better of {' and '.join(map(str, own['rates']))} for it on validation shots, at the "
        "middle budget. All see the same three noisy frames; those with a context have them again through the same "
        "encoder. Architecture, rates and widths are decided without the two test sets: shots of a video of which "
        "others were trained on, and a video never seen. The searched architecture has its deltas from experts that "
        "are mixed row by row, for which it was searched, or from a chunked controller; the better of the two on "
        "validation shots is the searched dynamic network of a width. FiLM and mixture have the searched architecture "
        "too. A rival is as wide as it must be to have at least the multiply-adds of the dynamic network whose budget "
        "it is compared at: of one tile, with encoder and controller once, for one "
        "set of weights serves a tile. `without making` leaves out what makes or conditions weights."
    )
    yield ""
    yield table(summary)
    yield ""
    yield from (_front_words(one) for one in summary["front"])
    yield ""
    yield _search_words(summary)
    yield ""
    yield _random_words(summary["random"])
    yield ""
    yield "![PSNR over multiply-adds on unseen shots and on an unseen video](img/denoising_front.png)"


def _front_words(one: Mapping[str, Any]) -> str:
    place = "on the front" if one["on_front"] else "NOT on the front"
    chosen = " (chosen on validation shots)" if one["chosen"] else ""
    return (
        f"- Width {one['budget']}, {CONTROLLERS[one['dynamic']]}{chosen}, {SETS[one['set']]}: {place}; "
        f"{one['lead']:+.2f} dB against the best rival, {NAMES[one['best_rival']]}."
    )


def _search_words(summary: Mapping[str, Any]) -> str:
    own, searches = summary["settings"], summary["searches"]
    trained = ", ".join(f"{one['trained']}" for one in searches)
    places = ", ".join(f"{one['place']}" for one in searches)
    budgets = ", ".join(f"{one['budget']}" for one in searches)
    return (
        f"How it was searched: a supernet with generated weights, trained for {own['search_steps']} steps, scores all "
        f"{searches[0]['of']} architectures. From its favourite a descent changes one choice at a time, by the PSNR on "
        "validation shots that architectures reach when they are trained from scratch, with two seeds that no other "
        f"run has: {trained} of them at budgets {budgets}. It is at place {places} of the supernet's scores. "
        "Rivals have no search of their own, only their learning rate; the random architectures were drawn and trained."
    )


def _random_words(found: Mapping[str, Any]) -> str:
    parts = [
        f"{SETS[test]} {one['ahead']:+.2f} dB (the median is {one['median']:.2f}, the best {one['best']:.2f}, the "
        f"deviation between seeds {one['spread']:.2f})"
        for test, one in found["sets"].items()
    ]
    return (
        f"The searched architecture against the median of {len(found['drawn'])} random ones, all dynamic with experts, "
        f"trained alike, at width {found['budget']}: {'; '.join(parts)}."
    )


def write(summary: Mapping[str, Any], docs: Path) -> None:
    """Put the section into ``quality.md`` of a folder, and the picture beside it."""
    page = docs / "quality.md"
    text = page.read_text(encoding="utf-8") if page.exists() else "# Quality\n"
    page.write_text(replaced(text, section(summary)), encoding="utf-8")
    draw(summary, docs / "img" / "denoising_front.png")


def replaced(text: str, section: str) -> str:
    r"""Return a page with its section of this heading exchanged, or added at the end.

    Examples
    --------
    >>> replaced("# Quality", "## Video denoising\nNew.\n")
    '# Quality\n\n## Video denoising\nNew.\n'
    >>> replaced("## Video denoising\nOld.\n\n## Other\n", "## Video denoising\nNew.\n")
    '## Video denoising\nNew.\n\n## Other\n'
    """
    old = re.search(rf"^{HEADING}$.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if old is None:
        return f"{text.rstrip()}\n\n{section}"
    rest = text[old.end() :]
    return text[: old.start()] + section + (f"\n{rest}" if rest else "")
