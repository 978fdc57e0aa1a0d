"""Starts DataPress over a directory of marts: `datapress.py DIRECTORY PORT [TOKEN]`.

Who has the token may have it read its files again.
"""

import asyncio
from pathlib import Path
import sys

from datap_rs import DataPress, DataPressConfig, DatasetConfig


async def main(directory: Path, port: int, token: str | None = None) -> None:
    config = DataPressConfig(
        backend="datafusion", port=port, swagger_enabled=False, explorer_enabled=False, admin_token=token
    )
    marts = [DatasetConfig(name=path.stem, source=str(path)) for path in sorted(directory.glob("*.parquet"))]
    await DataPress(config, datasets=marts).run()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
