"""The TinyStories V2 files (Eldan & Li 2023) out of the Hugging Face cache, downloaded once."""

from __future__ import annotations

from pathlib import Path

from mlxstories.errors import StoriesError

REPOSITORY = "roneneldan/TinyStories"
FILES = {"train": "TinyStoriesV2-GPT4-train.txt", "validation": "TinyStoriesV2-GPT4-valid.txt"}


def download(part: str) -> Path:
    """The path of the ``train`` (2.2 GB) or ``validation`` (22 MB) file.

    The cached file if there is one, else a download that shows its progress and resumes where an earlier
    one ended. Raises StoriesError if the file is neither cached nor reachable.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    name = FILES[part]
    where = {"repo_id": REPOSITORY, "filename": name, "repo_type": "dataset"}
    try:
        return Path(huggingface_hub.hf_hub_download(**where, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the one line below says what each retry would
    try:
        return Path(huggingface_hub.hf_hub_download(**where))
    except Exception as error:  # network, hub and disk errors share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, LocalEntryNotFoundError):
            reason = "the hub cannot be reached"
        raise StoriesError(
            f"cannot get {name} of {REPOSITORY} ({reason[:200]}): go online once, or name a local copy by "
            "--data PATH"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
