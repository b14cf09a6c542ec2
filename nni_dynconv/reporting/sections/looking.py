"""What a run"s network is: its cost, its weights, and what the user"s own report shows of it."""

from __future__ import annotations

from html import escape

from ..answers import number, seconds_told
from ..data import Report, Site
from ..drawing import Line, lines
from ..html import Page, text

__all__ = ["costs", "few_sets", "slides", "weights"]


def costs(page: Page, report: Report) -> None:
    """What the network costs."""
    page.section("cost", "What it costs")
    if report.network is None:
        page.add("<p>Not known.</p>")
        return
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
    words = "Multiply-adds are those of convolutions and linear maps. A context that lasts is paid for once."
    page.add(f'<p class="soft">{words}</p>')


def few_sets(page: Page, report: Report) -> None:
    """What is lost with few sets of weights in the place of the controller."""
    few = report.few
    if few is None:
        return
    allowed = ", ".join(f"{number(value)} of {name}" for name, value in few.allowed.items())
    told = (
        f"None of them is recommended: each loses more than {allowed}."
        if few.recommended is None
        else f"Recommended: {few.recommended}, the fewest that lose no more than {allowed}."
    )
    page.section(
        "few",
        "With few sets of weights",
        f"{few.contexts:,} contexts were clustered by the weights that are made of them; the context then picks one of "
        f"the stored sets, and the controller is not needed. Measured on {few.measured_on} batches. {told}",
    )
    for name, values in few.metrics.items():
        span = [(float(few.counts[0]), few.dynamic[name]), (float(few.counts[-1]), few.dynamic[name])]
        points = [*zip(map(float, few.counts), values, strict=True)]
        drawn = [Line("with the controller", span, None), Line("few sets", points, 0, strong=True)]
        page.figure(lines(drawn, "sets of weights", name), f"{name}: the grey line is the network with its controller.")
    head = ["sets", *(f"{name}, worse by" for name in few.gaps), "one sample, times as fast"]
    rows = [[*one] for one in zip(few.counts, *few.gaps.values(), few.faster, strict=True)]
    page.table(head, rows, [one == few.recommended for one in few.counts])


def weights(page: Page, report: Report) -> None:
    """The weights of each site, with a slider over contexts."""
    network = report.network
    if network is None or not network.sites:
        return
    page.section("weights", "The generated weights")
    where = "the saved example's real contexts" if network.real else "drawn contexts, for no data was at hand"
    page.add(
        f"<p>Blue is negative, red positive, white zero, to the largest of each site. The slider goes through {where}, "
        f"in the order in which their code changes most. The bar says how much a site's weights depend on it: the "
        f"standard deviation over contexts, by their size.</p>"
    )
    page.slider("contexts", network.contexts or ["all samples"], {one.name: one.pictures for one in network.sites})
    page.add(f'<div class="sites">{"".join(_site(page, one) for one in network.sites)}</div>')


def _site(page: Page, one: Site) -> str:
    shape = " by ".join(map(str, one.shape))
    how = f"base {one.base}, delta {one.delta}" if one.base else f"delta {one.delta}"
    shown, whole = one.kernels
    part = "" if shown == whole else f" ({shown:,} of {whole:,} shown)"
    below = f"{escape(one.op)} {escape(one.tensor)} {shape}{part}; {escape(how)}"
    if one.dependence is None:
        below += "<br>the same for all contexts" if one.fixed else "<br>shown for one context only"
    else:
        width = min(one.dependence, 1.0) * 100
        below += f'<div class="bar"><i style="width:{width:.1f}%"></i></div>depends by '
        below += f"<b data-number>{one.dependence:.1%}</b>"
    return page.image("contexts", one.name, one.pictures[0], f"`{one.name}`", below)


def slides(page: Page, report: Report) -> None:
    """What the user's own report adds."""
    for place, one in enumerate(report.slides):
        page.section(f"slides{place}", one.title)
        page.slider(f"slides{place}", one.captions, one.images)
        images = "".join(page.image(f"slides{place}", name, several[0], name) for name, several in one.images.items())
        page.add(f'<div class="several wide">{images}</div>')
