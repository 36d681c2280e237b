"""Show a page in the browser to try a model on: drop images, see probability, reason and maps.

Example: python -m cardiomegaly.app model=outputs/train/first

It listens on this machine only, unless host says otherwise.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cardiomegaly import cli

EXAMPLES = 4


@dataclass
class Options:
    model: Any = cli.option(
        "run folder, .ckpt, .onnx or bundle, or [several], which are averaged", MISSING
    )
    host: str = cli.option("address to listen on", "127.0.0.1")
    port: int = cli.option("to listen on; 0 takes a free one from 7860 on", 7860)
    device: str = cli.option("auto, cpu or cuda", "auto")
    trust: Any = cli.option("modules of your own whose classes a run may name")


def act(options: Options) -> None:
    """Serve until interrupted; all that was uploaded is gone then."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.data.phantom.cohort import generate_phantom
    from cardiomegaly.inference.loading import load

    detector = load(
        cli.as_list(options.model), device=options.device, trust=cli.as_list(options.trust)
    )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and tidies up
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "GRADIO_TEMP_DIR": str(Path(folder) / "uploads"),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        from cardiomegaly.inference import web

        root = Path(folder) / "phantom"
        generate_phantom(root, images=EXAMPLES, size=256, seed=7)
        examples = sorted((root / "images").iterdir())
        web.build(detector, examples).launch(
            server_name=options.host, server_port=options.port or None, inbrowser=False,
            share=False,
            max_file_size=f"{web.UPLOAD_MB}mb", allowed_paths=[str(root)], show_error=True,
            footer_links=[], enable_monitoring=False, theme=web.theme(), css=web.STYLE,
            ssr_mode=False,
        )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
