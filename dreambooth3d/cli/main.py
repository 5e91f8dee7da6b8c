"""The console script. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dreambooth3d import __version__, environment, places
from dreambooth3d.cli import completion
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.faults import in_one_sentence


class _Commands(TyperGroup):
    """Commands whose user errors end in one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with in_one_sentence():
                return super().invoke(ctx)
        except DreamBooth3DError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Photos of one subject in, a personalised 3D asset out.",
)  # fmt: skip
schedules_app = typer.Typer(no_args_is_help=True, help="Schedules of pipelines on a remote orchestrator.")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Fine-tuned diffusion models of a run.")
config_app = typer.Typer(no_args_is_help=True, help="Configuration files.")
photos_app = typer.Typer(no_args_is_help=True, help="Photo sets.")
models_app = typer.Typer(no_args_is_help=True, help="Models from the hub.")
production_app = typer.Typer(no_args_is_help=True, help="Which version of a subject's asset readers see.")
runs_app = typer.Typer(no_args_is_help=True, help="Finished and running pipeline runs.")
stack_app = typer.Typer(no_args_is_help=True, help="ZenML stacks on other machines.")
toybox_app = typer.Typer(no_args_is_help=True, help="The procedural world and its models.")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(photos_app, name="photos")
app.add_typer(production_app, name="production")
app.add_typer(runs_app, name="runs")
app.add_typer(schedules_app, name="schedules")
app.add_typer(stack_app, name="stack")
app.add_typer(toybox_app, name="toybox")

PHOTO_PAGE = "photos.html"
ABOUT_RUNS = ("checkpoint", "export", "production", "prune", "runs", "schedules", "ui")
"""Commands that show or change what runs have left, and do nothing where none has been."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    str, typer.Argument(help="A YAML file such as configs/demo.yaml.", autocompletion=completion.configs)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, as of train.", autocompletion=completion.overrides)
]
RunName = Annotated[
    str, typer.Argument(help="Name of a run, or its beginning, or latest.", autocompletion=completion.runs)
]
All = Annotated[bool, typer.Option("--all", help="Everything: tags, metrics, parameters and files.")]
Live = Annotated[bool, typer.Option("--live", help="Show in a browser what is made meanwhile (extra: live).")]
EndRuns = Annotated[bool, typer.Option("--force", help="Also while a run of it is under way, which ends that run.")]


def main() -> None:
    """Run the console script."""
    places.make_importable()  # also for what a shell offers at the tab key, which enters nothing
    app(prog_name="dreambooth3d")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dreambooth3d {__version__}")
        raise typer.Exit


def _answer(value: object) -> None:
    """Print JSON."""
    from dreambooth3d.cli.show import print_json

    print_json(value)


def _told(as_json: bool, lines: Sequence[str]) -> None:
    """Print what a command says: one line per sentence, or a JSON list of them."""
    if as_json:
        _answer(list(lines))
    elif lines:
        typer.echo("\n".join(lines))


@contextmanager
def _telling(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Takes what a command says while it works: each line at once, or all of them as JSON at its end."""
    lines: list[str] = []
    yield lines.append if as_json else typer.echo
    if as_json:
        _answer(lines)


@app.callback()
def _enter(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    try:
        environment.enter()
    except DreamBooth3DError:
        # What doctor tells as one of its findings.
        if context.invoked_subcommand != "doctor":
            raise
    if context.invoked_subcommand in ABOUT_RUNS:
        environment.require_state()


@app.command()
def setup() -> None:
    """Write settings, pull the photos, initialise ZenML, register the local stack."""
    from dreambooth3d.cli.setup import run_setup

    run_setup(typer.echo)


@app.command()
def doctor(
    config: Annotated[
        str | None,
        typer.Argument(help="A YAML file whose needs are checked as well.", autocompletion=completion.configs),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check the installation, and whether this machine can run a configuration; exit code 1 if something is broken."""
    from dreambooth3d.cli.doctor import run_doctor

    if not run_doctor(as_json, config, overrides or []):
        raise typer.Exit(1)


@app.command()
def train(
    config: Config,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key.sub=value, below the file's parameters.", autocompletion=completion.overrides),
    ] = None,
    live: Live = False,
) -> None:
    """Run the main job with overrides, for example photos.dir=my_photos photos.class_noun=duck."""
    from dreambooth3d.cli.train import run_training

    run_training(config, overrides or [], live)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to make, for example 'a photo of a red snowman'.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as of train.")] = None,
    preset: Annotated[str, typer.Option(help="A name such as sds or sjc, or a YAML file.")] = "sds",
    negative: Annotated[str | None, typer.Option(help="What it should not look like.")] = None,
    guide: Annotated[str | None, typer.Option(help="base, a folder of a model or LoRA, or run:NAME.")] = None,
    live: Live = False,
) -> None:
    """Make an asset from a prompt alone, without photos, for example "a photo of a red snowman"."""
    from dreambooth3d.cli.generate import run_generation

    run_generation(prompt, preset, overrides or [], negative=negative, guide=guide, live=live)


@config_app.command("check")
def config_check(
    files: Annotated[list[str], typer.Argument(help="YAML files.", autocompletion=completion.configs)],
    as_json: Json = False,
) -> None:
    """Check configuration files strictly; exit code 1 if one has a problem."""
    from dreambooth3d.cli.train import check_files

    if not check_files(files, as_json):
        raise typer.Exit(1)


@config_app.command("show")
def config_show(
    config: Annotated[str, typer.Argument(help="A YAML file.", autocompletion=completion.configs)],
    overrides: Overrides = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="All parameters, also those left at defaults.")] = False,
) -> None:
    """Print a file with its bases and overrides in it, as a file by itself."""
    from dreambooth3d.cli.train import show_file

    show_file(config, overrides or [], defaults)


class _HtmlFile(TyperCommand):
    """Takes `--html` without a file as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the usual file where `--html` is last, or another option follows."""
        following = [*args[1:], "--"]
        bare = [each == "--html" and other.startswith("-") for each, other in zip(args, following, strict=True)]
        given = [f"--html={PHOTO_PAGE}" if missing else each for each, missing in zip(args, bare, strict=True)]
        return super().parse_args(ctx, given)


@photos_app.command("check", cls=_HtmlFile)
def photos_check(
    folder: Annotated[str, typer.Argument(help="A folder of photos.")],
    class_noun: Annotated[str | None, typer.Option(help="What the subject is, where there is no subject.yaml.")] = None,
    masks: Annotated[str, typer.Option(help="As photos.masks of a configuration.")] = "auto",
    rembg_model: Annotated[str | None, typer.Option(help="As photos.rembg_model.")] = None,
    hold_out: Annotated[int, typer.Option(help="As photos.hold_out: how many photos nothing is to learn from.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the photos and their masks.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="[FILE]", help=f"Write a page that says what to do better; {PHOTO_PAGE} without a name."),
    ] = None,
) -> None:
    """Check a photo set as the pipeline would, and say whose masks can be trusted."""
    if html is not None:
        from dreambooth3d.cli.files import require_writable

        require_writable(html, PHOTO_PAGE)
    from dreambooth3d.config.photos import PhotosConfig
    from dreambooth3d.naming import printable
    from dreambooth3d.photos.check import check_folder, report_lines, resolve_folder, write_sheet
    from dreambooth3d.photos.dataset import dataset_hash
    from dreambooth3d.photos.subject import folder_setting
    from operations.launch.sentences import checked_section

    given = {"masks": masks, "hold_out": hold_out} | ({} if rembg_model is None else {"rembg_model": rembg_model})
    config = checked_section("photos", PhotosConfig, dir=folder_setting(folder), class_noun=class_noun, **given)
    path, info = resolve_folder(config)
    report = check_folder(path, config, info)
    data_md5 = dataset_hash(config)
    typer.echo("\n".join([f"{printable(folder)}: {info.class_noun}, {data_md5}", *report_lines(report)]))
    if sheet is not None:
        write_sheet(report, sheet)
        typer.echo(f"{sheet}")
    if html is not None:
        from dreambooth3d.cli.photo_page.writing import write_page

        write_page(html, path, info, config, data_md5, report, lambda line: typer.echo(line, err=True))
        typer.echo(printable(str(html)))


@photos_app.command("add")
def photos_add(
    subject: Annotated[str, typer.Argument(help="The name of the new folder under data/.")],
    files: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos; masks beside them come along.")],
    noun: Annotated[str | None, typer.Option(help="What the subject is, for example dog; asked for without.")] = None,
) -> None:
    """Make a subject under data/ of your photos, and let DVC record it."""
    from dreambooth3d.cli.photo_adding import add_photos

    typer.echo("\n".join(add_photos(subject, files, noun)))


@photos_app.command("fetch")
def photos_fetch(
    name: Annotated[str, typer.Argument(help="dog, cat, clock or can.")],
    target: Annotated[Path | None, typer.Option(help="The folder to make; default data/NAME.")] = None,
) -> None:
    """Download one of four public subjects of the DreamBooth dataset (needs a network)."""
    from dreambooth3d.photos.fetch import fetch

    typer.echo(f"{fetch(name, target)}")


@models_app.command("fetch")
def models_fetch(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file such as configs/sd15_dog.yaml, or a model of rembg.", autocompletion=completion.configs
        ),
    ],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Bring a configuration's base model and scorers, or a model of rembg, and print where they are."""
    from dreambooth3d.cli.train import fetch_models

    _told(as_json, fetch_models(config, overrides or []))


@models_app.command("push")
def models_push(
    repository: Annotated[str, typer.Argument(help="owner/name on the hub; made where there is none.")],
    run: Annotated[
        str | None,
        typer.Option(help="Whose checkpoint; without it the bundled models.", autocompletion=completion.runs),
    ] = None,
    which: Annotated[str | None, typer.Option(help="partial, full or multiview; default full.")] = None,
    step: Annotated[int | None, typer.Option(help="The checkpoint of this fine-tuning step.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Push the LoRA only.")] = False,
    secret: Annotated[
        str | None, typer.Option(help="A ZenML secret with the token as `token`; default the variable HF_TOKEN.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    as_json: Json = False,
) -> None:
    """Push a run's fine-tuned model, or the bundled models, to the Hugging Face hub, with a model card."""
    from dreambooth3d.cli.pushing import push_model

    address = push_model(repository, run, which=which, step=step, lora=lora, secret=secret, private=not public)
    _told(as_json, [address])


@runs_app.command("list")
def runs_list(as_json: Json = False, limit: int = 20) -> None:
    """List runs, newest first."""
    from dreambooth3d.cli.show import show_list

    show_list(limit, as_json)


@runs_app.command("show")
def runs_show(
    run: RunName = "latest",
    everything: All = False,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write its report, for people who were not there.")] = None,
) -> None:
    """Show one run: how it stands, what it was for, how good the asset is, and where its files are."""
    if html is not None:
        from dreambooth3d.cli.run_pages import write_report

        typer.echo(write_report(run, html))
        return
    from dreambooth3d.cli.show import show_run

    show_run(run, as_json, everything)


@runs_app.command("compare")
def runs_compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs.", autocompletion=completion.runs)],
    everything: All = False,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures, figures and what differs.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table: a row per run, all metrics and parameters.")] = None,
) -> None:
    """Compare runs by the figures that matter most; with --all by all metrics, and the parameters that differ."""
    if html is not None or csv is not None:
        from dreambooth3d.cli.run_pages import write_comparison

        typer.echo("\n".join(write_comparison(runs, html, csv)))
        return
    from dreambooth3d.cli.show import show_comparison

    show_comparison(runs, as_json, everything)


@production_app.command("show")
def production_show(
    subject: Annotated[str | None, typer.Argument(help="A subject; default all.")] = None, as_json: Json = False
) -> None:
    """Show the version that is in production."""
    from dreambooth3d.cli.production import show_production

    show_production(subject, as_json)


@production_app.command("promote")
def production_promote(
    run: RunName,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: Json = False,
) -> None:
    """Make the version of a run production."""
    from dreambooth3d.cli.production import promote_run

    _told(as_json, [promote_run(run, reason)])


@production_app.command("rollback")
def production_rollback(
    subject: Annotated[str, typer.Argument(help="Whose production version.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: Json = False,
) -> None:
    """Make the version production that was before the present one."""
    from dreambooth3d.cli.production import roll_back

    _told(as_json, [roll_back(subject, reason)])


@production_app.command("history")
def production_history(
    subject: Annotated[str, typer.Argument(help="Whose production version.")], as_json: Json = False
) -> None:
    """List all changes of the production version, oldest first."""
    from dreambooth3d.cli.production import show_history

    show_history(subject, as_json)


@runs_app.command("clean")
def runs_clean(
    older_than: Annotated[
        float | None, typer.Option(help="Hours of silence after which a run on another machine counts as dead.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    states: Annotated[
        bool, typer.Option("--states", help="Also remove what stages that have not finished would go on from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Mark runs that died (kill -9, a crash of the machine) in ZenML and in MLflow, and remove what they have left."""
    from dreambooth3d.cli.cleaning import clean_runs
    from dreambooth3d.environment import quiet

    quiet()
    with _telling(as_json) as say:
        clean_runs(say, older_than, dry_run, states)


@runs_app.command("complete")
def runs_complete(
    run: RunName = "latest",
    every: Annotated[bool, typer.Option("--all", help="All runs whose rows lack something.")] = False,
    as_json: Json = False,
) -> None:
    """Complete rows in MLflow that lack what their runs have stored, for instance as the tracker was away."""
    from dreambooth3d.cli.completing import complete_runs
    from dreambooth3d.environment import quiet

    quiet()
    with _telling(as_json) as say:
        complete_runs(say, None if every else run)


@schedules_app.command("list")
def schedules_list(as_json: Json = False) -> None:
    """List schedules."""
    from dreambooth3d.cli.schedules import show_schedules

    show_schedules(as_json)


@schedules_app.command("pause")
def schedules_pause(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")],
    force: EndRuns = False,
    as_json: Json = False,
) -> None:
    """Stop a schedule from firing, until it is resumed."""
    from dreambooth3d.cli.schedules import set_active

    _told(as_json, [set_active(name, active=False, force=force)])


@schedules_app.command("resume")
def schedules_resume(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")], as_json: Json = False
) -> None:
    """Let a paused schedule fire again."""
    from dreambooth3d.cli.schedules import set_active

    _told(as_json, [set_active(name, active=True)])


@schedules_app.command("delete")
def schedules_delete(
    name: Annotated[str, typer.Argument(help="Name or id of a schedule.")],
    force: EndRuns = False,
    as_json: Json = False,
) -> None:
    """Delete a schedule, and the secret with an API token that ZenML has made for it in Kubernetes."""
    from dreambooth3d.cli.schedules import delete_schedule

    _told(as_json, delete_schedule(name, force))


@app.command()
def prune(
    keep_runs: Annotated[int, typer.Option(help="Newest finished runs that are kept per subject.")] = 5,
    older_than: Annotated[float, typer.Option(help="Days; younger runs are kept as well.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete checkpoints and artifacts of old runs that no production, staged, latest or kept version needs."""
    from dreambooth3d.cli.prune import run_prune
    from dreambooth3d.environment import quiet

    quiet()
    with _telling(as_json) as say:
        run_prune(say, keep_runs, older_than, dry_run)


@app.command()
def export(
    run: RunName,
    formats: Annotated[
        str,
        typer.Option("--format", help="glb, obj, ply, usdz, gaussians_ply, splat, spz; several with commas."),
    ] = "glb",
    max_triangles: Annotated[int | None, typer.Option(help="Of the mesh; default the run's.")] = None,
    texture: Annotated[int | None, typer.Option(help="Texels per side of the texture; default the run's.")] = None,
    colors: Annotated[str | None, typer.Option(help="texture or vertices; default the run's.")] = None,
    metres: Annotated[float | None, typer.Option(help="Longest side; default the run's.")] = None,
    gaussians: Annotated[
        int, typer.Option(min=1, help="At most so many, where an asset of another kind is fitted by them.")
    ] = 4000,
    context: Annotated[int | None, typer.Option(help="Number of the context whose asset is meant.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default outputs/RUN/exports.")] = None,
    as_json: Json = False,
) -> None:
    """Write a finished run's asset for other programs: as a textured mesh, as 3D Gaussians, or both."""
    from dreambooth3d.cli.exporting import Order, export_run

    given = {"max_triangles": max_triangles, "texture_size": texture, "colors": colors, "metres": metres}
    settings = {key: value for key, value in given.items() if value is not None}
    names = tuple(name.strip().lower() for name in formats.split(",") if name.strip())
    order = Order(run, names, out, settings, context, gaussians)
    _told(as_json, [f"{path}" for path in export_run(order, lambda line: typer.echo(line, err=True))])


@checkpoint_app.command("export")
def checkpoint_export(
    run: RunName,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder to write into.")],
    step: Annotated[int | None, typer.Option(help="The checkpoint of this fine-tuning step.")] = None,
    which: Annotated[str | None, typer.Option(help="partial, full or multiview; default full.")] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Write the LoRA only, for diffusers, ComfyUI and AUTOMATIC1111.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's checkpoint as a model folder that diffusers loads."""
    from dreambooth3d.cli.checkpoints import export_checkpoint

    written = export_checkpoint(run, folder, step=step, which=which, lora=lora)
    _told(as_json, [f"{path}" for path in written])


@app.command()
def ui(
    port: int = 5000,
    host: str = "127.0.0.1",
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser; default where there is a screen.")
    ] = None,
) -> None:
    """Serve MLflow's pages, and open them at this product's runs."""
    from dreambooth3d.cli.interface import show

    raise typer.Exit(show(port, host, open_browser))


@app.command()
def web(
    port: Annotated[int, typer.Option(help="The next free one is taken where it is in use.")] = 7860,
    host: Annotated[str, typer.Option(help="Others see the page only by another one than this.")] = "127.0.0.1",
) -> None:
    """Open a page to drop photos on, start a run, watch it, and take the asset along (extra: web)."""
    from dreambooth3d.cli.web.starting import serve

    raise typer.Exit(serve(host, port, typer.echo))


@stack_app.command("kubernetes")
def stack_kubernetes(
    name: Annotated[str, typer.Option(help="Of the stack.")],
    context: Annotated[str, typer.Option(help="Of the kubeconfig.")],
    artifact_store: Annotated[str, typer.Option(help="s3://BUCKET or a folder in it.")],
    registry: Annotated[str, typer.Option(help="From which the nodes pull images.")],
    tracking_uri: Annotated[str, typer.Option(help="The MLflow server's address.")],
    tracking_secret: Annotated[str, typer.Option(help="ZenML secret with username and password of MLflow.")],
    namespace: Annotated[str, typer.Option(help="In which the pods run; it must exist.")] = "zenml",
    service_account: Annotated[str, typer.Option(help="Of the pods; it must exist.")] = "dreambooth3d",
    endpoint_url: Annotated[str | None, typer.Option(help="Of an S3 store that is not Amazon's.")] = None,
    secret: Annotated[str | None, typer.Option(help="ZenML secret with the store's keys.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the zenml commands, run nothing.")] = False,
) -> None:
    """Register a stack on Kubernetes, after a check of what it needs; safe to run again."""
    from dreambooth3d.cli.stack import KubernetesStack, commands, register

    stack = KubernetesStack(
        name, context, namespace, artifact_store, registry, tracking_uri, tracking_secret,
        service_account, endpoint_url, secret,
    )  # fmt: skip
    if dry_run:
        typer.echo("\n".join(commands(stack)))
    else:
        register(stack, typer.echo)


@toybox_app.command("render")
def toybox_render(
    path: Annotated[Path, typer.Argument(help="The picture to write.")],
    size: int = 64,
    scale: int = 1,
    seed: int = 0,
) -> None:
    """Render a contact sheet of the procedural world."""
    from dreambooth3d.toybox.sheet import contact_sheet

    contact_sheet(path, size=size, scale=scale, seed=seed)
    typer.echo(f"{path}")


@toybox_app.command("pretrain")
def toybox_pretrain(
    stages: Annotated[
        list[str] | None, typer.Argument(help="vae, unet, selector, judge, card; default those. Or masks, views.")
    ] = None,
    models: Annotated[Path, typer.Option(help="Where the models go.")] = Path("models"),
    renders: Annotated[int, typer.Option(help="Training renders per model family.")] = 120_000,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each stage.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Shorten each stage to about this long.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    pack: Annotated[
        Path | None,
        typer.Option(help="Meshes and photographs to train on (docs/pretraining.md)."),
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Models to continue from; scratch without.")] = None,
    samples: Annotated[int, typer.Option(help="Samples that the card measures.")] = 768,
) -> None:
    """Train the bundled models, in resumable stages."""
    from dreambooth3d.toybox.pretraining import STAGES
    from dreambooth3d.toybox.pretraining.stages import pretrain

    chosen, data = stages or STAGES, {"renders": renders, "pack": pack, "start": start, "samples": samples}
    pretrain(chosen, models, steps=steps, minutes=minutes, device=device, **data)


@toybox_app.command("meshes")
def toybox_meshes(
    folder: Annotated[Path, typer.Argument(help="A folder per Debian package, unpacked.")],
    out: Annotated[Path, typer.Option(help="Where the pack goes.")] = Path("pack"),
    fetch: Annotated[bool, typer.Option("--fetch", help="First download what is not there (5 GiB).")] = False,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Of each package's meshes, for a smaller pack.")] = 1.0,
    processes: Annotated[int, typer.Option(min=1, help="Renders that run at once.")] = 2,
) -> None:
    """Render models that others made, and cut photographs, into a pack of training data (docs/pretraining.md)."""
    from dreambooth3d.toybox.pretraining.meshes.fetch import fetch as fetch_packages
    from dreambooth3d.toybox.pretraining.meshes.pack import make_pack

    if fetch:
        fetch_packages(folder, lambda package: typer.echo(f"fetching {package}"))
    typer.echo(make_pack(folder, out, share=share, processes=processes, tell=typer.echo))
