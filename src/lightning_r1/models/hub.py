"""Whether a model of the Hugging Face hub can be had, asked once before anything is loaded.

What transformers asks for, it asks for again and again while the network is down, half a minute for each file, and
wraps what the hub answers in a page. Here one request tells whether the model is there and may be read.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PLACEHOLDER = "RUN/"  # as guides and hints write it
_PATIENCE_S = 10.0


class HubError(ValueError):
    """A model of the hub cannot be had from here; one line with the way to it."""


class HubOutOfReach(HubError):
    """The hub was not asked, or did not answer: whether it has such a model is not known."""


def check_on_hub(path: str | Path) -> None:
    """See that a model can be loaded, if it is one of the hub. A copy in the cache needs no network.

    Args:
        path: a folder, or a hub id.

    Raises:
        HubError: if it is not there, may not be read, or the hub cannot be reached (:class:`HubOutOfReach`).
    """
    name = str(path)
    if not _HUB_ID.fullmatch(name) or Path(name).exists() or _is_cached(name):
        return
    if name.startswith(_PLACEHOLDER):
        raise HubError(f"{name}: RUN stands for the folder of a run, as in outputs/mine/model; name a folder of yours")
    page = f"{constants.ENDPOINT}/{name}"
    elsewhere = (
        f"download it where it can be had (hf download {name} --local-dir FOLDER) and set the path to that folder"
    )
    if constants.HF_HUB_OFFLINE:
        raise HubOutOfReach(
            f"{name}: HF_HUB_OFFLINE is set, and it is not in the cache of the hub; unset it, or {elsewhere}"
        )
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_PATIENCE_S)
    except GatedRepoError as error:
        raise HubError(
            f"{name}: its access is gated; accept its licence at {page}, then say who you are: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{name}: there is neither such a folder nor such a model at {page}; check the name, and say hf auth login "
            "if it is private"
        ) from error
    except EntryNotFoundError as error:
        raise HubError(f"{name}: there is no config.json at {page}; it is no model of transformers") from error
    except OfflineModeIsEnabled as error:
        raise HubOutOfReach(f"{name}: the hub is switched off here; {elsewhere}") from error
    except HfHubHTTPError as error:
        raise HubError(f"{name}: the hub does not give it ({str(error).splitlines()[0]}); {elsewhere}") from error
    except OSError as error:
        raise HubOutOfReach(f"{name}: {_unreachable(error)}; connect to the network, or {elsewhere}") from error
    except Exception as error:
        # the hub's client changes its library for requests, whose errors are no OSErrors
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise HubOutOfReach(f"{name}: {_unreachable(error)}; connect to the network, or {elsewhere}") from error


def _is_cached(name: str) -> bool:
    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _unreachable(error: Exception) -> str:
    return f"there is no such folder, and {constants.ENDPOINT} cannot be reached ({type(error).__name__}: {error})"
