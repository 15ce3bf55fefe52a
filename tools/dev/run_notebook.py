"""Execute a notebook in an empty folder and fail if a cell fails.

Example: MINUTES=1 python tools/dev/run_notebook.py demo/tutorial.ipynb
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('notebook', type=Path)
    parser.add_argument('--out', type=Path, help='write the executed notebook to this file')
    parser.add_argument('--timeout', type=int, default=900, help='seconds per cell')
    args = parser.parse_args()
    notebook = nbformat.read(args.notebook, as_version=4)
    # The shell cells call the `mmpaca` of this interpreter.
    os.environ['PATH'] = os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH']))
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=args.timeout, resources=dict(metadata=dict(path=folder))
        )
        client.on_cell_executed = report
        try:
            client.execute()
        finally:
            if args.out:
                nbformat.write(notebook, args.out)


def report(cell: nbformat.NotebookNode, cell_index: int, **_: object) -> None:
    """Print what a code cell printed."""
    for output in cell.get('outputs', ()):
        print(f'[{cell_index}]', output.get('text', output.output_type).rstrip(), flush=True)


if __name__ == '__main__':
    main()
