"""`dreambooth3d stack`: stacks on other machines."""

from __future__ import annotations

from typing import Annotated

import typer

from dreambooth3d.cli.commands.options import Json, telling, told

app = typer.Typer(no_args_is_help=True, help="ZenML stacks on other machines.")


@app.command("kubernetes")
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
    as_json: Json = False,
) -> None:
    """Register a stack on Kubernetes, after a check of what it needs; safe to run again."""
    from dreambooth3d.cli.stack import KubernetesStack, commands, register

    stack = KubernetesStack(
        name, context, namespace, artifact_store, registry, tracking_uri, tracking_secret,
        service_account, endpoint_url, secret,
    )  # fmt: skip
    if dry_run:
        told(as_json, commands(stack))
        return
    with telling(as_json) as say:
        register(stack, say)
