"""Which data sets are there, what they lack, and getting them.

    python -m tools.datasets check dtd oxford_pets          what is there, what is missing, where to get it
    python -m tools.datasets check all
    python -m tools.datasets check folder --folder my_birds --images
    python -m tools.datasets choose --folder my_birds --base kite,owl,tit
    python -m tools.datasets prepare dtd                    download, or take from --archives, and arrange

Data sets are named as in configs/datasets, and lie in --root, by default $DATA, else ./data. Of a folder of one's own,
`check` shows each class: its name, whether it is base or new, and its prompt as CLIP reads it; `choose` writes
classnames.txt, which says names and order. The exit status is 0 only if every set that was asked for can be used.
`prepare` may be called again at any time: what is done stays, and what was broken off goes on. See docs/data.md.
"""

from __future__ import annotations

import os
import sys

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.pipes import ending_quietly
from tools.data.names import config_file


@ending_quietly()
def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.datasets", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="say what is there, what is missing and where to get it")
    checking.add_argument("datasets", nargs="+", help="names as in configs/datasets, or all")
    checking.add_argument("--folder", default="", help="for `folder`: DATASET.FOLDER, its name below the root or path")
    checking.add_argument("--images", action="store_true", help="open every image, too")
    checking.add_argument("--quick", action="store_true", help="only look whether folders and lists are there")
    checking.add_argument("--classes", action="store_true", help="show every class of public sets, too")
    choosing = commands.add_parser("choose", help="write classnames.txt of a folder of one's own, to edit")
    choosing.add_argument("--folder", required=True, help="DATASET.FOLDER, its name below the root or path")
    choosing.add_argument("--base", default="", help="base classes, a,b,c: half of all, rounded up")
    preparing = commands.add_parser("prepare", help="download, or take from --archives, and arrange")
    preparing.add_argument("datasets", nargs="+", help="names as in configs/datasets, or all")
    preparing.add_argument("--archives", default="", help="folder of the archives (default: archives in the root)")
    for command in (checking, choosing, preparing):
        command.add_argument("--root", default=os.environ.get("DATA") or "data", help="folder of the data sets")
    args = parser.parse_args(arguments)
    try:
        for name in getattr(args, "datasets", ()):
            if name != "all":
                config_file(name)
    except ValueError as error:
        parser.exit(2, f"tools.datasets: {escaped(str(error))}\n")
    from tools.data.check import Report, check, public_names, show
    from tools.data.prepare import prepare

    root = os.path.abspath(os.path.expanduser(args.root))
    if args.command == "choose":
        from tools.data.classes import choose

        try:
            path = choose(os.path.join(root, os.path.expanduser(args.folder)), [n for n in args.base.split(",") if n])
        except (OSError, ValueError) as error:
            parser.exit(2, f"tools.datasets: {escaped(str(error))}\n")
        print(f"Written to {escaped(str(path))}: folder, tab, class name; the first half, rounded up, is base")
        return
    archives = os.path.abspath(os.path.expanduser(getattr(args, "archives", "") or os.path.join(root, "archives")))
    names = [one for name in args.datasets for one in (public_names() if name == "all" else [name])]
    usable = True
    for name in names:
        try:
            if args.command == "check":
                report = check(name, root, args.folder, args.images, args.quick, args.classes)
            else:
                report = prepare(name, root, archives)
        except (OSError, ValueError) as error:
            report = Report(name, False, [f"wrong     {error}"])
        show(report)
        usable = usable and report.usable
    sys.exit(0 if usable else 1)


if __name__ == "__main__":
    main()
