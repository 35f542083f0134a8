"""`--push_to_hub`: checked before a run starts, done when it is finished."""

from pathlib import Path

from huggingface_hub import HfApi

from ser_mtl.hub.access import check_access
from ser_mtl.hub.base import base_on_hub, find_base, refuse_private
from ser_mtl.hub.names import HASHED
from ser_mtl.hub.options import Options
from ser_mtl.hub.push import publish_run
from ser_mtl.training.arguments import SerMtlArguments


def check_publication(args: SerMtlArguments, base: str | None) -> None:
    """Check, before hours of training, that their result can be published.

    Args:
        args: of the run.
        base: folder or Hub id of the model under its adapters; None if all parameters are trained.

    Raises:
        UserError: the name, the token, the organisation or the repository will not do; or the base is not on the Hub,
            or private under public adapters.
    """
    if not args.publish or args.hub_model_id is None:
        return
    check_access(HfApi(token=args.hub_token), args.hub_model_id, public=not args.hub_private_repo)
    if base is not None:
        # Adapters that continue those of a stage 1 share its base.
        found = find_base(base, token=args.hub_token) or base_on_hub(base, token=args.hub_token)
        if not args.hub_private_repo:
            refuse_private(found, "--no_hub_private_repo")


def publish(args: SerMtlArguments) -> None:
    """Publish the finished run, if `--push_to_hub` says so, and print where it is.

    Raises:
        UserError: the Hub refuses. The run is complete; the same command publishes it.
    """
    if not args.publish or args.hub_model_id is None or args.process_index != 0:
        return
    options = Options(public=not args.hub_private_repo)
    published = publish_run(Path(args.output_dir), args.hub_model_id, options=options, token=args.hub_token)
    print(f"published as {published.repo_id}, commit {published.revision}")
    if options.hashing:
        print(HASHED)
