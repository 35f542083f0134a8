"""Publish a finished run on the Hub.

ser-mtl publish runs/iemocap/stage1/fold1 --repo_id me/xlsr-ser-stage1
ser-mtl publish runs/iemocap/stage2/fold1 --repo_id me/xlsr-ser-stage2 --merge
ser-mtl publish runs/iemocap/stage2 --repo_id me/xlsr-ser-stage2 --all_folds
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ser_mtl.errors import UserError
from ser_mtl.safe_text import printable

if TYPE_CHECKING:
    from ser_mtl.hub.base import Base
    from ser_mtl.hub.options import Options
    from ser_mtl.hub.record import Published


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("run_folder", type=Path, help="Folder of a finished run; with --all_folds the one that holds fold1 to fold5.")
    add("--repo_id", required=True, help="Where on the Hub: namespace/name.")
    add("--public", action="store_true", help="Let everyone read the repository. [private]")
    add("--base_repo_id", help="Where on the Hub the base of the adapters is. [where its run was published]")
    add("--with_transcripts", action="store_true", help="Publish the transcripts of the test utterances too.")
    add("--keep_names", action="store_true", help="Publish the names of speakers and files. [hashed, if --public]")
    add("--merge", action="store_true", help="Also merge adapters and base, and publish that as <repo_id>-merged.")
    add("--license", help="Licence on the card, by its name on the Hub, such as cc-by-4.0.")
    add("--language", nargs="+", help="Languages on the card, as codes such as en.")
    add("--dataset", nargs="+", help="Datasets on the card, by their names on the Hub.")
    add("--card", type=Path, metavar="FILE", help="Your own text for the card, in Markdown.")
    add(
        "--overwrite_card",
        action="store_true",
        help="Replace a card that was edited on the Hub or completed here. [kept]",
    )
    add(
        "--all_folds",
        action="store_true",
        help="Publish the folds as <repo_id>-fold1 to -fold5, and one card for all as <repo_id>.",
    )


def main(args: Namespace) -> None:
    """Publish a run, also merged if asked to, or five folds.

    Raises:
        UserError: the run is incomplete, flags do not go together, or the Hub refuses.
    """
    from ser_mtl.hub.completion import read_completion
    from ser_mtl.hub.folds import publish_overview, runs_of_folds
    from ser_mtl.hub.options import Options

    completion = read_completion(args.license, args.language, args.dataset, args.card)
    options = Options(args.public, args.with_transcripts, args.keep_names, completion, args.overwrite_card)
    if args.all_folds:
        if args.merge:
            raise UserError("--all_folds and --merge do not go together; merge each fold")
        runs = runs_of_folds(args.run_folder)
        published = {fold: publish(run, f"{args.repo_id}-fold{fold}", args, options) for fold, run in runs.items()}
        return show(publish_overview(runs, published, args.repo_id, options), options)
    if not args.merge:
        publish(args.run_folder, args.repo_id, args, options)
        return None
    merged, base = merge(args)
    if args.public and base is not None and base.private:
        print(f"the adapters are not published: their base, {base.repo_id}, is private")
    else:
        publish(args.run_folder, args.repo_id, args, options)
    publish(merged, f"{args.repo_id}-merged", args, options)
    return None


def merge(args: Namespace) -> tuple[Path, "Base | None"]:
    """Write the merged form of a run into its folder; also returns the base of its adapters."""
    from ser_mtl.hub.base import find_base
    from ser_mtl.hub.complete import read_complete
    from ser_mtl.hub.export import write_merged

    read_complete(args.run_folder)  # raises before anything is asked of the Hub
    merged = args.run_folder / "merged"
    base = find_base(args.run_folder, args.base_repo_id)
    write_merged(args.run_folder, merged, base, args.base_repo_id)
    print(printable(f"written to {merged}"))
    return merged, base


def publish(run: Path, repo_id: str, args: Namespace, options: "Options") -> "Published":
    """Publish one run, and print where it is."""
    from ser_mtl.hub.push import publish_run

    published = publish_run(run, repo_id, args.base_repo_id, options)
    show(published, options)
    return published


def show(published: "Published", options: "Options") -> None:
    """Print where something was published, and whether names were hashed."""
    from ser_mtl.hub.names import HASHED

    print(f"published as {published.repo_id}, commit {published.revision}")
    if options.hashing:
        print(HASHED)
