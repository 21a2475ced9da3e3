"""Notices: what a flow has to tell people, sent through Prefect's notification blocks.

MGV_NOTICE_URL=https://hooks.example.com/… python -m flows.notices mgv     makes the block custom-webhook/mgv
MGV_NOTICE_URL=mailtos://user:password@example.com?to=a@example.com python -m flows.notices mgv     makes e-mail/mgv

params.yaml names the blocks (`retrain.notify`); the addresses and passwords lie in Prefect's server, encrypted.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.notifications import AppriseNotificationBlock, CustomWebhookNotificationBlock
from pydantic import SecretStr

from flows import errors_as_lines, say
from mgv.errors import UsageError
from mgv.workspace import Workspace, find_workspace

logger = logging.getLogger("mgv.notices")

URL = "MGV_NOTICE_URL"
"""The environment variable that holds a block's address."""


class Mail(AppriseNotificationBlock):
    """Mail by SMTP; the address is `mailto://` or, encrypted, `mailtos://` (Apprise has the forms)."""

    _block_type_name = "E-mail"
    _block_type_slug = "e-mail"


def make_block(name: str, url: str) -> str:
    """Save a block that sends to this address; what `retrain.notify` calls it."""
    block: Block
    if url.startswith(("http://", "https://")):
        block = CustomWebhookNotificationBlock(
            name=name, url="{{address}}", json_data={"subject": "{{subject}}", "text": "{{body}}"},
            secrets={"address": url},
        )  # fmt: skip
    elif url.startswith(("mailto://", "mailtos://")):
        block = Mail(url=SecretStr(url))
    else:
        raise UsageError(
            f"{URL}: expected https://, http://, mailto:// or mailtos://, got {url.partition(':')[0]!r}"
        )
    block.save(name, overwrite=True)
    return f"{block.get_block_type_slug()}/{name}"


def tell(workspace: Workspace, subject: str, body: str) -> None:
    """Tell every block of `retrain.notify`. One that cannot be reached is logged, and stops nothing."""
    for name in workspace.params.retrain.notify:
        try:
            block: Any = Block.load(name)
        except ValueError:
            logger.warning(
                "this Prefect server has no block %s (docs/retraining.md): not told: %s",
                name,
                subject,
            )
            continue
        try:
            with block.raise_on_failure():
                block.notify(body, subject)
        except Exception as error:  # its words may hold the address
            logger.warning(
                "%s cannot be reached (%s): not told: %s", name, type(error).__name__, subject
            )


def tell_of_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of a flow that failed or died. That another run is at work is no failure to tell of."""
    if "BusyError" in (state.message or ""):
        return
    workspace = find_workspace(Path(str(flow_run.parameters.get("library", "."))))
    tell(workspace, f"mgv: {flow.name} {state.name.lower()}", f"{flow_run.name}: {state.message}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of the block")
    given = parser.parse_args()
    with errors_as_lines():
        if URL not in os.environ:
            raise UsageError(f"{URL} is not set: it holds where the notices go")
        made = make_block(given.name, os.environ[URL])
        say(f"made {made}: name it in params.yaml, retrain.notify: [{made}]")
