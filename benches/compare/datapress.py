"""Starts DataPress over a directory of marts: `datapress.py DIRECTORY PORT`."""

import asyncio
from pathlib import Path
import sys

from datap_rs import DataPress, DataPressConfig, DatasetConfig


async def main(directory: Path, port: int) -> None:
    config = DataPressConfig(
        backend="datafusion", port=port, swagger_enabled=False, explorer_enabled=False
    )
    marts = [DatasetConfig(name=path.stem, source=str(path)) for path in sorted(directory.glob("*.parquet"))]
    await DataPress(config, datasets=marts).run()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
