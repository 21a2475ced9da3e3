"""Hub: a published version pushed to a Hub repository."""

from __future__ import annotations

import os

from mgv.errors import ConfigError, MgvError
from mgv.registry.promotion import find_published
from mgv.registry.versions import verify
from mgv.workspace import Workspace


def push_to_hub(workspace: Workspace, version: str, repo_id: str) -> str:
    """Upload a version as one commit, tagged with its name; a missing repository is made, private. Its address.

    The token comes from the environment (HF_TOKEN) alone, the hub's address from HF_ENDPOINT where it is set.
    Raises ConfigError without a token, MgvError when the hub cannot be reached or refuses.
    """
    about = find_published(workspace, version)
    verify(about.folder)
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise ConfigError(
            f"{version} is published here, but not pushed: the environment has no HF_TOKEN"
        )
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="mgv")
    try:
        address = hub.create_repo(repo_id, private=True, exist_ok=True)
        message = f"{version}, library {about.library_tag}"
        commit = hub.upload_folder(
            repo_id=repo_id, folder_path=about.folder, commit_message=message
        )
        hub.create_tag(repo_id, tag=version, revision=commit.oid, exist_ok=True)
    except Exception as error:  # of its HTTP library, which differs by its version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MgvError(
            f"{version} is published here, but not pushed to {repo_id}: {reason}; "
            f"try again by `mgv publish --push-to-hub {repo_id}`"
        ) from error
    return str(address)
