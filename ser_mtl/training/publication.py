"""`--push_to_hub`: looked into before a run starts, done when it is finished."""

from pathlib import Path

from huggingface_hub import HfApi

from ser_mtl.errors import hub_errors
from ser_mtl.hub.base import base_on_hub, find_base
from ser_mtl.hub.push import publish_run
from ser_mtl.training.arguments import RunArguments


def check_publication(args: RunArguments, base: str | None) -> None:
    """Before hours of training, make sure that their result can be published.

    Args:
        args: of the run.
        base: the model that its adapters will go onto, a folder or Hub id; None where all parameters are trained.

    Raises:
        UserError: the Hub does not know the user, or the base is not there.
    """
    if not args.publish:
        return
    with hub_errors(f"--hub_model_id {args.hub_model_id}"):
        HfApi(token=args.hub_token).whoami()
    # Adapters of stage 2 on a stage 1 that has adapters itself go onto what those go onto.
    if base is not None and find_base(base, token=args.hub_token) is None:
        base_on_hub(base, token=args.hub_token)


def publish(args: RunArguments) -> None:
    """Publish the finished run, where `--push_to_hub` says so, and say where it is.

    Raises:
        UserError: the Hub says no. The run is whole; the same command publishes it.
    """
    if not args.publish or args.process_index != 0:
        return
    published = publish_run(
        Path(args.output_dir), args.hub_model_id, public=not args.hub_private_repo, token=args.hub_token
    )
    print(f"published as {published.repo_id}, commit {published.revision}")
