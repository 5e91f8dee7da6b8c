"""The report of one run: a single HTML file without scripts, which needs no network and stays below a size."""

from __future__ import annotations

import html
import math

from dreambooth3d.export.page import filled, style
from dreambooth3d.glossary import metric, shown
from dreambooth3d.run_report.content import RunContent, StepTaken
from dreambooth3d.run_report.curve import curve
from dreambooth3d.run_report.figures import (
    HEADLINE,
    Column,
    figures_table,
    label,
    of_prefix,
    own_names,
    wide_table,
)
from dreambooth3d.run_report.parts import (
    LIMIT_BYTES,
    PHOTO_PX,
    POLICY,
    bounded,
    definitions,
    listed,
    picture,
    resource,
    section,
    sheet,
    strip,
    turning,
)
from dreambooth3d.run_report.sketch import sketch

TURNING_PX = 224
KEY_FIGURES = 4
CONFIG_CHARACTERS = 60_000


def run_report(content: RunContent, limit: int = LIMIT_BYTES) -> str:
    """The report's HTML.

    Args:
        content: of the run.
        limit: of its size in bytes; pictures become smaller until it fits, and go where nothing else helps.
    """
    return bounded(lambda detail: _page(content, detail), limit)


def _page(content: RunContent, detail: float) -> str:
    """The page with pictures of a share of their usual size; without any at 0."""
    seen = detail > 0
    body = [
        section("asset", "The asset", _look(content, detail) if seen else ""),
        section("photos", "The photos", _photos(content, detail) if seen else ""),
        section("checkpoints", "Which checkpoints guide", _checkpoints(content, detail)),
        section("growth", "How it grew", "".join(strip(each, detail) for each in content.growth if seen)),
        section("stages", "From stage to stage", "".join(sheet(each, detail) for each in content.sheets if seen)),
        section("contexts", "Asked for otherwise", "".join(sheet(each, detail) for each in content.contexts if seen)),
        section("measured", "Measured", _measured(content)),
        section("guards", "What the guards did", _guards(content)),
        section("steps", "Time and memory", _steps(content)),
        section("again", "To make it again", _again(content)),
    ]
    name = content.subject or content.run
    parts = {
        "policy": POLICY,
        "title": html.escape(f"{name}: report of the run {content.run}"),
        "style": style(),
        "own": resource("report.css"),
        "heading": html.escape(name),
        "lead": _lead(content),
        "body": "\n".join(filter(None, body)),
        "foot": "Made with DreamBooth3D. This file holds all that it shows, and asks nothing of a network."
        + ("" if seen else " Its pictures are left out: with them it would be too large."),
    }
    return filled(resource("report.html"), parts)


def _lead(content: RunContent) -> str:
    """Prompt, how the run stands, and the figures that say the most."""
    prompt = f'<p class="prompt">“{html.escape(content.prompt)}”</p>' if content.prompt else ""
    facts = [f"preset {content.preset}" if content.preset else "", _when(content), f"run {content.run}"]
    said = html.escape(" · ".join(filter(None, facts)))
    status = f'<span class="state">{html.escape(content.status)}</span> ' if content.status else ""
    known = [name for name in HEADLINE if name in content.metrics][:KEY_FIGURES]
    figures = "".join(f"<li><b>{_shown(name, content.metrics[name])}</b>{html.escape(label(name))}</li>"
                      for name in known)  # fmt: skip
    key = f'<ul class="key">{figures}</ul>' if figures else ""
    return f'{prompt}<p class="soft">{status}{said}</p>{key}{_gone(content)}'


def _gone(content: RunContent) -> str:
    """What can no longer be shown, and where the rest comes from."""
    if not content.gone:
        return ""
    names = ", ".join(content.gone)
    said = f"What these steps had stored is gone: {names}. Their figures and times are those of the run's row in "
    return f'<p class="soft gone">{html.escape(said)}MLflow; their pictures cannot be shown.</p>'


def _shown(name: str, value: float) -> str:
    known = metric(name)
    return html.escape(shown(value, known.unit if known else ""))


def _when(content: RunContent) -> str:
    started = "" if content.started is None else content.started.strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    took = "" if content.seconds is None else f"took {duration(content.seconds)}"
    return ", ".join(filter(None, [started, took]))


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _look(content: RunContent, detail: float) -> str:
    turned = turning(content.turntable, round(TURNING_PX * detail), f"{content.subject}, turning around once")
    made = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in _story(content))
    return f'<div class="look"><div>{turned}</div><div><h3>How it was made</h3>{made}</div></div>' if turned else made


def _story(content: RunContent) -> list[str]:
    """How the asset was made, in sentences, of those steps that ran."""
    done = {step.name for step in content.steps}
    noun = content.class_noun or "subject"
    count = len(content.photos) + content.more_photos
    said = []
    if "read_prompt" in done:
        said.append(f"No photos: the prompt alone says what to make, a {noun}.")
    elif count:
        said.append(f"{count} photos show one {noun}. Each was checked, and the subject cut out of it.")
    if "finetune_dreambooth" in done:
        said.append("A diffusion model learned from them what this very subject looks like, under a rare word.")
    if "fit_true_views" in done:
        said.append("The asset was fitted to true views from all sides, which no other run sees: it shows what "
                    "reconstruction alone could reach.")  # fmt: skip
    if "init_nerf" in done:
        said.append("A first 3D asset was distilled from a checkpoint that knows the subject and still draws it from "
                    "any side that is asked for, while the photos pull at what they show.")  # fmt: skip
    if "generate_pseudo_views" in done:
        said.append("Renders of it were redrawn by the checkpoint that knows the subject best: pseudo views, photos "
                    "that nobody took.")  # fmt: skip
    if "refine_nerf" in done:
        said.append("The asset was refined with what had been learned by then, and turned into a mesh.")
    return said


def _photos(content: RunContent, detail: float) -> str:
    if not content.photos:
        return ""
    cells = "".join(
        f"<figure>{picture(photo.picture, round(PHOTO_PX * detail), f'{photo.file} with the outline of its mask')}"
        f"<figcaption><b>{number}</b> {html.escape(photo.file)}: {html.escape(photo.state)}"
        f"{'. ' if photo.said else ''}{html.escape(' '.join(photo.said))}</figcaption></figure>"
        for number, photo in enumerate(content.photos, start=1)
    )
    rest = f"<p>{content.more_photos} more are not shown.</p>" if content.more_photos else ""
    grid = f'<div class="photos">{cells}</div>{rest}<p class="soft">Outlines: green, the mask is trusted; orange, it '
    grid += "is not; blue, the photo is held out.</p>"
    if content.placed is None:
        return grid + "<p>Where they were taken is not known.</p>"
    placed = content.placed
    angles = placed.cameras.azimuth_deg.tolist(), placed.cameras.elevation_deg.tolist()
    known = [
        f"{number} at {round(azimuth)}°, {round(elevation)}° up"
        for number, azimuth, elevation in zip(placed.numbers, *angles, strict=True)
        if math.isfinite(azimuth) and math.isfinite(elevation)
    ]
    where = html.escape(f"Cameras around the subject, from its front: {'; '.join(known) or 'none is known'}.")
    drawn = sketch(placed.cameras, placed.numbers, where)
    caption = f"<h3>Where they were taken</h3><p>As told by {html.escape(placed.by)}. {where}</p>"
    seen = "" if content.seen is None else sheet(content.seen, detail)
    return f'{grid}<div class="pair"><div>{caption}{seen}</div><div>{drawn}</div></div>'


def _checkpoints(content: RunContent, detail: float) -> str:
    if content.choice is None:
        return ""
    reason = f"{content.choice.reason[:1].upper()}{content.choice.reason[1:]}."
    sentence = (
        "Every checkpoint of the fine-tuning drew the same prompts. The full one looks the most like the photos; the "
        "partial one, from before, still draws the side that is asked for."
    )
    drawn = f'<div class="pair"><div><p>{sentence}</p><p>{html.escape(reason)}</p></div><div>'
    drawn += f"{curve(content.choice.scores)}</div></div>"
    return drawn + (strip(content.samples, detail, large=True) if content.samples is not None and detail > 0 else "")


def _measured(content: RunContent) -> str:
    metrics = content.metrics
    if not metrics:
        return ""
    columns = [Column("this run", metrics)]
    if coarse := of_prefix(metrics, "coarse/"):
        columns.append(Column("first asset", coarse))
    if content.production is not None:
        columns.append(Column(f"in production: {content.production.run}", content.production.metrics))
    if baseline := of_prefix(metrics, "baseline_mean/"):
        columns.append(Column("mean image", baseline))
    truth = of_prefix(metrics, "truth/")
    truth |= {name.removesuffix("_truth"): value for name, value in metrics.items() if name.endswith("_truth")}
    if truth:
        columns.append(Column("true renders", truth))
    said = "The judge has steered nothing. The mean image, one blurred view in place of each, is the baseline that an "
    said += "asset has to beat; true renders are what a perfect asset would score."
    return f"<p>{said}</p>{figures_table(own_names(metrics), columns)}"


def _guards(content: RunContent) -> str:
    watched = [step for step in content.steps if step.guards]
    if not watched:
        return ""
    tripped = [f"{step.name}: {step.guards}" for step in watched if step.guards != "none"]
    return listed(tripped) or f"<p>{html.escape(', '.join(step.name for step in watched))}: no guard tripped.</p>"


def _steps(content: RunContent) -> str:
    if not content.steps:
        return ""
    longest = max((step.seconds or 0.0 for step in content.steps), default=0.0) or 1.0
    rows = "".join(_step_row(step, longest) for step in content.steps)
    head = '<th scope="col">step</th><th scope="col">time</th><th scope="col" aria-label="share"></th>'
    return wide_table("Steps", f'{head}<th scope="col">peak memory</th><th scope="col"></th>', rows)


def _step_row(step: StepTaken, longest: float) -> str:
    seconds = "–" if step.seconds is None else duration(step.seconds)
    share = 0.0 if step.seconds is None else 100 * step.seconds / longest
    kind = "bar cached" if step.cached else "bar"
    memories = ((step.memory_mib, "MiB"), (step.gpu_mib, "MiB of the GPU"))
    memory = ", ".join(f"{value:,.0f} {unit}" for value, unit in memories if value is not None) or "–"
    said = "from the cache" if step.cached else "" if step.status == "completed" else step.status
    said = ": ".join(filter(None, [said, step.error]))
    return (
        f'<tr><th scope="row">{html.escape(step.name)}</th><td>{seconds}</td>'
        f'<td class="share"><span class="{kind}" style="width:{share:.1f}%"></span></td><td>{memory}</td>'
        f'<td class="text">{html.escape(said)}</td></tr>'
    )


def _again(content: RunContent) -> str:
    facts = {
        "Run": content.run,
        "Preset": content.preset,
        "Code (git commit)": content.commit,
        "Photos (hash of the data)": content.data_hash,
    }
    told = definitions(facts)
    if not content.config:
        return told
    text = content.config[:CONFIG_CHARACTERS]
    text += "\n… (the rest is left out)" if len(content.config) > CONFIG_CHARACTERS else ""
    said = "Every setting that was in force, also those left at their defaults"
    return f"{told}<details><summary>{said}</summary><pre><code>{html.escape(text)}</code></pre></details>"
