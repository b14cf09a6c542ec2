"""The sections of a run's page, in order: each draws a part of the report, where the run has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .answers import number, seconds_told
from .commands import experiment_of
from .data import Choice, Compared, Curve, Report, Site
from .drawing import COLOURS, Line, dots, graph, lines
from .html import Page, text

__all__ = ["SECTIONS"]

RANDOM = "random"


def head(page: Page, report: Report) -> None:
    """Name, result, and the five answers."""
    page.add(f"<h1>{escape(report.name)}</h1>")
    what = f"{report.metric} {number(report.result)}" if report.result is not None else "no result yet"
    page.add(f'<p class="soft">A searched network with generated weights: {escape(report.state)}, {escape(what)}.</p>')
    cards = []
    for one in report.answers:
        words = "".join(f"<li>{text(word)}</li>" for word in one.words)
        cards.append(
            f'<section class="answer"><h2>{escape(one.question)}</h2><p class="short">{text(one.short)}</p>'
            f'<ul>{words}</ul><a href="#{one.section}">more</a></section>'
        )
    page.add(f'<div class="answers">{"".join(cards)}</div>')
    for what, why in report.problems.items():
        page.add(f'<p class="bad"><b>Failed: {escape(what)}.</b> {text(why)}</p>')


def architecture(page: Page, report: Report) -> None:
    """The chosen path among the alternatives."""
    searched = report.searched
    page.section("architecture", "What was searched, and what won")
    parts = {"space": searched.space, "sampler": searched.sampler, "controller": searched.controller}
    told = [f"{name} `{one}`" for name, one in {**parts, "context": searched.context}.items() if one is not None]
    page.add(f"<p>{text(', '.join(told))}</p>")
    counts = {"architectures": searched.architectures, "choices": len(searched.choices)}
    counts |= {"steps of the search": searched.steps, "epochs": searched.epochs}
    tiles = {name: number(one) for name, one in counts.items() if one is not None}
    if searched.seconds is not None:
        tiles["for the search"] = seconds_told(searched.seconds)
    page.tiles(tiles)
    columns = [(one.label, list(map(tuple, _boxes(one)))) for one in searched.choices]
    if columns:
        words = "One column a choice, in the order of the space; what was not chosen is grey."
        shares = " The number is the sampler's probability when the search was over." if searched.choices[0].probabilities else ""
        both = f'<div class="if-wide">{graph(columns)}</div><div class="if-narrow">{graph(columns, 2)}</div>'
        page.figure(both, words + shares)


def _boxes(choice: Choice) -> Sequence[tuple[str, str, bool]]:
    shares = [f"{one:.2f}" for one in choice.probabilities] or [""] * len(choice.candidates)
    return [(name, share, name == choice.chosen) for name, share in zip(choice.candidates, shares, strict=True)]


def comparison(page: Page, report: Report) -> None:
    """What was found beside its rivals."""
    page.section("comparison", "By how much, and against what")
    compared = report.compared
    if compared is None:
        page.add("<p>Nothing was compared.</p>")
        return
    page.add(f"<p>Measured on {escape(compared.measured_on)} batches; {_good(compared)}.</p>")
    for metric in compared.metrics:
        rows = _dots(compared, metric)
        page.figure(dots(rows, metric), f"{metric}: each dot is one network.")
    head = ["", *compared.metrics, "multiply-adds", "parameters", "seconds of training"]
    rivals = [
        [one.words, *(one.metrics.get(name) for name in compared.metrics), one.multiply_adds, one.parameters, one.seconds]
        for one in compared.rivals
    ]
    page.table(head, rivals, [place == 0 for place in range(len(rivals))])
    for words in compared.left_out:
        page.add(f'<p class="soft">{text(words)}</p>')


def _good(compared: Compared) -> str:
    return "higher is better" if compared.mode == "max" else "lower is better"


def _dots(compared: Compared, metric: str) -> list[tuple[str, list[float], bool]]:
    rows: dict[str, list[float]] = {}
    for one in compared.rivals:
        value = one.metrics.get(metric)
        if value is not None:
            rows.setdefault(RANDOM if one.kind == RANDOM else one.words, []).append(value)
    return [(f"{name} ({len(values)})" if name == RANDOM else name, values, place < 2) for place, (name, values) in enumerate(rows.items())]


def sure(page: Page, report: Report) -> None:
    """Spread, re-ranking and rank fidelity."""
    answer = next(one for one in report.answers if one.section == "sure")
    page.section("sure", "How sure that is", *answer.words)
    told = report.reranked
    if told is not None:
        page.add(
            f"<p>The best {len(told.rows)} of the search, as it ranked them, and after {told.steps} steps of training each "
            f"({seconds_told(told.seconds)}); lower is better.</p>"
        )
        names = [f"{one.words} (exported)" if one.exported else one.words for one in told.rows]
        rows = [[place + 1, names[place], one.before, one.after] for place, one in enumerate(told.rows)]
        page.table(["place", "architecture", "loss before", "loss after"], rows, [one.exported for one in told.rows])


def costs(page: Page, report: Report) -> None:
    """What the network costs."""
    if report.network is None:
        return
    page.section("cost", "What it costs")
    cost = report.network.cost
    tiles = {"multiply-adds a sample": number(cost.multiply_adds), "parameters": number(cost.parameters)}
    tiles |= {"values made for a context": number(cost.made), "of controller and encoder": number(cost.stored)}
    if cost.share is not None:
        tiles["of the multiply-adds make weights"] = f"{cost.share:.0%}"
    if cost.seconds is not None:
        tiles["one sample takes"] = seconds_told(cost.seconds)
    page.tiles({name: one for name, one in tiles.items() if one != "unknown"})
    takes, gives = (", ".join(f"`{one}`" for one in ports) for ports in (report.network.takes, report.network.gives))
    page.add(f"<p>{text(f'It takes {takes} and gives {gives}; `B` counts samples.')}</p>")
    page.add('<p class="soft">Multiply-adds are those of convolutions and linear maps. A context that lasts is paid for once.</p>')


def weights(page: Page, report: Report) -> None:
    """The weights of each site, with a slider over contexts."""
    network = report.network
    if network is None or not network.sites:
        return
    page.section("weights", "The generated weights")
    where = "the saved example's real contexts" if network.real else "drawn contexts, for no data was at hand"
    page.add(
        f"<p>Blue is negative, red positive, white zero, to the largest of each site. The slider goes through {where}, "
        f"in the order in which their code changes most. The bar says how much a site's weights depend on it: the standard "
        f"deviation over contexts, by their size.</p>"
    )
    page.slider("contexts", network.contexts or ["all samples"], {one.name: one.pictures for one in network.sites})
    page.add(f'<div class="sites">{"".join(_site(page, one) for one in network.sites)}</div>')


def _site(page: Page, one: Site) -> str:
    shape = " × ".join(map(str, one.shape))
    how = f"base {one.base}, delta {one.delta}" if one.base else f"delta {one.delta}"
    shown, whole = one.kernels
    part = "" if shown == whole else f" ({shown:,} of {whole:,} shown)"
    below = f"{escape(one.op)} {escape(one.tensor)} {shape}{part}; {escape(how)}"
    if one.dependence is None:
        below += "<br>the same for all samples"
    else:
        width = min(one.dependence, 1.0) * 100
        below += f'<div class="bar"><i style="width:{width:.1f}%"></i></div>depends by <b data-number>{one.dependence:.1%}</b>'
    return page.image("contexts", one.name, one.pictures[0], f"`{one.name}`", below)


def slides(page: Page, report: Report) -> None:
    """What the user's own report adds."""
    for place, one in enumerate(report.slides):
        page.section(f"slides{place}", one.title)
        page.slider(f"slides{place}", one.captions, one.images)
        images = "".join(page.image(f"slides{place}", name, several[0], name) for name, several in one.images.items())
        page.add(f'<div class="several wide">{images}</div>')


def trace(page: Page, report: Report) -> None:
    """Entropy and probabilities over the search."""
    told = report.trace
    if told is None:
        return
    page.section("trace", "The sampler over the search", "Entropy falls as the sampler decides; a choice that stays level was not decided.")
    page.add('<div class="plots">')
    entropy = lines([Line("entropy", list(zip(told.steps, told.entropy, strict=True)), 0, True)], "step", "nats")
    page.figure(entropy, "Entropy of what was drawn, in nats")
    chosen = {one.label: one.chosen for one in report.searched.choices}
    for label, table in told.probabilities.items():
        drawn = [
            Line(name, list(zip(told.steps, values, strict=True)), place, name == chosen.get(label))
            for place, (name, values) in enumerate(table.items())
        ]
        legend = [(f"{one.name} (chosen)" if one.strong else one.name, (one.colour or 0) % COLOURS) for one in drawn]
        page.figure(lines(drawn, "step", "probability", (0.0, 1.0)), f"Probabilities of `{label}`", legend=legend)
    page.add("</div>")


def training(page: Page, report: Report) -> None:
    """What trainings logged."""
    if not report.curves:
        return
    page.section("training", "Training", "What validation logged after each epoch, of the search and of what came after it.")
    page.add('<div class="plots">')
    for metric in dict.fromkeys(one.metric for one in report.curves):
        several = [one for one in report.curves if one.metric == metric]
        drawn = [_curve(one, place) for place, one in enumerate(several)]
        legend = [(f"{one.phase} ({len(one.values)} epochs)", drawn[place].colour or 0) for place, one in enumerate(several)]
        page.figure(lines(drawn, "epoch", metric), f"`{metric}`", legend=legend)
    page.add("</div>")


def _curve(one: Curve, place: int) -> Line:
    points = [(epoch + 1, value) for epoch, value in zip(one.epochs, one.values, strict=True)]
    return Line(one.phase, points, (place + 1) % COLOURS, place > 0)


def findings(page: Page, report: Report) -> None:
    """What the last diagnosis found."""
    page.section("findings", "What the doctor found")
    if report.findings is None:
        page.add("<p>Not examined.</p>")
        return
    if not report.findings:
        page.add('<p class="good">Nothing is wrong.</p>')
    for one in report.findings:
        found = f"{one['found']}; expected {one['expected']}. {one['remedy']}"
        mark = f'<span class="tag {one["severity"]}">{one["severity"]}</span>'
        page.add(f"<p>{mark} <b>{escape(one['code'])}</b> at {text('`' + one['where'] + '`')}: {text(found)}</p>")


def again(page: Page, report: Report) -> None:
    """Settings, and the commands that make it again."""
    page.section("again", "Again, and on")
    page.add(f"<pre>{escape(chr(10).join(report.commands))}</pre>")
    if report.settings is not None:
        page.add("<p>Where <code>experiment.yml</code>, in the folder of the experiment's code, is:</p>")
        page.add(f"<pre>{escape(experiment_of(report.settings))}</pre>")
    else:
        page.add("<p>Python code wrote this run: the same script with the same seeds makes it again.</p>")
    if report.missing:
        page.section("missing", "What this page cannot show")
        page.add(f"<ul>{''.join(f'<li>{text(one)}</li>' for one in report.missing)}</ul>")


SECTIONS: Sequence[Callable[[Page, Report], None]] = (
    head,
    architecture,
    comparison,
    sure,
    costs,
    slides,
    weights,
    trace,
    training,
    findings,
    again,
)
"""In the order of the page."""
