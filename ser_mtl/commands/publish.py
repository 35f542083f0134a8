"""Publish a finished run on the Hub, or write it out in forms that load without this project.

python publish.py runs/iemocap/stage1/fold1 --repo_id me/xlsr-ser-stage1
python publish.py runs/iemocap/stage2/fold1 --repo_id me/xlsr-ser-stage2 --merge
python publish.py runs/iemocap/stage2 --repo_id me/xlsr-ser-stage2 --all_folds
python publish.py runs/iemocap/stage1/fold1 --export wav2vec2
"""

from argparse import Namespace
from pathlib import Path

from ser_mtl.cli import command_line
from ser_mtl.errors import UserError
from ser_mtl.hub.base import find_base
from ser_mtl.hub.export import write_merged, write_wav2vec2
from ser_mtl.hub.folds import publish_overview, runs_of_folds
from ser_mtl.hub.push import publish_run
from ser_mtl.hub.record import Published
from ser_mtl.recipe import Parser


def main() -> None:
    """A run folder in; a repository on the Hub, or other forms of the model in the run folder."""
    args = parse_arguments()
    if args.all_folds:
        runs = runs_of_folds(args.run_folder)
        published = {fold: publish(run, f"{args.repo_id}-fold{fold}", args) for fold, run in runs.items()}
        show(publish_overview(runs, published, args.repo_id, args.public))
        return
    if args.export:
        for folder in write_wav2vec2(args.run_folder, args.run_folder / args.export):
            print(f"written to {folder}")
    merged = args.run_folder / "merged"
    if args.merge:
        write_merged(args.run_folder, merged, find_base(args.run_folder, args.base_repo_id) if args.repo_id else None)
        print(f"written to {merged}")
    if args.repo_id:
        publish(args.run_folder, args.repo_id, args)
        if args.merge:
            publish(merged, f"{args.repo_id}-merged", args)


def parse_arguments() -> Namespace:
    """Read the command line.

    Raises:
        UserError: flags that do not go together.
    """
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("run_folder", type=Path, help="Folder of a finished run; with --all_folds the one that fold1 to fold5 are in.")
    add("--repo_id", help="Where on the Hub, namespace/name. Without it nothing is published.")
    add("--public", action="store_true", help="Let everyone read it.")
    add("--base_repo_id", help="Where on the Hub the model is that the adapters go onto. [where its run was published]")
    add("--with_transcripts", action="store_true", help="Publish what is said in the test utterances, too.")
    add("--merge", action="store_true", help="Also make a model of adapters and base: <run>/merged, <repo_id>-merged.")
    add("--export", choices=["wav2vec2"], help="Also write stock models of transformers, into <run>/wav2vec2.")
    add(
        "--all_folds",
        action="store_true",
        help="Publish <repo_id>-fold1 to -fold5, and one card over all as <repo_id>.",
    )
    args = parser.parse_args()
    if not (args.repo_id or args.merge or args.export):
        raise UserError("nothing to do: name --repo_id, --merge or --export")
    if args.all_folds and (not args.repo_id or args.merge or args.export):
        raise UserError("--all_folds goes with --repo_id, and without --merge and --export")
    return args


def publish(run: Path, repo_id: str, args: Namespace) -> Published:
    """Publish one run, and say where."""
    published = publish_run(
        run, repo_id, base_repo_id=args.base_repo_id, public=args.public, with_transcripts=args.with_transcripts
    )
    show(published)
    return published


def show(published: Published) -> None:
    """Print where something was published."""
    print(f"published as {published.repo_id}, commit {published.revision}")


if __name__ == "__main__":
    command_line(main)
